"""OMWU against what is proved and known: the rate, the bounds, and published equilibria."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from maxent_onpolicy.games.generators import (
    biased_rock_paper_scissors,
    matching_pennies,
    perturbed_rock_paper_scissors,
    random_markov_game,
    random_matrix_game,
)
from maxent_onpolicy.games.linear_program import solve_matrix, solve_sequence_form
from maxent_onpolicy.games.matrix import MatrixGame
from maxent_onpolicy.games.solvers.omwu import OMWU
from maxent_onpolicy.games.solvers.temperature import Annealing


def divergence(goal, now):
    return sum(torch.xlogy(own, own / other).sum(-1) for own, other in zip(goal, now, strict=True))


@pytest.mark.parametrize("variant", ["omwu", "extragradient"])
@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_the_divergence_from_the_qre_falls_at_the_proved_rate(variant, tau):
    """Theorem 1: KL_t ≤ (1 − ητ)^t·KL_0 of the regular iterate, here in 60 games, up to the QRE's own rounding."""
    game = random_matrix_game(5, 4, batch=60, seed=7)
    goal = OMWU(game, tau).learn(30_000, tol=1e-15, check_every=1000).policy()
    assert float(game.evaluate(goal, tau).qre_gap.max()) < 1e-13
    solver = OMWU(game, tau, "theory", variant)
    start, keep = divergence(goal, game.uniform()), 1 - solver.eta * tau
    for _ in range(40):
        solver.learn(5)
        assert (divergence(goal, solver.policy("last")) <= keep**solver.iterations * start + 1e-12).all()


def test_the_proved_step_size():
    game, tau = MatrixGame([[3.0, 0.0], [1.0, 2.0]]), 0.5
    # Less 3/2 everywhere, which moves no strategy, payoffs are within 3/2: 1/(2·0.5 + 2·1.5) and 1/(4·1.5).
    assert float(OMWU(game, tau, "theory").eta) == pytest.approx(min(1 / 4, 1 / 6))
    assert float(OMWU(game, 10.0, "theory").eta) == pytest.approx(1 / 23)
    markov = random_markov_game(4, (2, 2), gamma=0.5)
    assert OMWU(markov, tau, "theory").eta == pytest.approx(0.5**3 / (32_000 * 4))
    assert OMWU(random_markov_game(4, (2, 2), horizon=5), tau, "theory").eta == pytest.approx(1 / 40)


def test_the_automatic_step_without_optimism_is_the_best_one_near_the_equilibrium():
    """It is ``τ/(τ² + L²)`` with the spectral norm ``L`` of ``J·A·J'`` in the metric of the derivatives ``J``."""
    tau, game = 0.1, random_matrix_game(5, 4, batch=20)
    solver = OMWU(game, tau, variant="mwu").learn(3_000, tol=1e-10)
    norm = (game.payoff.amax((1, 2)) - game.payoff.amin((1, 2))).numpy() / 2
    assert (solver.eta.numpy() >= (1 - 1e-12) * tau / (tau**2 + norm**2)).all()
    for payoff, first, second, eta in zip(game.payoff, *solver.policy("average"), solver.eta, strict=True):
        roots = [np.linalg.svd(np.diag(p) - np.outer(p, p)) for p in (first.numpy(), second.numpy())]
        left, right = (u * np.sqrt(s) for u, s, _ in roots)
        length = np.linalg.norm(left.T @ payoff.numpy() @ right, 2)
        assert float(eta) == pytest.approx(tau / (tau**2 + length**2), rel=0.05)


@pytest.mark.parametrize(("tau", "most"), [(0.1, 600), (0.5, 30)])
def test_the_automatic_step_without_optimism_is_faster_than_the_proved_one(tau, most):
    """In the median of twenty games; the proved step takes 1,100 and 60 iterations."""
    games = [random_matrix_game(5, 5, seed=seed) for seed in range(20)]
    solvers = [OMWU(game, tau, variant="mwu").learn(2_000, tol=1e-10, check_every=10) for game in games]
    assert all(solver.history[-1].qre_gap <= 1e-10 for solver in solvers)
    assert np.median([solver.iterations for solver in solvers]) < most


def test_the_automatic_step_without_optimism_never_falls_below_the_proved_one():
    """At this temperature updates of the automatic one go round sharp strategies at first, and back off."""
    game, tau = random_matrix_game(3, 3, seed=9), 0.02
    solver = OMWU(game, tau, variant="mwu").learn(40_000, tol=1e-10)
    assert solver.history[-1].qre_gap <= 1e-10
    proved = float(OMWU(game, tau, "theory", "mwu").eta)
    assert min(record.eta for record in solver.history) >= proved
    assert any(after.qre_gap > 1.5 * before.qre_gap for before, after in pairwise(solver.history))


def test_a_larger_step_size_gives_a_warning_that_names_the_bound(kuhn, recwarn):
    game = MatrixGame([[3.0, 0.0], [1.0, 2.0]])
    OMWU(game, 0.5, 0.16)
    OMWU(kuhn, 0.5, 100.0)  # nothing is proved there
    assert not recwarn
    with pytest.warns(UserWarning, match=r"eta=0.17 is above 0.167, .* \(Cen, Wei, Chi, arXiv:2105.15186, Theorem 1\)"):
        OMWU(game, 0.5, 0.17)
    with pytest.warns(UserWarning, match="arXiv:2210.01050"):
        OMWU(random_markov_game(2, (2, 2)), 0.5, 0.1)


@pytest.mark.parametrize("variant", ["omwu", "extragradient"])
def test_known_quantal_response_equilibria(variant):
    expected = [0.44361589, 0.41248764, 0.14389647]
    for strategy in OMWU(perturbed_rock_paper_scissors(), 0.1, variant=variant).learn(5000, tol=1e-15).policy():
        assert strategy.tolist() == pytest.approx(expected, abs=5e-9)
    for strategy in OMWU(matching_pennies(), 0.1, variant=variant).learn(10).policy():
        assert strategy.tolist() == pytest.approx([0.5, 0.5])


def test_a_qre_is_a_fixed_point_of_logistic_choice():
    game = random_matrix_game(4, 6, seed=2)
    first, second = OMWU(game, 0.2).learn(20_000, tol=1e-15).policy()
    torch.testing.assert_close(first, torch.softmax(game.payoff @ second / 0.2, 0), rtol=0, atol=1e-7)
    torch.testing.assert_close(second, torch.softmax(-game.payoff.T @ first / 0.2, 0), rtol=0, atol=1e-7)


def test_annealing_goes_on_to_a_nash_equilibrium():
    game = biased_rock_paper_scissors()
    solver = OMWU(game, "anneal").learn(100_000, tol=1e-7, check_every=200)
    for strategy in solver.policy():
        assert strategy.tolist() == pytest.approx([1 / 16, 10 / 16, 5 / 16], abs=1e-5)
    game = random_matrix_game(5, 5, seed=4)
    solver = OMWU(game, Annealing(0.5, 0.5)).learn(100_000, tol=1e-6, check_every=200)
    assert solver.evaluate().value == pytest.approx(solve_matrix(game).value, abs=1e-6)


@pytest.mark.parametrize(("name", "exploitability"), [("kuhn", 4.62e-2), ("leduc", 1.63)])
def test_known_exploitability_of_the_qre_in_sequence_form(name, exploitability, request):
    """At τ = 0.05 with unit weights; OpenSpiel's magnetic mirror descent ends there too."""
    solver = OMWU(request.getfixturevalue(name), 0.05).learn(20_000, tol=1e-9)
    found = solver.evaluate()
    assert found.qre_gap <= 1e-9
    assert found.exploitability == pytest.approx(exploitability, rel=5e-3)


def test_the_nash_gap_of_a_qre_is_at_most_its_entropy():
    for tau in (0.5, 0.05):
        found = OMWU(random_matrix_game(6, 3, batch=30, seed=5), tau).learn(20_000, tol=1e-10).evaluate()
        assert (found.nash_conv <= found.qre_gap + tau * (np.log(6) + np.log(3))).all()


def test_annealing_in_sequence_form_reaches_the_value_of_the_linear_program(kuhn):
    solver = OMWU(kuhn, "anneal").learn(20_000, tol=1e-8)
    assert solver.history[-1].exploitability <= 1e-8
    assert solver.evaluate().value == pytest.approx(solve_sequence_form(kuhn).value, abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": -0.1}, r"`tau` must be in \[0, inf\), got -0.1"),
        ({"tau": "cold"}, "'anneal', an Annealing or a schedule; got 'cold'"),
        ({"eta": 0.0}, r"`eta` must be in \(0, inf\), got 0.0"),
        ({"eta": "fast"}, "`eta` must be one of 'auto', 'theory'; got 'fast'"),
        ({"variant": "ogda"}, "`variant` must be one of 'omwu', 'extragradient', 'mwu'; got 'ogda'"),
        ({"dtype": "float16"}, "`dtype` must be one of 'float32', 'float64'; got 'float16'"),
        ({"acceleration": "anderson"}, "`acceleration` must be one of None, 'newton'; got 'anderson'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        OMWU(matching_pennies(), **({"tau": 0.1} | arguments))


def test_what_does_not_fit_a_kind_of_game_is_refused(kuhn):
    with pytest.raises(ValueError, match="no step size is proved for games in sequence form"):
        OMWU(kuhn, 0.1, "theory")
    with pytest.raises(ValueError, match="float64 on the CPU, got dtype='float32'"):
        OMWU(kuhn, 0.1, dtype="float32")
    with pytest.raises(ValueError, match="compile=True is for matrix games"):
        OMWU(kuhn, 0.1, compile=True)
    with pytest.raises(TypeError, match="must be a MatrixGame, MarkovGame or SequenceFormGame, got list"):
        OMWU([[0.0]], 0.1)
    with pytest.raises(ValueError, match="`total_iterations` must be"):
        OMWU(kuhn, 0.1).learn(0)
