"""``maxent-onpolicy solve``: solve a two-player zero-sum game."""

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maxent_onpolicy.cli.output import make_console
from maxent_onpolicy.cli.parse import Flag, option, parse_options, read_assignments
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.files import write_atomic
from maxent_onpolicy.validation import check_choice

if TYPE_CHECKING:
    from maxent_onpolicy.games.solvers.base import Solver

DESCRIPTION = """Solve a two-player zero-sum game.

With a temperature, OMWU converges to the quantal response equilibrium, in
which both players are paid for entropy; with --tau anneal it goes on to a Nash
equilibrium. `maxent-onpolicy list games` shows which games there are.

  maxent-onpolicy solve kuhn_poker --tau 0.05
  maxent-onpolicy solve kuhn_poker --show-policy
  maxent-onpolicy solve leduc_poker --acceleration newton --tol 1e-6
  maxent-onpolicy solve leduc_poker --solver cfr+ --iterations 5000
  maxent-onpolicy solve soccer --tau 0.01 --save soccer.npz
  maxent-onpolicy solve random_matrix --set m=20 --set n=30 --set seed=1
  maxent-onpolicy solve "liars_dice(numdice=1)" --seconds 60

Games in sequence form need the extra games.
"""
SOLVERS = ("omwu", "extragradient", "mwu", "mmd", "cfr+", "pcfr+")
_ROWS = 40


@dataclass(frozen=True)
class SolveOptions:
    """Options of ``maxent-onpolicy solve``.

    Attributes:
        game: a name, with OpenSpiel's parameters in parentheses
        solver: omwu, extragradient, mwu, mmd, cfr+ or pcfr+
        tau: temperature, or anneal
        eta: step size, auto or theory
        iterations: updates at most
        tol: stop at this QRE gap, or at this exploitability if tau is 0 or anneal
        seconds: stop after so much CPU time
        check_every: updates between checks
        acceleration: newton adds Newton steps, in games in sequence form
        set: argument of the game, such as seed=1; repeat for more
        save: write the solver to this file
        history: write what every check found to this CSV file
        show_policy: print the strategies in full
    """

    game: Annotated[tyro.conf.Positional[str], option("GAME")]
    solver: Annotated[str, option("NAME", "omwu")] = "omwu"
    tau: Annotated[str, option("TAU", "anneal")] = "anneal"
    eta: Annotated[str, option("ETA", "auto")] = "auto"
    iterations: Annotated[int, option("N", "100000")] = 100_000
    tol: Annotated[float, option("GAP", "1e-9")] = 1e-9
    seconds: Annotated[float, option("SECONDS", "no limit")] = float("inf")
    check_every: Annotated[int, option("N", "100")] = 100
    acceleration: Annotated[str | None, option("NAME", "none")] = None
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("KEY=VALUE")] = ()
    save: Annotated[Path | None, option("FILE")] = None
    history: Annotated[Path | None, option("FILE")] = None
    show_policy: Flag = False


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status.

    Raises:
        UsageError: if there is no such game, or an option is out of range.
    """
    options = parse_options(SolveOptions, "solve", DESCRIPTION, arguments)
    console = make_console()
    try:
        check_choice("--solver", options.solver, SOLVERS)
        solver = _make_solver(options)
        solver.learn(
            options.iterations,
            tol=options.tol,
            callback=lambda now: now.seconds < options.seconds,
            progress_bar=console.is_terminal,
            check_every=options.check_every,
        )
    except (ValueError, TypeError, ImportError, ArithmeticError) as error:
        raise UsageError(str(error)) from error
    _show(console, solver, options)
    if options.history is not None:
        write_atomic(options.history, history_csv(solver))
        console.print(Text(f"history: {options.history}"), soft_wrap=True)
    if options.save is not None:
        console.print(Text(f"solver: {solver.save(options.save)}"), soft_wrap=True)
    return 0


def history_csv(solver: "Solver") -> str:
    """Return what every check found as CSV."""
    from maxent_onpolicy.games.solvers.base import Record

    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(Record._fields)
    writer.writerows(solver.history)
    return stream.getvalue()


def _make_solver(options: SolveOptions) -> "Solver":
    from maxent_onpolicy.games.registry import make_game

    game = make_game(options.game, **read_assignments(options.set, "--set"))
    tau: Any = "anneal" if options.tau == "anneal" else _number("--tau", options.tau)
    eta: Any = options.eta if options.eta in ("auto", "theory") else _number("--eta", options.eta)
    if options.solver in ("cfr+", "pcfr+"):
        from maxent_onpolicy.games.solvers.regret import RegretMatchingPlus

        return RegretMatchingPlus(game, predictive=options.solver == "pcfr+")
    if options.solver == "mmd":
        from maxent_onpolicy.games.solvers.mmd import MMD

        return MMD(game, tau, eta)
    from maxent_onpolicy.games.solvers.omwu import OMWU

    return OMWU(game, tau, eta, options.solver, acceleration=options.acceleration)  # type: ignore[arg-type]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{name} must be a number or one of its words, got {text!r}; see solve --help") from None


def _show(console: Console, solver: "Solver", options: SolveOptions) -> None:
    """Print what was found."""
    last = solver.history[-1]
    iterates = ("average",) if options.solver in ("cfr+", "pcfr+") else ("midpoint", "average")
    console.print(Text(f"{type(solver).__name__} on {solver.game!r}", style="bold"), soft_wrap=True)
    console.print(Text(f"{solver.iterations:,} iterations, {solver.seconds:.3g} s of CPU, tau {last.tau:.3g}"))
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for iterate in iterates:
        table.add_column("last" if iterate == "midpoint" else iterate, justify="right")
    found = [solver.evaluate(iterate) for iterate in iterates]  # type: ignore[arg-type]
    for name in ("qre_gap", "nash_conv", "exploitability", "value", "q_residual"):
        numbers = [getattr(evaluation, name) for evaluation in found]
        if numbers[0] is not None:
            cells = ["" if number is None else _text(number, name == "value") for number in numbers]
            table.add_row(Text(name.replace("_", " ")), *map(Text, cells))
    console.print(table)
    _show_policy(console, solver.policy(iterates[0]), options.show_policy)  # type: ignore[arg-type]


def _text(number: Any, is_value: bool) -> str:
    array = np.asarray(number)
    if array.ndim:
        return f"{array.min():.4g} to {array.max():.4g}"
    return f"{float(array):.6f}" if is_value else f"{float(array):.3g}"


def _show_policy(console: Console, policies: Any, everything: bool) -> None:
    """Print both players' strategies, the first rows only unless everything is wanted."""
    rows: list[tuple[str, str, np.ndarray]] = []
    for player, policy in enumerate(policies):
        if isinstance(policy, dict):
            rows += [(str(player), " ".join(state.split()), chosen) for state, chosen in policy.items()]
        else:
            array = np.asarray(policy)
            flat = array.reshape(-1, array.shape[-1])
            names = [""] if array.ndim == 1 else map(str, np.ndindex(array.shape[:-1]))
            rows += [(str(player), name.strip("(),"), chosen) for name, chosen in zip(names, flat, strict=True)]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("player")
    table.add_column("state", overflow="ellipsis", no_wrap=True, max_width=40)
    table.add_column("probabilities of its actions")
    shown = rows if everything else rows[:_ROWS]
    for player_name, state, chosen in shown:
        table.add_row(*map(Text, (player_name, state, " ".join(f"{value:.4f}" for value in chosen))))
    console.print(table)
    if len(shown) < len(rows):
        console.print(Text(f"and {len(rows) - len(shown):,} more; --show-policy prints all"))
