"""Magnetic mirror descent: against OpenSpiel's, its formula written out, and its proved step size."""

import numpy as np
import pytest
import torch

from maxent_onpolicy.games.generators import random_markov_game, random_matrix_game
from maxent_onpolicy.games.openspiel import tabular_policy
from maxent_onpolicy.games.solvers.mmd import MMD
from maxent_onpolicy.games.solvers.omwu import OMWU


def test_iterates_and_gaps_are_those_of_openspiels_mmd(kuhn):
    """OpenSpiel's starts from uniform actions, ours from the plan of most entropy; here it starts from ours."""
    pyspiel = pytest.importorskip("pyspiel")
    from open_spiel.python.algorithms import mmd_dilated, sequence_form_utils

    game, tau, eta = pyspiel.load_game("kuhn_poker"), 0.05, 0.1
    solver, reference = MMD(kuhn, tau, eta), mmd_dilated.MMDDilatedEnt(game, tau, eta)
    start = tabular_policy("kuhn_poker", solver.policy())
    reference.sequences = sequence_form_utils.policy_to_sequence(game, start, reference.infoset_actions_to_seq)
    for _ in range(5):
        solver.learn(10)
        for _ in range(10):
            reference.update_sequences()
        expected = reference.get_policies().to_dict()
        for table in solver.policy():
            for label, found in table.items():
                np.testing.assert_allclose(found, [chance for _, chance in expected[label]], rtol=0, atol=1e-12)
        assert solver.evaluate().qre_gap == pytest.approx(reference.get_gap(), abs=1e-12)


def test_updates_are_those_of_the_formula():
    game, tau, eta = random_matrix_game(3, 4, seed=2), 0.2, 0.3
    payoff = game.payoff.numpy()
    play = [np.full(3, 1 / 3), np.full(4, 1 / 4)]
    for _ in range(20):
        earned = (payoff @ play[1], -payoff.T @ play[0])
        play = [(own * np.exp(eta * gain)) ** (1 / (1 + eta * tau)) for own, gain in zip(play, earned, strict=True)]
        play = [own / own.sum() for own in play]
    for found, expected in zip(MMD(game, tau, eta).learn(20).policy(), play, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-14)


def test_it_is_omwu_without_optimism_and_with_another_step(kuhn):
    for game in (random_matrix_game(3, 3), random_markov_game(3, (2, 2)), kuhn):
        found, expected = MMD(game, 0.5, 0.2).learn(30), OMWU(game, 0.5, 0.2 / 1.1, variant="mwu").learn(30)
        assert found.eta == found.history[-1].eta == 0.2
        assert found.evaluate().qre_gap == pytest.approx(expected.evaluate().qre_gap, rel=1e-12)


@pytest.mark.parametrize("tau", [1.0, 0.2])
def test_it_converges_to_the_qre_with_the_proved_step_size(tau, kuhn):
    for game in (random_matrix_game(5, 5, batch=20), random_markov_game(5, (3, 3), gamma=0.5), kuhn):
        solver = MMD(game, tau).learn(20_000, tol=1e-10, check_every=500)
        assert solver.history[-1].qre_gap <= 1e-10


def test_the_proved_step_size_is_tau_over_the_square_of_the_payoffs():
    game, tau = random_matrix_game(4, 4), 0.3
    norm = float(game.payoff.max() - game.payoff.min()) / 2  # after a shift, which moves nothing
    step = tau / norm**2
    assert float(MMD(game, tau, "theory").eta) == pytest.approx(step)
    assert float(OMWU(game, tau, "theory", "mwu").eta) == pytest.approx(step / (1 + step * tau))
    with pytest.warns(
        UserWarning,
        match=rf"eta={1.01 * step:g} is above {step:.3g}, the largest .* convergence is proved \(Sokota",
    ):
        MMD(game, tau, 1.01 * step)
    MMD(game, tau, 0.99 * step)


def test_the_proved_rate_holds():
    """Theorem 3.4: the divergence from the QRE falls by ``1 + ητ`` a step."""
    game, tau = random_matrix_game(4, 4, batch=20, seed=3), 0.2
    goal = OMWU(game, tau).learn(20_000, tol=1e-15).policy()
    solver = MMD(game, tau, "theory")
    keep = 1 / (1 + solver.eta * tau)
    before = None
    for _ in range(200):
        found = sum(torch.xlogy(own, own / now).sum(-1) for own, now in zip(goal, solver.policy(), strict=True))
        if before is not None:
            assert (found <= keep * before + 1e-12).all()
        before = found
        solver.learn(1)


def test_the_automatic_step_is_the_one_of_omwu_without_optimism(kuhn):
    for game in (random_matrix_game(3, 3, batch=2), random_markov_game(3, (2, 2)), kuhn):
        found, expected = MMD(game, 0.5).learn(30, check_every=10), OMWU(game, 0.5, variant="mwu")
        expected.learn(30, check_every=10)
        np.testing.assert_allclose(found.eta, expected.eta / (1 - expected.eta * 0.5))
        assert [record.qre_gap for record in found.history] == [record.qre_gap for record in expected.history]


def test_it_goes_on_after_saving(tmp_path):
    game = random_matrix_game(3, 3)
    for eta in (0.1, "auto"):
        straight = MMD(game, 0.2, eta).learn(50, check_every=10)
        half = MMD(game, 0.2, eta).learn(20, check_every=10)
        again = MMD.load(half.save(tmp_path / "mmd"), game).learn(30, check_every=10)
        assert again.iterations == straight.iterations == 50
        assert again.eta == straight.eta
        assert again.evaluate() == straight.evaluate()


def test_step_sizes_that_would_not_move_or_are_not_proved_are_refused(kuhn):
    with pytest.raises(ValueError, match="with tau=0 only a number will do for `eta`, got 'auto'"):
        MMD(kuhn, 0.0)
    with pytest.raises(ValueError, match="no step size is proved for updates without optimism but in matrix games"):
        MMD(kuhn, 0.1, "theory")
    MMD(kuhn, 0.0, 0.1).learn(5)
