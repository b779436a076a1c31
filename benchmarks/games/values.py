"""Solve games by OMWU and by linear programming, and put both beside what is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rows import read_rows, write_rows


class Value(NamedTuple):
    """What a game is worth to the first player.

    Attributes:
        game: name.
        known: published or exact; NaN if neither.
        programme: by the linear programme (HiGHS).
        ours: by OMWU with a falling temperature.
        exploitability: of OMWU's strategies.
        iterations: that OMWU did.
    """

    game: str
    known: float
    programme: float
    ours: float
    exploitability: float
    iterations: int


KNOWN = {
    "matching_pennies": 0.0,
    "biased_rock_paper_scissors": 0.0,
    "perturbed_rock_paper_scissors": 0.0,
    "random_matrix": float("nan"),
    "kuhn_poker": -1 / 18,
    "leduc_poker": -0.085606424,
    "goofspiel(num_cards=4,imp_info=true,points_order=descending)": 0.0,
}
_ITERATIONS = 20_000


def measure(path: Path) -> None:
    """Solve every game and write a CSV file."""
    found = [_solve(name) for name in KNOWN]
    write_rows(path, Value._fields, found)


def _solve(name: str) -> Value:
    from maxent_onpolicy.games import OMWU, MatrixGame, make_game
    from maxent_onpolicy.games.linear_program import solve_matrix, solve_sequence_form

    game = make_game(name, m=10, n=10) if name == "random_matrix" else make_game(name)
    is_matrix = isinstance(game, MatrixGame)
    programme: Callable[[Any], Any] = solve_matrix if is_matrix else solve_sequence_form
    solver = OMWU(game, "anneal", acceleration=None if is_matrix else "newton")
    solver.learn(_ITERATIONS, tol=1e-13, check_every=50)
    evaluation = solver.evaluate()
    exact = programme(game).value
    print(f"{name}: {float(evaluation.value):.10f}, by linear programming {exact:.10f}", flush=True)
    return Value(name, KNOWN[name], exact, float(evaluation.value), float(evaluation.exploitability), solver.iterations)


def read(path: Path) -> list[Value]:
    """Return the values of a CSV file."""
    rows = read_rows(path)
    return [Value(row[0], *map(float, row[1:5]), int(row[5])) for row in rows]
