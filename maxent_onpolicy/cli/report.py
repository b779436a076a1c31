"""``maxent-onpolicy report``: tables, figures and a page from the runs in a directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from maxent_onpolicy.cli.output import make_console, show_report
from maxent_onpolicy.cli.parse import option, parse_options
from maxent_onpolicy.cli.values import UsageError

DESCRIPTION = """Write tables, figures and a report from the runs in a results directory.

The same runs give the same files, byte for byte.

  maxent-onpolicy report results/quick
"""


@dataclass(frozen=True)
class ReportOptions:
    """Options of ``maxent-onpolicy report``.

    Attributes:
        path: a results directory: the folder that contains `runs`
    """

    path: Annotated[tyro.conf.Positional[Path], option("DIR")]


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status.

    Raises:
        UsageError: if the directory holds no results.
    """
    options = parse_options(ReportOptions, "report", DESCRIPTION, arguments)

    try:
        show_report(make_console(), options.path)
    except FileNotFoundError:
        raise UsageError(f"there is no results directory {options.path}") from None
    except ValueError as error:
        raise UsageError(str(error)) from error
    return 0
