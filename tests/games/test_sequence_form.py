"""Games in sequence form: kernels against sums over all plans, OpenSpiel's games and measures, and what is refused."""

from itertools import chain, product

import numpy as np
import pytest
from game_helpers import random_behaviours, random_game

from maxent_onpolicy.games import treeplex
from maxent_onpolicy.games.openspiel import tabular_policy
from maxent_onpolicy.games.sequence_form import InformationState, SequenceFormGame
from maxent_onpolicy.games.solvers.omwu import OMWU

TAU = 0.2


def all_plans(tree, sequence=0):
    """Return the sequences of every pure plan below a sequence, each with this one."""
    below = []
    for state in np.flatnonzero(tree.parent == sequence):
        own = range(tree.first[state], tree.first[state] + tree.actions[state])
        below.append([plan for action in own for plan in all_plans(tree, action)])
    return [[sequence, *chain(*parts)] for parts in product(*below)]


def plans_matrix(tree):
    """Return ``[plans, sequences]`` of zeros and ones."""
    plans = all_plans(tree)
    matrix = np.zeros((len(plans), tree.n_sequences))
    for row, plan in zip(matrix, plans, strict=True):
        row[plan] = 1.0
    return matrix


def respond(tree, dual):
    behaviour, reach = np.empty_like(dual), np.empty_like(dual)
    value = treeplex.respond(tree, dual, behaviour, reach, np.empty_like(dual))
    return value, behaviour, reach


@pytest.fixture(scope="module", params=["kuhn", "random"])
def tree(request):
    game = request.getfixturevalue("kuhn") if request.param == "kuhn" else random_game(3)
    return game.trees[1]


@pytest.fixture
def dual(tree):
    return np.random.default_rng(0).normal(size=tree.n_sequences)


def test_the_response_is_the_softmax_over_all_plans(tree, dual):
    plans = plans_matrix(tree)
    scores = plans @ dual
    value, behaviour, reach = respond(tree, dual)
    assert value == pytest.approx(np.logaddexp.reduce(scores), rel=1e-14)
    weights = np.exp(scores - value)
    np.testing.assert_allclose(reach, weights @ plans, rtol=1e-12)
    entropy = -np.sum(weights * np.log(weights))
    assert treeplex.entropy(tree, behaviour, reach) == pytest.approx(entropy)
    assert value == pytest.approx(dual @ reach + entropy)


def test_no_other_behaviour_is_better_than_the_response(tree, dual):
    value = respond(tree, dual)[0]
    for seed in range(20):
        other = respond(tree, dual + np.random.default_rng(seed).normal(size=len(dual)) * 0.3)
        assert dual @ other[2] + treeplex.entropy(tree, other[1], other[2]) < value


def test_the_best_response_is_the_best_plan(tree, dual):
    plans = plans_matrix(tree)
    behaviour, reach = np.empty_like(dual), np.empty_like(dual)
    earned = treeplex.best_response(tree, dual, behaviour, np.empty_like(dual))
    assert earned == pytest.approx((plans @ dual).max())
    treeplex.fill_reach(tree, behaviour, reach)
    assert reach.tolist() in plans.tolist()
    assert dual @ reach == pytest.approx(earned)


def test_recentred_logits_are_those_of_the_behaviour(tree, dual):
    _, behaviour, reach = respond(tree, dual)
    treeplex.recentre(tree, dual)
    np.testing.assert_allclose(dual, np.log(behaviour), atol=1e-14)
    np.testing.assert_allclose(respond(tree, dual)[2], reach, rtol=1e-13)


def test_the_divergence_is_that_of_the_plans(tree, dual):
    other = np.random.default_rng(1).normal(size=len(dual))
    plans = plans_matrix(tree)
    (value, behaviour, reach), (other_value, other_behaviour, _) = respond(tree, dual), respond(tree, other)
    weights = np.exp(plans @ dual - value)
    expected = np.sum(weights * (plans @ dual - value - (plans @ other - other_value)))
    assert treeplex.divergence(tree, behaviour, reach, np.log(other_behaviour)) == pytest.approx(expected)


def test_the_derivative_is_that_of_finite_differences(tree, dual):
    direction = np.random.default_rng(2).normal(size=len(dual))
    _, behaviour, reach = respond(tree, dual)
    found = np.empty_like(dual)
    treeplex.respond_derivative(tree, behaviour, reach, direction.copy(), found)
    ahead, back = (respond(tree, dual + step * direction)[2] for step in (1e-6, -1e-6))
    np.testing.assert_allclose(found, (ahead - back) / 2e-6, atol=1e-9)
    every, matrix = np.eye(len(dual)), np.empty((len(dual), len(dual)))
    treeplex.respond_derivative(tree, behaviour, reach, every, matrix)
    np.testing.assert_allclose(matrix @ direction, found, atol=1e-13)


def test_behaviours_come_back_from_plans_of_any_scale(tree, dual):
    _, behaviour, reach = respond(tree, dual)
    found = np.empty_like(dual)
    treeplex.fill_behaviour(tree, 7.0 * reach, found)
    np.testing.assert_allclose(found, behaviour, rtol=1e-13)
    treeplex.fill_behaviour(tree, np.zeros_like(dual), found)
    np.testing.assert_allclose(found[1:], np.repeat(1.0 / tree.actions, tree.actions))


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_those_of_the_normal_form(seed):
    game = random_game(seed)
    behaviours = random_behaviours(game, seed)
    matrix = np.zeros([tree.n_sequences for tree in game.trees])
    np.add.at(matrix, tuple(game.entries.T), game.values)
    plans = [plans_matrix(each) for each in game.trees]
    first, second = (game.reach(behaviour, player) for player, behaviour in enumerate(behaviours))
    scores = [plans[0] @ matrix @ second, -plans[1] @ matrix.T @ first]
    found = game.evaluate(behaviours, TAU)
    assert found.value == pytest.approx(first @ matrix @ second)
    assert found.nash_conv == pytest.approx(scores[0].max() + scores[1].max())
    soft = sum(TAU * np.logaddexp.reduce(score / TAU) for score in scores)
    entropy = sum(
        treeplex.entropy(each, *pair) for each, *pair in zip(game.trees, behaviours, (first, second), strict=True)
    )
    assert found.qre_gap == pytest.approx(soft - TAU * entropy)
    assert game.evaluate(behaviours, 0.0).qre_gap == pytest.approx(found.nash_conv)


def test_kuhn_poker_has_its_known_equilibrium(kuhn):
    bluff = 0.2  # any up to 1/3 (Kuhn 1950): with the jack; with the king three times as often
    first = {"0": [1 - bluff, bluff], "1": [1, 0], "2": [1 - 3 * bluff, 3 * bluff]}
    first |= {"0pb": [1, 0], "1pb": [2 / 3 - bluff, 1 / 3 + bluff], "2pb": [0, 1]}
    second = {"0p": [2 / 3, 1 / 3], "1p": [1, 0], "2p": [0, 1], "0b": [1, 0], "1b": [2 / 3, 1 / 3], "2b": [0, 1]}
    found = kuhn.evaluate(kuhn.behaviours((first, second)))
    assert found.value == pytest.approx(-1 / 18, abs=1e-15)
    assert found.exploitability == pytest.approx(0.0, abs=1e-15)


def test_known_measures_of_uniform_play(kuhn, leduc):
    assert kuhn.evaluate(kuhn.uniform()).exploitability == pytest.approx(0.45833333, abs=1e-8)
    assert leduc.evaluate(leduc.uniform()).exploitability == pytest.approx(2.37361111, abs=1e-8)


@pytest.mark.parametrize("name", ["kuhn", "leduc"])
@pytest.mark.parametrize("kind", ["random", "solved"])
def test_exploitability_is_openspiels(name, kind, request):
    pyspiel = pytest.importorskip("pyspiel")
    game = request.getfixturevalue(name)
    tables = game.table(random_behaviours(game, 1))
    if kind == "solved":
        tables = OMWU(game, "anneal").learn(300).policy()
    exported = tabular_policy(game.name, tables)
    expected = pyspiel.exploitability(pyspiel.load_game(game.name), exported.to_dict())
    assert game.evaluate(game.behaviours(tables)).exploitability == pytest.approx(expected, abs=1e-12)


def test_simultaneous_moves_are_not_seen():
    pytest.importorskip("pyspiel")
    game = SequenceFormGame.from_openspiel("matrix_brps")
    found = game.evaluate(game.uniform())
    assert (found.value, found.nash_conv) == pytest.approx((0.0, 50 / 3))


def test_tables_and_behaviours_are_each_others_inverse(leduc):
    behaviours = random_behaviours(leduc, 4)
    for mine, theirs in zip(leduc.behaviours(leduc.table(behaviours)), behaviours, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    label = leduc.states[0][0].label
    partial = leduc.behaviours(({label: [0.25, 0.75]}, {}))
    assert leduc.table(partial)[0].pop(label).tolist() == [0.25, 0.75]
    np.testing.assert_array_equal(partial[1], leduc.uniform()[1])


def test_payoffs_at_the_same_place_add_up():
    states = [InformationState("choice", ("a", "b"), 0)]
    game = SequenceFormGame(
        (states, states), np.array([[1, 1], [1, 1], [2, 2], [2, 2]]), np.array([1.0, 2.0, 5.0, -5.0])
    )
    assert game.entries.tolist() == [[1, 1]]
    assert game.values.tolist() == [3.0]


ONE = [InformationState("choice", ("a", "b"), 0)]


@pytest.mark.parametrize(
    ("states", "entries", "values", "message"),
    [
        (ONE, [[1, 1]], [np.nan], "payoffs must be finite, got nan"),
        (ONE, [[1, 3]], [1.0], "player 1 has sequences 0 to 2, got 3"),
        (ONE, [[-1, 1]], [1.0], "player 0 has sequences 0 to 2, got -1"),
        (ONE, [[1, 1]], [1.0, 2.0], r"got shapes \(1, 2\) and \(2,\)"),
        (ONE, [1, 1], [1.0, 2.0], r"got shapes \(2,\) and \(2,\)"),
        (ONE * 2, [[1, 1]], [1.0], "player 0 has two information states with the label 'choice'"),
        ([InformationState("choice", (), 0)], [[0, 0]], [1.0], "player 0 has an information state without actions"),
        ([InformationState("choice", ("a",), 1)], [[0, 0]], [1.0], "player 0: the sequence that leads to"),
        ([InformationState("choice", ("a",), -1)], [[0, 0]], [1.0], "player 0: the sequence that leads to"),
    ],
)
def test_what_is_no_game_is_refused(states, entries, values, message):
    with pytest.raises(ValueError, match=message):
        SequenceFormGame((states, ONE), np.array(entries), np.array(values))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("khun_poker", r"no game 'khun_poker' \(did you mean 'kuhn_poker'\?\)"),
        ("kuhn_poker(players=3)", "has 3 players; it must have two"),
        ("kuhn_poker(cards=3)", "cannot load 'kuhn_poker.*Unknown parameter"),
        ("matrix_pd", "not zero-sum"),
        ("liars_dice_ir(numdice=1,dice_sides=3)", "has no perfect recall: player 1 gets to"),
        ("backgammon", "does not name its information states"),
    ],
)
def test_other_games_of_openspiel_are_refused(name, message):
    pytest.importorskip("pyspiel")
    with pytest.raises(ValueError, match=message):
        SequenceFormGame.from_openspiel(name)


def test_bad_questions_are_refused(kuhn):
    with pytest.raises(ValueError, match="`tau` must be in"):
        kuhn.evaluate(kuhn.uniform(), tau=-1.0)
    with pytest.raises(ValueError, match="player 1 of kuhn_poker has 13 sequences, got a behaviour of 12"):
        kuhn.evaluate((np.ones(13), np.ones(12)))
    for wrong in ([0.5, 0.6], [1.5, -0.5], [1.0]):
        with pytest.raises(ValueError, match="'0' needs 2 probabilities that sum to one"):
            kuhn.behaviours(({"0": wrong}, {}))
    with pytest.raises(ValueError, match=r"player 0 has no information state '0bp' \(did you mean '0pb'\?\)"):
        kuhn.choices(kuhn.table(kuhn.uniform())[0], 0, "0bp")
