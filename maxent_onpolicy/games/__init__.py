"""Two-player zero-sum games: matrix, Markov and sequence form, and their solvers.

Names are imported on first use: games in sequence form need numba, from the extra ``games``, the others do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maxent_onpolicy.games.evaluation import Evaluation
    from maxent_onpolicy.games.generators import (
        biased_rock_paper_scissors,
        matching_pennies,
        perturbed_rock_paper_scissors,
        random_markov_game,
        random_matrix_game,
        rock_paper_scissors,
    )
    from maxent_onpolicy.games.markov import MarkovGame
    from maxent_onpolicy.games.matrix import MatrixGame
    from maxent_onpolicy.games.registry import list_games, make_game
    from maxent_onpolicy.games.sequence_form import SequenceFormGame
    from maxent_onpolicy.games.solvers.mmd import MMD
    from maxent_onpolicy.games.solvers.omwu import OMWU
    from maxent_onpolicy.games.solvers.regret import RegretMatchingPlus
    from maxent_onpolicy.games.solvers.temperature import Annealing

__all__ = [
    "MMD",
    "OMWU",
    "Annealing",
    "Evaluation",
    "MarkovGame",
    "MatrixGame",
    "RegretMatchingPlus",
    "SequenceFormGame",
    "biased_rock_paper_scissors",
    "list_games",
    "make_game",
    "matching_pennies",
    "perturbed_rock_paper_scissors",
    "random_markov_game",
    "random_matrix_game",
    "rock_paper_scissors",
]

_HOME = {
    "Annealing": "solvers.temperature",
    "Evaluation": "evaluation",
    "MMD": "solvers.mmd",
    "MarkovGame": "markov",
    "MatrixGame": "matrix",
    "OMWU": "solvers.omwu",
    "RegretMatchingPlus": "solvers.regret",
    "SequenceFormGame": "sequence_form",
    "list_games": "registry",
    "make_game": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'generators')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
