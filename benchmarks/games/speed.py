"""Measure how many updates a second the solvers do, on one thread."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maxent_onpolicy.evaluation.files import write_atomic

_TAU = 0.1
_GAMES = 4096
_ACTIONS = 10


def naive_loop(games: int = 16) -> tuple[Callable[[int], object], int]:
    """One game after another in numpy, as one would write it first; returns a function and what an iteration counts."""
    payoffs = np.random.default_rng(0).uniform(-1.0, 1.0, (games, _ACTIONS, _ACTIONS))
    eta = 0.25
    strategies = [np.full((2, _ACTIONS), 1.0 / _ACTIONS) for _ in range(games)]
    midpoints = [strategy.copy() for strategy in strategies]

    def advance(count: int) -> None:
        for game in range(games):
            for _ in range(count):
                mu, nu = strategies[game]
                mu_bar, nu_bar = midpoints[game]
                midpoints[game] = _stepped(mu, nu, mu_bar, nu_bar, payoffs[game], eta)
                strategies[game] = _stepped(mu, nu, *midpoints[game], payoffs[game], eta)

    return advance, games


def _stepped(
    mu: np.ndarray, nu: np.ndarray, mu_bar: np.ndarray, nu_bar: np.ndarray, payoff: np.ndarray, eta: float
) -> np.ndarray:
    first = mu ** (1 - eta * _TAU) * np.exp(eta * payoff @ nu_bar)
    second = nu ** (1 - eta * _TAU) * np.exp(-eta * payoff.T @ mu_bar)
    return np.array([first / first.sum(), second / second.sum()])


def batched(dtype: str, games: int = _GAMES, device: str = "cpu") -> tuple[Callable[[int], object], int]:
    """A batch of matrix games, compiled."""
    from maxent_onpolicy.games import OMWU, random_matrix_game

    solver = OMWU(random_matrix_game(_ACTIONS, _ACTIONS, games), _TAU, dtype=dtype, compile=True, device=device)
    return partial(_learn, solver), games


def markov(states: int, successors: int) -> tuple[Callable[[int], object], int]:
    """A Markov game in which each move leads to a few states; an iteration counts its states."""
    from scipy.sparse import csr_array

    from maxent_onpolicy.games import OMWU, MarkovGame

    random = np.random.default_rng(0)
    rows = states * 25
    column = random.integers(0, states, (rows, successors))
    value = random.dirichlet(np.ones(successors), rows)
    matrix = csr_array(
        (value.ravel(), column.ravel(), np.arange(0, rows * successors + 1, successors)), shape=(rows, states)
    )
    game = MarkovGame(matrix, random.uniform(-1.0, 1.0, (states, 5, 5)), gamma=0.9)
    return partial(_learn, OMWU(game, _TAU)), states


def sequence_form(game: str) -> tuple[Callable[[int], object], int]:
    """A game of OpenSpiel."""
    from maxent_onpolicy.games import OMWU, SequenceFormGame

    return partial(_learn, OMWU(SequenceFormGame.from_openspiel(game), 0.05)), 1


WORKLOADS: dict[str, Callable[[], tuple[Callable[[int], object], int]]] = {
    "naive numpy loop, 10 × 10": naive_loop,
    "4,096 games of 10 × 10, float32": partial(batched, "float32"),
    "4,096 games of 10 × 10, float64": partial(batched, "float64"),
    "Markov game, 2,000 states, 5 × 5, 3 successors": partial(markov, 2000, 3),
    "Kuhn poker": partial(sequence_form, "kuhn_poker"),
    "Leduc poker": partial(sequence_form, "leduc_poker"),
}


def serve(workload: str, seconds: float) -> None:
    """Run one workload and print the median of game-, state- or plain iterations a second of CPU time."""
    import torch

    torch.set_num_threads(1)
    advance, counts = WORKLOADS[workload]()
    advance(8)
    block, rates, spent = 8, [], 0.0
    while spent < seconds:
        began = time.process_time()
        advance(block)
        took = time.process_time() - began
        spent += took
        rates.append(block * counts / max(took, 1e-9))
        block = max(8, min(4 * block, int(block * seconds / 10 / max(took, 1e-6))))
    print(json.dumps(statistics.median(rates[len(rates) // 2 :])))


def measure(rounds: int, seconds: float, path: Path) -> None:
    """Run all workloads in turn, each in a process of its own, in every round that is not in the file yet.

    Raises:
        RuntimeError: if one fails.
    """
    found: dict[str, list[float]] = {name: [] for name in WORKLOADS}
    if path.exists():
        found |= json.loads(path.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(rounds):
        for name in list(WORKLOADS)[:: 1 if number % 2 == 0 else -1]:
            if len(found[name]) > number:
                continue
            command = [sys.executable, "-m", "benchmarks.games", "serve-speed", name, str(seconds)]
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
            if finished.returncode != 0:
                raise RuntimeError(f"{name} failed:\n{finished.stderr}")
            found[name].append(float(finished.stdout.splitlines()[-1]))
            print(f"round {number + 1}, {name}: {found[name][-1]:.3g} a second", flush=True)
            write_atomic(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _learn(solver: Any, count: int) -> None:
    solver._update(count)  # without checks, which come as often as the user asks for them
