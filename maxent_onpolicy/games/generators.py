"""Small games with known solutions, and random ones."""

import numpy as np

from maxent_onpolicy.games.markov import MarkovGame
from maxent_onpolicy.games.matrix import MatrixGame
from maxent_onpolicy.validation import check_integer


def matching_pennies() -> MatrixGame:
    """Matching pennies: value 0, both actions alike."""
    return MatrixGame([[1.0, -1.0], [-1.0, 1.0]])


def rock_paper_scissors() -> MatrixGame:
    """Rock, paper, scissors: value 0, all actions alike."""
    return MatrixGame([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])


def biased_rock_paper_scissors() -> MatrixGame:
    """OpenSpiel's ``matrix_brps``: value 0, solved by (1/16, 10/16, 5/16)."""
    return MatrixGame([[0.0, -25.0, 50.0], [25.0, 0.0, -5.0], [-50.0, 5.0, 0.0]])


def perturbed_rock_paper_scissors() -> MatrixGame:
    """Rock, paper, scissors with one win worth three: value 0, solved by (3/7, 3/7, 1/7)."""
    return MatrixGame([[0.0, -1.0, 3.0], [1.0, 0.0, -3.0], [-3.0, 3.0, 0.0]])


def random_matrix_game(m: int = 10, n: int = 10, batch: int | None = None, seed: int = 0) -> MatrixGame:
    """Payoffs uniform in ``[-1, 1]``.

    Args:
        m: actions of the first player.
        n: actions of the second player.
        batch: how many games; ``None`` is one without a batch dimension.
        seed: of the payoffs.

    Raises:
        ValueError: if a size is less than 1.
    """
    shape: tuple[int, ...] = (check_integer("m", m, 1), check_integer("n", n, 1))
    if batch is not None:
        shape = (check_integer("batch", batch, 1), *shape)
    return MatrixGame(np.random.default_rng(seed).uniform(-1.0, 1.0, shape))


def random_markov_game(
    states: int = 20,
    actions: tuple[int, int] = (5, 5),
    gamma: float | None = None,
    horizon: int | None = None,
    seed: int = 0,
) -> MarkovGame:
    """Rewards uniform in ``[-1, 1]``, next states from a flat Dirichlet distribution.

    Args:
        states: how many.
        actions: of both players.
        gamma: discount; 0.9 if there is no horizon.
        horizon: number of moves.
        seed: of rewards and transitions.

    Raises:
        ValueError: if a size is less than 1, or both ``gamma`` and ``horizon`` are given.
    """
    check_integer("states", states, 1)
    for count in actions:
        check_integer("actions", count, 1)
    random = np.random.default_rng(seed)
    reward = random.uniform(-1.0, 1.0, (states, *actions))
    transition = random.dirichlet(np.ones(states), (states, *actions))
    if gamma is None and horizon is None:
        gamma = 0.9
    return MarkovGame(transition, reward, gamma=gamma, horizon=horizon)
