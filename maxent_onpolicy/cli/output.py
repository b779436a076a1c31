"""What several commands print."""

import os
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

# lines of a log are not broken where a terminal would end
_LOG_WIDTH = 100


def make_console() -> Console:
    """Return a console for this process's output."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _LOG_WIDTH
    return Console(highlight=False, width=width)


def show_report(console: Console, results: Path) -> None:
    """Write the report on ``results``, and print its summary and where it is.

    Raises:
        FileNotFoundError: if there is no such directory.
        ValueError: if it holds no completed run, or a file that cannot be read.
        OSError: if the report cannot be written.
    """
    from maxent_onpolicy.evaluation.report import write_report
    from maxent_onpolicy.evaluation.scores import load_results
    from maxent_onpolicy.evaluation.tables import summary_renderable

    page = write_report(results)
    console.print(summary_renderable(load_results(results)))
    console.print(Text(f"\nreport: {page}"), soft_wrap=True)


def try_report(console: Console, results: Path) -> bool:
    """:func:`show_report`, or print why there is none; return whether that is no failure: no run is completed yet."""
    from maxent_onpolicy.evaluation.scores import NoResultsError

    try:
        show_report(console, results)
    except (ValueError, OSError) as error:
        expected = isinstance(error, NoResultsError)
        console.print(Text(f"no report: {error}", style="" if expected else "red"), soft_wrap=True)
        return expected
    return True
