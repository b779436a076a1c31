"""What a measured process waits for and reports to."""

import json
import sys
from typing import Protocol

WARM_UP = 2  # first steps that do not count


class Turn(Protocol):
    """Whose step it is."""

    def wait(self) -> None:
        """Return when it is this one's turn."""

    def end(self, **values: float) -> None:
        """Report a step."""


class Piped:
    """A line of standard input allows one step, and a line of JSON on standard output ends it.

    Whatever else is printed goes to standard error.
    """

    def __init__(self) -> None:
        self._output, sys.stdout = sys.stdout, sys.stderr

    def wait(self) -> None:
        """See :class:`Turn`.

        Raises:
            SystemExit: if nobody waits for a step any more.
        """
        if not sys.stdin.readline():
            raise SystemExit("nobody waits for a step any more")

    def end(self, **values: float) -> None:
        """See :class:`Turn`."""
        print(json.dumps(values), file=self._output, flush=True)
