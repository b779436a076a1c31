"""The solvers that take part, each as two functions: go on for some iterations, and say how exploitable it is."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

_CHECK_EVERY = 50


class Contender(NamedTuple):
    """A solver of one game.

    Attributes:
        advance: do so many more iterations.
        exploitability: of the strategies that the solver recommends; its time does not count.
        block: the least number of iterations to ask for: those between two checks of its own.
    """

    advance: Callable[[int], object]
    exploitability: Callable[[], float]
    block: int = 1


def make_omwu(game: str, **options: Any) -> Contender:
    """Ours; the last iterate."""
    from maxent_onpolicy.games import OMWU, Annealing, SequenceFormGame

    factor = options.pop("factor", 0.5)
    solver = OMWU(SequenceFormGame.from_openspiel(game), options.pop("tau", Annealing(1.0, factor)), **options)
    return Contender(
        lambda count: solver.learn(count, check_every=_CHECK_EVERY),
        lambda: float(solver.evaluate().exploitability),  # type: ignore[arg-type]
        _CHECK_EVERY,
    )


def make_regret(game: str, predictive: bool) -> Contender:
    """Our references; the average iterate."""
    from maxent_onpolicy.games import SequenceFormGame
    from maxent_onpolicy.games.solvers.regret import RegretMatchingPlus

    solver = RegretMatchingPlus(SequenceFormGame.from_openspiel(game), predictive=predictive)
    return Contender(
        lambda count: solver.learn(count, check_every=count),
        lambda: float(solver.evaluate("average").exploitability),  # type: ignore[arg-type]
    )


def make_openspiel_cfr(game: str, solver: str) -> Contender:
    """OpenSpiel's C++; the average iterate."""
    import pyspiel

    loaded = pyspiel.load_game(game)
    found = getattr(pyspiel, solver)(loaded)

    def advance(count: int) -> None:
        for _ in range(count):
            found.evaluate_and_update_policy()

    return Contender(advance, lambda: pyspiel.nash_conv(loaded, found.tabular_average_policy()) / 2)


def make_openspiel_mmd(game: str, alpha: float) -> Contender:
    """OpenSpiel's magnetic mirror descent, in Python; the last iterate."""
    import pyspiel
    from open_spiel.python.algorithms import exploitability, mmd_dilated

    loaded = pyspiel.load_game(game)
    found = mmd_dilated.MMDDilatedEnt(loaded, alpha)

    def advance(count: int) -> None:
        for _ in range(count):
            found.update_sequences()

    return Contender(advance, lambda: float(exploitability.exploitability(loaded, found.get_policies())))


def make_liteefg(game: str, algorithm: str) -> Contender:
    """LiteEFG's C++; the linear average of its iterates, as its own scripts measure."""
    import contextlib
    import importlib

    import LiteEFG
    import pyspiel

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        graph = importlib.import_module(f"LiteEFG.baselines.{algorithm}").graph()
        environment = LiteEFG.OpenSpielEnv(pyspiel.load_game(game), traverse_type="Enumerate", regenerate=False)
    environment.set_graph(graph)

    def advance(count: int) -> None:
        for _ in range(count):
            graph.update_graph(environment)
            environment.update_strategy(graph.current_strategy())

    def exploitability() -> float:
        return sum(environment.exploitability(graph.current_strategy(), "linear-avg-iterate")) / 2

    return Contender(advance, exploitability)


CONTENDERS: dict[str, Callable[[str], Contender]] = {
    "OMWU": partial(make_omwu, factor=0.8),
    "OMWU, Newton steps": partial(make_omwu, acceleration="newton"),
    "OMWU, tau 0.05": partial(make_omwu, tau=0.05),
    "our CFR+": partial(make_regret, predictive=False),
    "our PCFR+": partial(make_regret, predictive=True),
    "OpenSpiel CFR": partial(make_openspiel_cfr, solver="CFRSolver"),
    "OpenSpiel CFR+": partial(make_openspiel_cfr, solver="CFRPlusSolver"),
    "OpenSpiel MMD, alpha 0.05": partial(make_openspiel_mmd, alpha=0.05),
    "LiteEFG CFR+": partial(make_liteefg, algorithm="CFRplus"),
    "LiteEFG PCFR+": partial(make_liteefg, algorithm="PCFR"),
}
