"""Command lines: options by tyro, and an algorithm's hyperparameters as options of their own."""

from collections.abc import Collection
from typing import Annotated, Any, TypeVar

import tyro

from maxent_onpolicy.cli.values import UsageError, parse_value, set_path

T = TypeVar("T")
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


def option(metavar: str, default: str | None = None) -> Any:
    """Describe an option for ``--help``.

    Args:
        metavar: what its value is called.
        default: what is used without it, as the user would say it.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})" if default else "")


def parse_options(options: type[T], command: str, description: str, arguments: list[str]) -> T:
    """Read ``arguments`` into the dataclass ``options``; on a mistake or ``--help``, say so and exit.

    Args:
        options: a dataclass.
        command: the subcommand.
        description: shown by ``--help`` above the options.
        arguments: what follows the subcommand.
    """
    if {"-h", "--help"} & set(arguments):
        # tyro would join the lines and not wrap them
        print(description)
    config = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(options, prog=f"maxent-onpolicy {command}", description="", args=arguments, config=config)


def split_hyperparameters(arguments: list[str], options: Collection[str]) -> tuple[list[str], dict[str, Any]]:
    """Take what is none of ``options`` out of ``arguments``.

    Hyperparameters are written ``--tau 0.02``, ``--tau=0.02``, ``--popart`` or ``--no-popart``.

    Args:
        arguments: a command line.
        options: names of the command's own options, with underscores.

    Returns:
        The rest of the command line, and the hyperparameters with their values read as YAML.
    """
    rest: list[str] = []
    found: dict[str, Any] = {}
    pending = list(arguments)
    while pending:
        token = pending.pop(0)
        name, equals, value = token.removeprefix("--").partition("=")
        key = name.replace("-", "_")
        if not token.startswith("--") or not key or key in {*options, "help"}:
            rest.append(token)
        elif equals:
            set_path(found, key, parse_value(value))
        elif pending and not pending[0].startswith("--"):
            set_path(found, key, parse_value(pending.pop(0)))
        else:
            set_path(found, key.removeprefix("no_"), not key.startswith("no_"))
    return rest, found


def read_assignments(assignments: Collection[str], option: str) -> dict[str, Any]:
    """Read ``key=value`` and ``outer.inner=value``.

    Raises:
        UsageError: if an assignment has no ``=``.
    """
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} expects key=value, got {assignment!r}")
        set_path(found, name.replace("-", "_"), parse_value(value))
    return found
