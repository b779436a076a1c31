"""Games without their symmetries: the same iterates and measures as the whole game's."""

import numpy as np
import pytest
from game_helpers import random_behaviours, random_game

from maxent_onpolicy.games.reduction import Reduction
from maxent_onpolicy.games.sequence_form import InformationState, SequenceFormGame
from maxent_onpolicy.games.solvers.omwu import OMWU
from maxent_onpolicy.games.solvers.regret import RegretMatchingPlus


def unreduced(game):
    """Return the game as one that is its own reduction."""
    whole = SequenceFormGame(game.states, game.entries, game.values, game.name)
    kinds = tuple(np.arange(tree.n_sequences) for tree in whole.trees)
    vars(whole)["reduced"] = Reduction(whole, kinds)
    return whole


@pytest.fixture(scope="module")
def coin():
    """Return a game in which chance shows player 0 a coin that decides nothing, before both choose."""
    first = [InformationState(side, ("a", "b"), 0) for side in ("heads", "tails")]
    second = [InformationState("choice", ("a", "b"), 0)]
    entries = np.array([[1 + 2 * side + a, 1 + b] for side in range(2) for a in range(2) for b in range(2)])
    return SequenceFormGame((first, second), entries, 0.5 * np.array([3.0, 0.0, 1.0, 2.0] * 2))


def same(found, expected, tolerance):
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for label in mine:
            np.testing.assert_allclose(mine[label], theirs[label], rtol=0, atol=tolerance)


def test_what_the_coin_shows_is_left_out(coin):
    small = coin.reduced.game
    assert [tree.n_states for tree in small.trees] == [1, 1]
    assert small.trees[0].copies.tolist() == [2.0]
    assert small.trees[0].size.tolist() == [1.0, 2.0, 2.0]
    assert coin.reduced.kinds[0].tolist() == [0, 1, 2, 1, 2]
    behaviours = (np.array([1.0, 0.25, 0.75]), np.array([1.0, 0.5, 0.5]))
    # As the matrix game [[3, 0], [1, 2]] by hand: 0.25·(1.5) + 0.75·(1.5).
    assert small.value(behaviours) == pytest.approx(1.5)
    assert coin.value(coin.reduced.lift(behaviours)) == pytest.approx(1.5)


def test_the_suits_of_leduc_are_left_out(leduc):
    assert [tree.n_states for tree in leduc.reduced.game.trees] == [144, 144]
    assert [tree.n_sequences for tree in leduc.reduced.game.trees] == [337, 337]


def test_alike_sequences_are_alike_in_the_whole_game(leduc):
    """Lifted from any behaviour of the small game, gradients of the whole one are those of the small one."""
    small, kinds = leduc.reduced.game, leduc.reduced.kinds
    behaviours = random_behaviours(small, 0)
    lifted = leduc.reduced.lift(behaviours)
    for player in range(2):
        np.testing.assert_allclose(
            leduc.gradients(lifted)[player], small.gradients(behaviours)[player][kinds[player]], atol=1e-14
        )
        np.testing.assert_allclose(
            leduc.reach(lifted[player], player), small.reach(behaviours[player], player)[kinds[player]]
        )


@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_measures_are_those_of_the_whole_game(leduc, coin, tau):
    for game in (leduc, coin):
        behaviours = random_behaviours(game.reduced.game, 1)
        small = game.reduced.game.evaluate(behaviours, tau)
        whole = game.evaluate(game.reduced.lift(behaviours), tau)
        assert small[:4] == pytest.approx(whole[:4], rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("variant", ["omwu", "extragradient", "mwu"])
def test_iterates_of_omwu_are_those_of_the_whole_game(leduc, variant):
    small, whole = (OMWU(game, 0.1, 0.5, variant).learn(40, check_every=20) for game in (leduc, unreduced(leduc)))
    for iterate in ("midpoint", "last", "average"):
        same(small.policy(iterate), whole.policy(iterate), 1e-12)
    assert small.evaluate()[:4] == pytest.approx(whole.evaluate()[:4], rel=1e-10)


@pytest.mark.parametrize("predictive", [False, True])
def test_iterates_of_cfr_are_those_of_the_whole_game(leduc, predictive):
    small, whole = (RegretMatchingPlus(game, predictive).learn(20) for game in (leduc, unreduced(leduc)))
    for iterate in ("last", "average"):
        same(small.policy(iterate), whole.policy(iterate), 1e-9)


def test_games_without_symmetries_stay_as_they_are(kuhn):
    for game in (kuhn, *[random_game(seed) for seed in range(5)]):
        assert game.reduced.game is game
        for kinds, tree in zip(game.reduced.kinds, game.trees, strict=True):
            assert kinds.tolist() == list(range(tree.n_sequences))


def test_payoffs_may_be_of_any_size(coin):
    for scale in (1e-15, 1e12):
        game = SequenceFormGame(coin.states, coin.entries, coin.values * scale)
        assert [tree.n_states for tree in game.reduced.game.trees] == [1, 1]
        other = coin.values.copy()
        other[0] += 1.0
        assert [
            tree.n_states for tree in SequenceFormGame(coin.states, coin.entries, other * scale).reduced.game.trees
        ] == [2, 1]
