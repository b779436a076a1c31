"""Markov games: exact responses, learned values, and what is refused."""

import numpy as np
import pytest
import torch
from scipy import sparse

from maxent_onpolicy.games.generators import random_markov_game, random_matrix_game
from maxent_onpolicy.games.markov import MarkovGame
from maxent_onpolicy.games.soccer import soccer
from maxent_onpolicy.games.solvers.omwu import OMWU

TAU = 0.1


@pytest.fixture(scope="module")
def game():
    return random_markov_game()  # 20 states, 5 × 5 actions, γ = 0.9


@pytest.fixture(scope="module")
def solved(game):
    return OMWU(game, TAU).learn(3000, tol=1e-12, check_every=250)


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def soft_values(q, tau, logits):
    """Return each state's value at its QRE, by Newton steps on both players' logits, which are changed in place."""
    states, m, n = q.shape
    for _ in range(50):
        first, second = softmax(logits[:, :m]), softmax(logits[:, m:])
        wanted = np.concatenate([np.einsum("sab,sb->sa", q, second), -np.einsum("sab,sa->sb", q, first)], 1) / tau
        residual = wanted - logits
        spread = [
            np.einsum("sa,ab->sab", own, np.eye(own.shape[1])) - own[:, :, None] * own[:, None]
            for own in (first, second)
        ]
        jacobian = np.zeros((states, m + n, m + n))
        jacobian[:, :m, m:] = -q @ spread[1] / tau
        jacobian[:, m:, :m] = q.swapaxes(1, 2) @ spread[0] / tau
        logits += np.linalg.solve(np.eye(m + n) + jacobian, residual[..., None])[..., 0]
        if np.abs(residual).max() < 1e-11:
            break
    first, second = softmax(logits[:, :m]), softmax(logits[:, m:])
    entropy = -(first * np.log(first)).sum(1) + (second * np.log(second)).sum(1)
    return np.einsum("sab,sa,sb->s", q, first, second) + tau * entropy


def shapley(game, tau):
    """Return the QRE's action values by value iteration over exact solutions of every state (Shapley 1953)."""
    reward, transition = game.reward.numpy(), game.transition.numpy()
    values = np.zeros(game.states)
    logits = np.zeros((game.states, sum(game.actions)))
    for tau_now in (1.0, 0.3, *[tau] * 400):  # a start from where Newton's method converges
        q = reward + game.gamma * (transition @ values).reshape(reward.shape)
        new = soft_values(q, tau_now, logits)
        if np.abs(new - values).max() < 1e-13:
            break
        values = new
    return q


def test_it_converges_to_the_qre(solved):
    assert solved.evaluate().qre_gap <= 1e-12


def test_it_converges_to_the_qre_with_a_horizon():
    solver = OMWU(random_markov_game(horizon=10), TAU).learn(3000, tol=1e-12, check_every=250)
    assert solver.evaluate().qre_gap <= 1e-12


def test_the_residual_bounds_the_distance_to_the_values_of_the_qre(game):
    exact = shapley(game, TAU)
    solver = OMWU(game, TAU)
    for iterations in (20, 200, 2000, 3000):
        solver.learn(iterations, check_every=iterations)
        distance = np.abs(solver.q_values - exact).max()
        assert distance <= solver.evaluate().q_residual + 1e-10
    assert distance < 1e-3
    first, second = soft_policies = solver.policy()
    assert game.evaluate(soft_policies, TAU, torch.from_numpy(exact)).q_residual < 1e-9
    expected = softmax(np.einsum("sab,sb->sa", exact, second.numpy()) / TAU)
    np.testing.assert_allclose(first.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("end", [{"gamma": 0.8}, {"horizon": 4}])
def test_learned_action_values_are_those_of_the_equilibrium(end, tmp_path):
    """They solve ``Q = r + γ·P·V`` with the values ``V`` that the strategies have at the equilibrium."""
    game = random_markov_game(6, (2, 3), **end)
    assert (OMWU(game, 0.5).q_values == 0.0).all()
    solver = OMWU(game, 0.5).learn(2_500)  # values settle long after strategies, whose gap is rounding by then
    assert solver.q_values.shape == (*game.layout, 2, 3)
    high, low = game.best_response_values(*solver.policy(), 0.5)
    for values in (high, low):
        np.testing.assert_allclose(solver.q_values, game.action_values(values), rtol=0, atol=1e-9)
    loaded = OMWU.load(solver.save(tmp_path / "markov"), game)
    np.testing.assert_array_equal(loaded.q_values, solver.q_values)
    solver.q_values[:] = 0.0  # a copy
    np.testing.assert_array_equal(loaded.q_values, solver.q_values)
    with pytest.raises(AttributeError, match="only in Markov games action values are learned, not in MatrixGame"):
        OMWU(random_matrix_game(2, 2), TAU).q_values  # noqa: B018


@pytest.mark.parametrize("end", [{"gamma": 0.8}, {"horizon": 4}])
def test_dense_and_sparse_transitions_are_the_same(end):
    dense = random_markov_game(6, (2, 3), **end)
    rows = dense.transition.numpy()
    expected = OMWU(dense, TAU).learn(100)
    for transition in (sparse.csr_array(rows), sparse.coo_array(rows), torch.from_numpy(rows).to_sparse_coo()):
        found = OMWU(MarkovGame(transition, dense.reward, **end), TAU).learn(100)
        for mine, theirs in zip(found.policy(), expected.policy(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
        assert found.evaluate().qre_gap == pytest.approx(expected.evaluate().qre_gap, rel=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 0.7, 0.99])
@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_best_responses_are_the_fixed_points_of_value_iteration(tau, gamma):
    game = random_markov_game(4, (2, 3), gamma=gamma, seed=1)
    random = np.random.default_rng(0)
    first, second = (random.dirichlet(np.ones(count), 4) for count in game.actions)
    reward, transition = game.reward.numpy(), game.transition.numpy()
    entropy = [-(own * np.log(own)).sum(1) for own in (first, second)]

    def best(earned, sign):
        return sign * tau * np.logaddexp.reduce(sign * earned / tau, 1) if tau else sign * (sign * earned).max(1)

    top, bottom, value = np.zeros(4), np.zeros(4), np.zeros(4)
    for _ in range(3500):
        q_top, q_bottom, q = (reward + gamma * (transition @ v).reshape(reward.shape) for v in (top, bottom, value))
        top = best(np.einsum("sab,sb->sa", q_top, second), 1.0) - tau * entropy[1]
        bottom = best(np.einsum("sab,sa->sb", q_bottom, first), -1.0) + tau * entropy[0]
        value = np.einsum("sab,sa,sb->s", q, first, second)
    for own in (game, MarkovGame(sparse.csr_array(transition), game.reward, gamma=gamma)):
        high, low = own.best_response_values(torch.from_numpy(first), torch.from_numpy(second), tau)
        np.testing.assert_allclose(high, top, rtol=0, atol=1e-11)
        np.testing.assert_allclose(low, bottom, rtol=0, atol=1e-11)
        np.testing.assert_allclose(own.evaluate((first, second), tau).value, value, rtol=0, atol=1e-11)


def test_best_responses_of_sparse_games_take_few_products_with_all_transitions(monkeypatch):
    """Value iteration would take some 350 of them for each of the four."""
    game = soccer()
    seen = []
    whole = MarkovGame.action_values
    monkeypatch.setattr(MarkovGame, "action_values", lambda *given: seen.append(1) or whole(*given))
    game.evaluate(game.uniform(), TAU)
    assert len(seen) < 100


def test_one_state_that_never_changes_has_the_strategies_of_its_matrix():
    matrix = random_matrix_game(3, 4, seed=5)
    markov = MarkovGame(np.ones((1, 3, 4, 1)), matrix.payoff[None], gamma=0.5)
    found = OMWU(markov, TAU).learn(4000, tol=1e-13)
    expected = OMWU(matrix, TAU).learn(4000, tol=1e-13)
    for mine, theirs in zip(found.policy(), expected.policy(), strict=True):
        torch.testing.assert_close(mine[0], theirs, rtol=0, atol=1e-6)
    assert float(found.evaluate().value[0]) == pytest.approx(expected.evaluate().value / (1 - 0.5), abs=1e-6)


def test_a_horizon_of_one_is_a_batch_of_matrices():
    matrices = random_matrix_game(3, 3, batch=4, seed=6)
    markov = MarkovGame(np.full((4, 3, 3, 4), 0.25), matrices.payoff, horizon=1)
    strategies = OMWU(matrices, TAU).learn(500).policy()
    alone = matrices.evaluate(strategies, TAU)
    found = markov.evaluate([strategy[None] for strategy in strategies], TAU)
    assert found.qre_gap == pytest.approx(float(alone.qre_gap.max()), abs=1e-12)
    torch.testing.assert_close(found.value, alone.value)


def test_transitions_and_rewards_of_each_step_may_be_given():
    game = random_markov_game(3, (2, 2), horizon=3, seed=2)
    transition = game.transition.reshape(3, 2, 2, 3).expand(3, 3, 2, 2, 3)
    spelled = MarkovGame(transition, game.reward.expand(3, 3, 2, 2), horizon=3)
    expected, found = OMWU(game, TAU).learn(50), OMWU(spelled, TAU).learn(50)
    for mine, theirs in zip(found.policy(), expected.policy(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-13)
    assert found.evaluate().qre_gap == pytest.approx(expected.evaluate().qre_gap)


def test_a_distribution_of_the_first_state_weights_what_is_measured():
    game = random_markov_game(3, (2, 2), gamma=0.5)
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    weighted = MarkovGame(game.transition, game.reward, gamma=0.5, start=weights)
    high, low = game.best_response_values(*game.uniform(), 0.0)
    found = weighted.evaluate(game.uniform())
    assert found.value == pytest.approx(float(weights @ game.evaluate(game.uniform()).value))
    assert found.nash_conv == pytest.approx(float(weights @ (high - low)))


def broken_row():
    transition = np.full((2, 2, 2, 2), 0.5)
    transition[1, 0, 1] = [0.5, 0.4]
    return transition


GOOD = {"transition": np.full((2, 2, 2, 2), 0.5), "reward": np.zeros((2, 2, 2)), "gamma": 0.9}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transition": broken_row()}, r"sum to one, but row \(1, 0, 1\) sums to 0.9"),
        ({"transition": np.stack([GOOD["transition"], broken_row()]), "gamma": None, "horizon": 2}, r"\(1, 1, 0, 1\)"),
        ({"transition": sparse.csr_array(broken_row().reshape(8, 2))}, r"row \(1, 0, 1\) sums to 0.9"),
        ({"transition": np.full((2, 2, 2, 2), np.nan)}, "must hold probabilities"),
        ({"transition": np.tile([1.5, -0.5], (2, 2, 2, 1))}, "must hold probabilities, got a negative"),
        ({"transition": np.full((2, 2, 2, 3), 1 / 3)}, r"`transition` must have a shape of \(2, 2, 2, 2\)"),
        ({"reward": np.full((2, 2, 2), np.inf)}, "`reward` must be finite"),
        ({"reward": np.zeros((2, 2))}, r"`reward` must be \[S, A, B\]"),
        ({"reward": np.zeros((3, 2, 2, 2)), "gamma": None, "horizon": 2}, r"got \(3, 2, 2, 2\) with horizon=2"),
        ({"gamma": 1.0}, r"`gamma` must be in \[0, 1\), got 1.0"),
        ({"gamma": None}, "one of `gamma` and `horizon`"),
        ({"horizon": 3}, "one of `gamma` and `horizon`, got gamma=0.9 and horizon=3"),
        ({"gamma": None, "horizon": 0}, "`horizon` must be"),
        ({"start": [0.5, 0.6]}, "`start` must be a distribution over 2 states, got a sum of 1.1"),
    ],
)
def test_what_is_no_game_is_refused(changes, message):
    MarkovGame(**GOOD)
    with pytest.raises(ValueError, match=message):
        MarkovGame(**(GOOD | changes))


def test_bad_questions_are_refused(game, solved):
    with pytest.raises(ValueError, match="`tau` must be in"):
        game.evaluate(game.uniform(), tau=-1.0)
    with pytest.raises(ValueError, match=r"player 0 must be \(20, 5\), got \(20, 4\)"):
        game.evaluate((torch.ones(20, 4), torch.ones(20, 5)))
    with pytest.raises(ValueError, match=r"index below \(20,\), got 20"):
        solved.predict(20)
    with pytest.raises(ValueError, match="Markov games need tau > 0"):
        OMWU(game, 0.0).learn(1)
