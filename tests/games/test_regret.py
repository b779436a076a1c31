"""RM⁺, CFR⁺ and their predictive versions: against OpenSpiel's CFR⁺, formulas written out, and known rates."""

import numpy as np
import pytest
import torch

from maxent_onpolicy.games.generators import perturbed_rock_paper_scissors, random_markov_game, random_matrix_game
from maxent_onpolicy.games.matrix import MatrixGame
from maxent_onpolicy.games.sequence_form import InformationState, SequenceFormGame
from maxent_onpolicy.games.solvers.regret import RegretMatchingPlus


@pytest.mark.parametrize(("name", "iterations"), [("kuhn", 30), ("leduc", 2)])
def test_policies_are_those_of_openspiels_cfr_plus(name, iterations, request):
    """Both update in turns and weight iteration k, the uniform one being the first, with k and no delay."""
    pyspiel = pytest.importorskip("pyspiel")
    from open_spiel.python.algorithms.cfr import CFRPlusSolver

    game = request.getfixturevalue(name)
    solver = RegretMatchingPlus(game).learn(iterations)
    reference = CFRPlusSolver(pyspiel.load_game(game.name))
    for _ in range(iterations):
        reference.evaluate_and_update_policy()
    for iterate, policy in (("average", reference.average_policy()), ("last", reference.current_policy())):
        for table in solver.policy(iterate):
            for label, found in table.items():
                expected = np.array(policy.policy_for_key(label))
                legal = policy.legal_actions_mask[policy.state_lookup[label]]
                np.testing.assert_allclose(found, expected[legal == 1], rtol=0, atol=1e-9)


def written_out(payoff, iterations, predictive):
    """Return the averages of RM⁺ or PRM⁺ as Farina, Kroer, Sandholm (2021) write them, with updates in turns."""
    size = payoff.shape
    play, sums, total = [np.full(n, 1 / n) for n in size], [np.zeros(n) for n in size], [np.zeros(n) for n in size]
    for iteration in range(1, iterations + 1):
        for player, gain in enumerate((payoff, -payoff.T)):
            mine, earned = play[player], gain @ play[1 - player]
            total[player] += mine * iteration ** (2 if predictive else 1)
            sums[player] = np.maximum(sums[player] + earned - mine @ earned, 0)
            target = np.maximum(sums[player] + predictive * (earned - mine @ earned), 0)
            play[player] = target / target.sum() if target.sum() > 0 else np.full(size[player], 1 / size[player])
    return [weights / weights.sum() for weights in total]


def one_shot(payoff):
    """Return a matrix game in sequence form."""
    states = [[InformationState("choice", tuple(range(n)), 0)] for n in payoff.shape]
    entries = np.stack(np.indices(payoff.shape), -1).reshape(-1, 2) + 1
    return SequenceFormGame((states[0], states[1]), entries, payoff.reshape(-1))


@pytest.mark.parametrize("predictive", [False, True])
def test_strategies_are_those_of_the_formula_in_both_kinds_of_games(predictive):
    game = random_matrix_game(4, 3, batch=3, seed=1)
    found = RegretMatchingPlus(game, predictive).learn(60).policy()
    for index, payoff in enumerate(game.payoff.numpy()):
        expected = written_out(payoff, 60, predictive)
        tables = RegretMatchingPlus(one_shot(payoff), predictive).learn(60).policy()
        for player in range(2):
            np.testing.assert_allclose(found[player][index], expected[player], atol=1e-11)
            np.testing.assert_allclose(tables[player]["choice"], expected[player], atol=1e-11)


@pytest.mark.parametrize(
    ("predictive", "name", "iterations", "most"),
    [
        (False, "kuhn", 1000, 2e-4),
        (True, "kuhn", 1000, 1e-7),
        (False, "leduc", 1000, 1e-3),
        (True, "leduc", 5000, 2e-4),
    ],
)
def test_averages_come_close_to_equilibria(predictive, name, iterations, most, request):
    solver = RegretMatchingPlus(request.getfixturevalue(name), predictive).learn(iterations, check_every=iterations)
    assert solver.evaluate().exploitability == solver.history[-1].exploitability < most


def test_learning_stops_at_the_tolerance():
    solver = RegretMatchingPlus(perturbed_rock_paper_scissors(), predictive=True).learn(5000, tol=1e-5, check_every=10)
    assert solver.evaluate().exploitability <= 1e-5
    assert solver.iterations == solver.history[-1].iterations < 1000


@pytest.mark.parametrize("game", [perturbed_rock_paper_scissors(), "kuhn"], ids=["matrix", "kuhn"])
def test_interrupted_and_saved_learning_goes_on_as_if_nothing_had_happened(game, tmp_path, request):
    game = request.getfixturevalue(game) if isinstance(game, str) else game
    straight = RegretMatchingPlus(game, predictive=True).learn(60)
    first = RegretMatchingPlus(game, predictive=True).learn(25)
    again = RegretMatchingPlus.load(first.save(tmp_path / "solver"), game)
    assert again.history == first.history
    again.learn(35)
    assert again.iterations == straight.iterations == 60
    assert again.evaluate() == straight.evaluate()
    assert again.evaluate("last") == straight.evaluate("last")


def test_before_learning_play_is_uniform(kuhn):
    solver = RegretMatchingPlus(kuhn)
    assert solver.evaluate() == kuhn.evaluate(kuhn.uniform())
    assert RegretMatchingPlus(MatrixGame(np.eye(2))).policy()[0].tolist() == [0.5, 0.5]


def test_predictions_follow_the_average():
    game = MatrixGame([[0.0, 1.0], [0.0, 1.0], [5.0, 6.0]])
    solver = RegretMatchingPlus(game, seed=0).learn(200)
    assert solver.predict(player=0) == (2, None)
    first, second = solver.policy("last")
    assert torch.equal(first, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    assert second.tolist() == [1.0, 0.0]


def test_what_it_cannot_do_is_refused(kuhn):
    with pytest.raises(TypeError, match="MatrixGame or SequenceFormGame, got MarkovGame"):
        RegretMatchingPlus(random_markov_game(2, (2, 2)))
    with pytest.raises(ValueError, match="`iterate` must be one of 'midpoint', 'last', 'average'; got 'mean'"):
        RegretMatchingPlus(kuhn).policy("mean")
