"""Record how last and average iterates approach an equilibrium, at a fixed and at a falling temperature.

No time is measured, so the same numbers come out on every machine but for rounding.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rows import read_rows, write_rows

TAU = 0.1
ITERATIONS = 10_000
_PER_DECADE = 8


class Point(NamedTuple):
    """Strategies after so many iterations.

    Attributes:
        game: a key of :data:`GAMES`.
        solver: a key of :data:`SOLVERS`.
        iterate: ``"last"`` or ``"average"``.
        iteration: how many were done.
        qre_gap: to the equilibrium at the solver's temperature.
        nash_conv: the sum of what both players could gain.
        tau: the temperature.
    """

    game: str
    solver: str
    iterate: str
    iteration: int
    qre_gap: float
    nash_conv: float
    tau: float


def _games() -> dict[str, Callable[[], Any]]:
    from maxent_onpolicy.games import SequenceFormGame, random_markov_game, random_matrix_game

    return {
        "Matrix game, 10 × 10": lambda: random_matrix_game(10, 10, seed=0),
        "Markov game, 20 states": lambda: random_markov_game(20, (5, 5), gamma=0.9, seed=0),
        "Kuhn poker": lambda: SequenceFormGame.from_openspiel("kuhn_poker"),
        "Leduc poker": lambda: SequenceFormGame.from_openspiel("leduc_poker"),
    }


def _solvers() -> dict[str, Callable[[Any], Any]]:
    from maxent_onpolicy.games import OMWU, Annealing

    return {
        "OMWU": lambda game: OMWU(game, TAU),
        "MWU": lambda game: OMWU(game, TAU, variant="mwu"),
        "OMWU, falling tau": lambda game: OMWU(game, Annealing(1.0)),
    }


def measure(path: Path, iterations: int = ITERATIONS) -> None:
    """Run every solver on every game and write the points to a CSV file."""
    points: list[Point] = []
    for game, make_game in _games().items():
        for name, make_solver in _solvers().items():
            points += _follow(game, name, make_solver(make_game()), iterations)
            last = next(point for point in reversed(points) if point.iterate == "last")
            print(f"{game}, {name}: QRE gap {last.qre_gap:.1e}, NashConv {last.nash_conv:.1e}", flush=True)
    rounded = [(*point[:4], f"{point.qre_gap:.6g}", f"{point.nash_conv:.6g}", f"{point.tau:.6g}") for point in points]
    write_rows(path, Point._fields, rounded)


def _follow(game: str, name: str, solver: Any, iterations: int) -> Iterator[Point]:
    for target in marks(iterations):
        solver.learn(target - solver.iterations, check_every=min(50, target - solver.iterations))
        for iterate in ("last", "average"):
            found = solver.evaluate(iterate)
            yield Point(game, name, iterate, target, float(found.qre_gap), float(found.nash_conv), float(solver.tau))


def marks(iterations: int) -> list[int]:
    """Return iterations at equal distances on a logarithmic axis, from 1 to the last."""
    exponents = range(10 * _PER_DECADE)
    found = {round(10 ** (exponent / _PER_DECADE)) for exponent in exponents}
    return sorted(mark for mark in found | {iterations} if mark <= iterations)


def read(path: Path) -> list[Point]:
    """Return the points of a CSV file."""
    rows = read_rows(path)
    return [Point(row[0], row[1], row[2], int(row[3]), *map(float, row[4:])) for row in rows]
