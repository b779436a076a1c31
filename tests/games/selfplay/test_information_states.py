"""Exploitability of networks: against OpenSpiel's own measure, known values, and the callback that logs it."""

import numpy as np
import pyspiel
import pytest
import torch
from open_spiel.python import policy as openspiel_policy
from open_spiel.python.algorithms import exploitability as openspiel
from stable_baselines3.common.logger import configure

from maxent_onpolicy import PPO, MaxEntPPO
from maxent_onpolicy.games.openspiel import tabular_policy
from maxent_onpolicy.games.selfplay import ExploitabilityCallback, InformationStates, SelfPlayVecEnv, exploitability
from maxent_onpolicy.games.sequence_form import SequenceFormGame

SMALL = {"n_steps": 32, "batch_size": 64, "n_epochs": 2, "gamma": 1.0, "seed": 0, "device": "cpu", "compile": False}


def make(game, scale=0.0, algorithm=PPO, policy="MaskedMlpPolicy"):
    """A model whose policy is uniform (``scale`` 0) or random."""
    model = algorithm(policy, SelfPlayVecEnv(game, 2, seed=0), **SMALL)
    with torch.no_grad():
        torch.manual_seed(3)
        model.policy.action_net.weight.normal_(0, scale)
        model.policy.action_net.bias.normal_(0, scale)
    return model


@pytest.mark.parametrize(("game", "expected"), [("kuhn_poker", 0.45833), ("leduc_poker", 2.37361)])
def test_the_uniform_policy(game, expected):
    found = exploitability(make(game), game)
    assert found.exploitability == pytest.approx(expected, abs=1e-5)
    assert found.nash_conv == pytest.approx(2 * found.exploitability)


@pytest.mark.parametrize("game", ["kuhn_poker", "leduc_poker"])
def test_it_is_openspiels_exploitability_of_the_same_network(game):
    model = make(game, 2.0, MaxEntPPO)
    states = InformationStates(game)
    found = states.evaluate(model.policy)
    # An independent table: the network asked state by state, by OpenSpiel's own names.
    table = tabular_policy(game, ({}, {}))
    for state in table.states:
        player = state.current_player()
        seen = np.array([*state.information_state_tensor(player), player == 0, player == 1], np.float32)
        mask = np.array(state.legal_actions_mask(player), np.int8)
        batch = {"observation": torch.as_tensor(seen)[None], "action_mask": torch.as_tensor(mask)[None]}
        with torch.no_grad():
            probabilities = model.policy.get_distribution(batch).distribution.probs[0]
        table.action_probability_array[table.state_index(state)] = probabilities.numpy()
    loaded = pyspiel.load_game(game)
    assert found.exploitability == pytest.approx(openspiel.exploitability(loaded, table), abs=1e-5)
    assert found.exploitability > 0.3
    ours = tabular_policy(game, states.game.table(states.behaviours(model)))
    np.testing.assert_allclose(ours.action_probability_array, table.action_probability_array, atol=1e-5)


@pytest.mark.parametrize("game", ["matrix_brps", "nim(pile_sizes=1;2)"])
def test_other_kinds_of_games_can_be_measured(game):
    # Moves at the same time; no secrets, and so observations in the place of information states.
    found = exploitability(make(game), game)
    loaded = pyspiel.load_game(game)
    if loaded.get_type().dynamics == pyspiel.GameType.Dynamics.SIMULTANEOUS:
        loaded = pyspiel.convert_to_turn_based(loaded)
    uniform = openspiel_policy.UniformRandomPolicy(loaded)
    assert found.exploitability == pytest.approx(openspiel.exploitability(loaded, uniform), abs=1e-5)


def test_behaviours_are_probabilities_in_the_order_of_the_sequences():
    states = InformationStates("leduc_poker")
    behaviours = states.behaviours(make("leduc_poker", 1.0))
    for tree, behaviour in zip(states.game.trees, behaviours, strict=True):
        assert len(behaviour) == tree.n_sequences
        assert behaviour[0] == 1.0
        np.testing.assert_allclose(np.add.reduceat(behaviour[1:], tree.first - 1), 1.0, rtol=1e-12)
    assert states.mask.sum() == sum(tree.n_sequences - 1 for tree in states.game.trees)


def test_the_value_of_the_game_is_that_of_its_strategies():
    states = InformationStates("kuhn_poker")
    assert states.evaluate(make("kuhn_poker")).value == pytest.approx(0.125)
    assert states.evaluate(make("kuhn_poker"), tau=0.3).qre_gap < states.evaluate(make("kuhn_poker")).qre_gap


def test_measuring_changes_no_model():
    model = make("kuhn_poker", 1.0)
    model.policy.set_training_mode(True)
    random = torch.get_rng_state()
    exploitability(model, "kuhn_poker")
    assert model.policy.training
    assert torch.equal(torch.get_rng_state(), random)


def test_another_games_policy_is_refused():
    with pytest.raises(ValueError, match="the policy was not made for leduc_poker"):
        exploitability(make("kuhn_poker"), "leduc_poker")


def test_a_policy_that_breaks_the_rules_is_refused():
    with pytest.raises(
        ValueError, match=r"gives illegal actions of information state '.*' the probability 0\.\d+; use"
    ):
        exploitability(make("leduc_poker", policy="MultiInputPolicy"), "leduc_poker")


def test_one_can_measure_what_everything_is_legal_for():
    game = "kuhn_poker"
    found = exploitability(make(game, policy="MultiInputPolicy"), game)
    assert found.exploitability == pytest.approx(0.45833, abs=1e-5)


def test_the_callback_logs_what_it_measures(tmp_path):
    model = make("kuhn_poker", algorithm=MaxEntPPO)
    callback = ExploitabilityCallback("kuhn_poker", every_steps=100)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(4 * 64, callback=callback)
    steps = [timesteps for timesteps, _ in callback.history]
    assert steps == [0, 128, 256]
    assert callback.history[0][1].exploitability == pytest.approx(0.45833, abs=1e-5)
    assert callback.history[-1][1] == exploitability(model, "kuhn_poker")
    rows = [line.split(",") for line in (tmp_path / "progress.csv").read_text().splitlines()]
    column = rows[0].index("eval/exploitability")
    logged = [float(row[column]) for row in rows[1:] if row[column]]
    np.testing.assert_allclose(logged, [found.exploitability for _, found in callback.history], rtol=1e-5)


def test_the_callback_measures_the_end_once():
    callback = ExploitabilityCallback(InformationStates("kuhn_poker"), every_steps=1)
    model = make("kuhn_poker").learn(64, callback=callback)
    assert [timesteps for timesteps, _ in callback.history] == [0, 64]
    model.learn(64, callback=callback, reset_num_timesteps=False)
    assert [timesteps for timesteps, _ in callback.history] == [0, 64, 128]
    with pytest.raises(ValueError, match=r"`every_steps` must be in \[1, inf\), got 0"):
        ExploitabilityCallback("kuhn_poker", every_steps=0)


def test_information_states_know_a_way_to_them():
    game = SequenceFormGame.from_openspiel("kuhn_poker")
    state = pyspiel.load_game("kuhn_poker").new_initial_state()
    for action in game.states[1][3].history:
        state.apply_action(action)
    assert state.information_state_string() == game.states[1][3].label
    assert state.current_player() == 1
