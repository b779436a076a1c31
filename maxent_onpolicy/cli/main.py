"""The entry point of ``maxent-onpolicy``: finds the command, and shows a user's mistake without a traceback."""

import os
import sys
import warnings
from importlib import import_module
from typing import TextIO

from rich.console import Console
from rich.text import Text

from maxent_onpolicy import __version__
from maxent_onpolicy.cli.ranks import rank_and_size
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.validation import did_you_mean

# imported on use: a report needs no PyTorch
COMMANDS = {
    "train": "maxent_onpolicy.cli.train",
    "evaluate": "maxent_onpolicy.cli.evaluate",
    "bench": "maxent_onpolicy.cli.bench",
    "report": "maxent_onpolicy.cli.report",
    "merge": "maxent_onpolicy.cli.merge",
    "solve": "maxent_onpolicy.cli.solve",
    "list": "maxent_onpolicy.cli.listing",
    "llm": "maxent_onpolicy.cli.llm.command",
    "zoo": "maxent_onpolicy.cli.zoo",
}
HELP = """Maximum-entropy on-policy reinforcement learning.

usage: maxent-onpolicy COMMAND [OPTIONS]

  train     train one algorithm in one environment
  evaluate  play episodes with a trained model
  bench     run a suite: algorithms x environments x seeds, resumable
  report    tables, figures and a page from finished runs
  merge     bring the runs of several machines into one store
  solve     solve a two-player zero-sum game
  list      algorithms, controllers, environments, games and suites there are
  llm       language models: warm start, training, evaluation
  zoo       train, tune and watch through RL-Baselines3-Zoo

first steps:

  maxent-onpolicy train MaxEntPPO CartPole-v1 --timesteps 50_000 --tau 0.02
  maxent-onpolicy evaluate results/local/runs/MaxEntPPO/CartPole-v1/seed_0
  maxent-onpolicy bench quick

`maxent-onpolicy COMMAND --help` explains a command with examples.
"""
_MISUSE = 2
_BROKEN_PIPE = 141  # as the shell reports it of other programs


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command line without the program; default is this process's.

    Returns:
        The exit status: 0, 1 if a run failed, 2 after a mistake of the user, 130 if it was interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if arguments else _MISUSE
    if arguments[0] == "--version":
        print(f"maxent-onpolicy {__version__}")
        return 0
    command, *rest = arguments
    warnings.showwarning = _show_warning
    rank, size = rank_and_size()
    if rank > 0:  # what there is to say, rank 0 says
        warnings.simplefilter("ignore")
    try:
        if size > 1 and command != "train":
            raise UsageError(f"torchrun starts several processes, and only train makes use of them, not {command}")
        if command not in COMMANDS:
            raise UsageError(
                f"unknown command {command!r}{did_you_mean(command, COMMANDS)}; see maxent-onpolicy --help"
            )
        status: int = import_module(COMMANDS[command]).main(rest)
    except UsageError as error:
        Console(stderr=True, highlight=False).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        return _MISUSE
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever reads (`| head`) has seen enough; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return status


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as a line; which line of which file raised it does not help whoever types commands."""
    Console(stderr=True, highlight=False).print(Text.assemble(("warning: ", "yellow"), str(message)), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
