"""Matrix games: measures against their definitions, and what is refused."""

import numpy as np
import pytest
import torch

from maxent_onpolicy.games.generators import perturbed_rock_paper_scissors, random_matrix_game
from maxent_onpolicy.games.matrix import MatrixGame


def random_strategies(game, seed=0):
    random = np.random.default_rng(seed)
    return tuple(random.dirichlet(np.ones(count), size=game.batch_shape or None) for count in game.actions)


def test_measures_of_the_uniform_strategies_by_hand():
    game = perturbed_rock_paper_scissors()
    found = game.evaluate(game.uniform())
    # Against uniform play the actions earn (2/3, −2/3, 0), either player's.
    assert found.nash_conv == pytest.approx(4 / 3)
    assert found.exploitability == pytest.approx(2 / 3)
    assert found.value == pytest.approx(0.0, abs=1e-15)


def test_measures_are_zero_where_they_must_be():
    game = perturbed_rock_paper_scissors()
    solution = [3 / 7, 3 / 7, 1 / 7]
    assert game.evaluate((solution, solution)).nash_conv == pytest.approx(0.0, abs=1e-15)
    quantal = [0.44361589, 0.41248764, 0.14389647]  # at τ = 0.1, to eight digits
    assert game.evaluate((quantal, quantal), tau=0.1).qre_gap == pytest.approx(0.0, abs=1e-13)


@pytest.mark.parametrize("tau", [1.0, 0.1, 0.003])
def test_the_qre_gap_is_what_soft_best_responses_gain(tau):
    game = random_matrix_game(4, 6, batch=5, seed=1)
    first, second = random_strategies(game)
    first[0] = [0.0, 1.0, 0.0, 0.0]
    payoff = game.payoff.numpy()
    earned = np.einsum("gij,gj->gi", payoff, second) / tau
    paid = -np.einsum("gij,gi->gj", payoff, first) / tau
    best = tau * (np.logaddexp.reduce(earned, 1) + np.logaddexp.reduce(paid, 1))
    entropy = sum(-np.where(own > 0, own * np.log(np.where(own > 0, own, 1.0)), 0.0).sum(1) for own in (first, second))
    np.testing.assert_allclose(game.evaluate((first, second), tau).qre_gap, best - tau * entropy, rtol=1e-10)


@pytest.mark.parametrize("tau", [1.0, 0.1, 0.01])
def test_the_nash_gap_is_at_most_the_qre_gap_and_the_entropy(tau):
    game = random_matrix_game(3, 7, batch=100, seed=2)
    found = game.evaluate(random_strategies(game), tau)
    assert (found.nash_conv <= found.qre_gap + tau * (np.log(3) + np.log(7))).all()


def test_a_batch_is_its_games():
    game = random_matrix_game(3, 4, batch=6, seed=3)
    strategies = random_strategies(game)
    together = game.evaluate(strategies, 0.2)
    for index in range(6):
        alone = MatrixGame(game.payoff[index]).evaluate([strategy[index] for strategy in strategies], 0.2)
        for one, many in zip(alone[:4], together[:4], strict=True):
            assert one == pytest.approx(float(many[index]), rel=1e-12)


def test_numbers_of_python_are_not_rounded_to_float32():
    assert float(MatrixGame([[0.1, 0.2], [0.3, 0.4]]).payoff[0, 0]) == 0.1
    assert MatrixGame([[1, 2], [3, 4]]).payoff.dtype == torch.float64
    assert MatrixGame(torch.ones(2, 2, dtype=torch.float32)).payoff.dtype == torch.float32


@pytest.mark.parametrize(
    ("payoff", "message"),
    [
        ([1.0, 2.0], r"shape \[..., m, n\], got \(2,\)"),
        (np.zeros((2, 0)), r"got \(2, 0\)"),
        ([[1.0, float("nan")]], "`payoff` must be finite, got nan"),
        ([[1.0, -float("inf")]], "`payoff` must be finite, got -inf"),
    ],
)
def test_what_is_no_payoff_is_refused(payoff, message):
    with pytest.raises(ValueError, match=message):
        MatrixGame(payoff)


def test_a_game_that_is_not_zero_sum_is_refused():
    payoff = np.array([[1.0, 2.0], [3.0, 4.0]])
    MatrixGame(payoff, -payoff)
    with pytest.raises(ValueError, match=r"not zero-sum: payoffs at \(1, 0\) are 3 and 3"):
        MatrixGame(payoff, [[-1.0, -2.0], [3.0, -4.0]])
    with pytest.raises(ValueError, match=r"must have the shape \(2, 2\), got \(2, 1\)"):
        MatrixGame(payoff, [[1.0], [2.0]])


def test_bad_questions_are_refused():
    game = perturbed_rock_paper_scissors()
    with pytest.raises(ValueError, match="`tau` must be in"):
        game.evaluate(game.uniform(), tau=-0.1)
    with pytest.raises(ValueError, match="player 1 must have 3 entries"):
        game.evaluate(([1.0, 0.0, 0.0], [1.0, 0.0]))
    with pytest.raises(ValueError, match="no observation, got 3"):
        game.choices(game.uniform()[0], 0, 3)
