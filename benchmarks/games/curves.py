"""Measure how exploitable each solver's strategies are after so many seconds of CPU time.

Solvers take turns, round after round, each in a process of its own with one thread. What a solver does counts, from its
first iteration on: also its checks that adapt step sizes and temperatures, but not reading the game, not compiling, and
not measuring exploitability for this benchmark. Peers that are not installed are left out, and the table says so.
LiteEFG is no dependency of this package: ``pip install LiteEFG``.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.games.contenders import CONTENDERS
from benchmarks.rows import read_rows, write_rows

_FIRST = 0.01
_GROWTH = 10 ** (1 / 8)


class Point(NamedTuple):
    """A measurement of one process."""

    game: str
    solver: str
    round: int
    seconds: float
    iterations: int
    exploitability: float


def serve(game: str, solver: str, seconds: float) -> None:
    """Run one solver and print a line of JSON for each point: seconds, iterations, exploitability."""
    CONTENDERS[solver](game).advance(2)  # compiles
    contender = CONTENDERS[solver](game)
    spent, mark, iterations, block = 0.0, _FIRST, 0, contender.block
    while spent < seconds:
        began = time.process_time()
        contender.advance(block)
        spent += time.process_time() - began
        iterations += block
        block = max(contender.block, min(10 * block, int(0.2 * _FIRST * iterations / max(spent, 1e-6))))
        if spent >= mark:
            print(json.dumps([spent, iterations, contender.exploitability()]), flush=True)
            while mark <= spent:
                mark *= _GROWTH


def measure(games: list[str], solvers: list[str], rounds: int, seconds: float, path: Path) -> None:
    """Run every solver on every game in every round that is not in the file yet, and add it there.

    Args:
        games: names of OpenSpiel's.
        solvers: names of contenders.
        rounds: how many.
        seconds: CPU time for each.
        path: CSV file.
    """
    points = read(path) if path.exists() else []
    done = {(point.game, point.solver, point.round) for point in points}
    for number in range(rounds):
        for game in games:
            order = solvers if number % 2 == 0 else solvers[::-1]
            for solver in order:
                if (game, solver, number) in done:
                    continue
                found = list(_run(game, solver, number, seconds))
                last = f"{found[-1].exploitability:.2e} after {found[-1].seconds:.1f} s" if found else "left out"
                print(f"round {number + 1}, {game}, {solver}: {last}", flush=True)
                points += found
                write(path, points)


def _run(game: str, solver: str, number: int, seconds: float) -> Iterator[Point]:
    command = [sys.executable, "-m", "benchmarks.games", "serve", game, solver, str(seconds)]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if finished.returncode != 0:
        if "ModuleNotFoundError" in finished.stderr:
            return  # a peer that is not installed
        raise RuntimeError(f"{solver} on {game} failed:\n{finished.stderr}")
    for line in finished.stdout.splitlines():
        spent, iterations, exploitability = json.loads(line)
        yield Point(game, solver, number, spent, iterations, exploitability)


def read(path: Path) -> list[Point]:
    """Return the points of a CSV file."""
    rows = read_rows(path)
    return [Point(row[0], row[1], int(row[2]), float(row[3]), int(row[4]), float(row[5])) for row in rows]


def write(path: Path, points: list[Point]) -> None:
    """Replace a CSV file."""
    write_rows(path, Point._fields, (point._replace(seconds=round(point.seconds, 6)) for point in points))
