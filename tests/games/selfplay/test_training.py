"""What the algorithms make of games: whose advantage is whose, which engine trains, resuming, learning."""

import logging

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from maxent_onpolicy import PPO, TRPO, MaxEntPPO, MaxEntTRPO, make_vec_env
from maxent_onpolicy.engine.compiled import fits, update
from maxent_onpolicy.engine.rollout import takes_turns
from maxent_onpolicy.games.selfplay import ExploitabilityCallback, InformationStates, SelfPlayVecEnv

SMALL = {"n_steps": 24, "batch_size": 48, "gamma": 1.0, "seed": 0, "device": "cpu", "compile": False}
FIRST_ORDER = {"n_epochs": 2}
ALGORITHMS = [(PPO, FIRST_ORDER), (MaxEntPPO, FIRST_ORDER), (TRPO, {}), (MaxEntTRPO, {})]


def make(algorithm=MaxEntPPO, game="leduc_poker", env=None, **kwargs):
    return algorithm("MaskedMlpPolicy", env or SelfPlayVecEnv(game, 4, seed=0), **SMALL | kwargs)


def rollout(model):
    """Collect one rollout and estimate its advantages."""
    _, callback = model._setup_learn(10**6)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model.rollout_buffer


def sums_to_the_end(values, ends):
    """For each step what comes until the end of its game, and whether that end is in the rollout; [T, B]."""
    total, complete = torch.zeros_like(values), torch.zeros_like(ends)
    for env in range(values.shape[1]):
        running, known = 0.0, False
        for step in reversed(range(values.shape[0])):
            if ends[step, env]:
                running, known = 0.0, True
            running += values[step, env].item()
            total[step, env], complete[step, env] = running, known
    return total, complete


@pytest.mark.parametrize("game", ["kuhn_poker", "leduc_poker"])
@pytest.mark.parametrize(("algorithm", "centred"), [(MaxEntPPO, False), (MaxEntPPO, True), (MaxEntTRPO, False)])
def test_every_player_follows_what_it_gains_itself(algorithm, centred, game):
    # With γ = λ = 1 an advantage is what is still to come, less what the critic expects.
    settings = {"gae_lambda": 1.0, "entropy_gamma": 1.0, "entropy_gae_lambda": 1.0, "entropy_centering": centred}
    buffer = rollout(make(algorithm, game, tau=0.3, **settings))
    sign = torch.where(buffer.acting_player == 0, 1.0, -1.0)
    gained, complete = sums_to_the_end(buffer.reward, buffer.done)
    own = -buffer.log_prob
    surprise, _ = sums_to_the_end(sign * (own - own.mean() if centred else own), buffer.done)
    assert complete.sum() > 40
    assert 0 < buffer.acting_player.float().mean() < 1
    for advantage, target, value, future in (
        (buffer.advantage, buffer.value_target, buffer.value, gained),
        (buffer.entropy_advantage, buffer.entropy_value_target, buffer.entropy_value, surprise),
    ):
        torch.testing.assert_close(advantage[complete], (sign * (future - value))[complete], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(target[complete], future[complete], rtol=1e-4, atol=1e-5)


def test_the_single_critic_ablation_subtracts_the_opponents_entropy_too():
    buffer = rollout(make(reward_augmentation=True, tau=0.3, gae_lambda=1.0))
    sign = torch.where(buffer.acting_player == 0, 1.0, -1.0)
    future, complete = sums_to_the_end(buffer.reward - 0.3 * sign * buffer.log_prob, buffer.done)
    torch.testing.assert_close(buffer.value_target[complete], future[complete], rtol=1e-4, atol=1e-5)


def test_it_is_noted_who_acts():
    model = make(PPO)
    model.policy.set_training_mode(False)
    buffer = rollout(model)
    # The encoding ends in who acts.
    seen = buffer.observation["observation"][..., -2:].argmax(-1)
    assert torch.equal(buffer.acting_player, seen)
    again = rollout(model)
    assert torch.equal(again.acting_player, again.observation["observation"][..., -2:].argmax(-1))


class Swapped(SelfPlayVecEnv):
    """The same games, in which the players have changed names."""

    @property
    def acting_player(self):
        return 1 - super().acting_player

    def step_wait(self):
        observation, reward, done, infos = super().step_wait()
        return observation, -reward, done, infos


def test_who_is_called_player_0_decides_the_critics_sign_and_nothing_else():
    plain = make(tau=0.3).learn(3 * 96)
    swapped = make(env=Swapped("leduc_poker", 4, seed=0), tau=0.3)
    with torch.no_grad():
        for head in (swapped.policy.value_net, swapped.policy.entropy_value_net):
            head.weight.neg_()
            head.bias.neg_()
    swapped.learn(3 * 96)
    for name, value in plain.policy.state_dict().items():
        expected = -value if "value_net." in name and "mlp" not in name else value
        torch.testing.assert_close(swapped.policy.state_dict()[name], expected, rtol=1e-4, atol=1e-6)


def test_other_environments_have_no_players():
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=0), n_steps=16, batch_size=16, seed=0, device="cpu")
    model.learn(32)
    assert model.rollout_buffer.acting_player is None
    assert "train/entropy_player_0" not in model.logger.name_to_value
    assert not takes_turns(model.env)
    assert not takes_turns(None)


def test_an_environment_that_takes_turns_may_be_wrapped_and_replaced():
    wrapped = VecMonitor(SelfPlayVecEnv("kuhn_poker", 4, seed=0, monitor=False))
    model = make(PPO, env=wrapped).learn(96)
    assert model.rollout_buffer.acting_player is not None
    assert {"r", "l"} <= model.ep_info_buffer[0].keys()


@pytest.mark.parametrize(("algorithm", "kwargs"), ALGORITHMS)
def test_every_algorithm_trains_and_goes_on_bit_for_bit(algorithm, kwargs, tmp_path):
    whole = make(algorithm, **kwargs).learn(2 * 96)
    whole.save(tmp_path / "model")
    whole.learn(2 * 96, reset_num_timesteps=False)
    torch.manual_seed(9)
    resumed = algorithm.load(
        tmp_path / "model", env=SelfPlayVecEnv("leduc_poker", 4, seed=5), device="cpu", resume=True
    )
    resumed.learn(2 * 96, reset_num_timesteps=False)
    for name, value in whole.policy.state_dict().items():
        assert torch.equal(resumed.policy.state_dict()[name], value), name
    # The last update's numbers are written with the next rollout.
    logged = whole.logger.name_to_value
    for player in (0, 1):
        assert 0 < logged[f"train/entropy_player_{player}"] <= np.log(3)


@pytest.mark.parametrize(("algorithm", "kwargs"), ALGORITHMS)
def test_the_packed_engine_leaves_games_to_others(algorithm, kwargs, caplog):
    with caplog.at_level(logging.INFO, "maxent_onpolicy"):
        model = make(algorithm, **kwargs).learn(96)
    assert model.current_engine.name == "eager"
    said = [line for line in caplog.messages if "packed engine" in line]
    assert len(said) == 1
    assert "environments in which two players take turns" in said[0]
    with pytest.raises(ValueError, match="because of environments in which two players take turns"):
        make(algorithm, engine="packed", **kwargs).learn(96)


def test_a_policy_without_masks_may_play_where_everything_is_legal():
    # Not packed either, although the networks would fit.
    model = PPO("MultiInputPolicy", SelfPlayVecEnv("kuhn_poker", 4, seed=0), **SMALL).learn(96)
    assert model.current_engine.name == "eager"
    with pytest.raises(ValueError, match=r"is illegal for player .*MaskedMlpPolicy"):
        PPO("MultiInputPolicy", SelfPlayVecEnv("leduc_poker", 4, seed=0), **SMALL).learn(960)


@pytest.mark.parametrize("kwargs", [{}, {"magnet": "previous", "magnet_coef": 0.5}, {"magnet": "uniform"}])
def test_the_compiled_engine_trains_games_as_autograd_does(kwargs, monkeypatch):
    # Interpreted, not compiled.
    monkeypatch.setattr(update, "compile_graph", lambda graph, *_: graph)
    monkeypatch.setattr(fits, "why_no_compiler", lambda device: None)
    models = [make(engine=engine, compile="auto", ent_coef=0.01, **kwargs) for engine in ("eager", "compiled")]
    states = []
    for model in models:
        torch.manual_seed(1)
        np.random.seed(1)
        states.append(model.learn(2 * 96).policy.state_dict())
        assert model.current_engine.name == ("eager" if model is models[0] else "compiled")
        assert model.rollout_buffer.acting_player is not None
    assert models[1].was_compiled
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)


def test_predict_takes_single_observations_and_batches():
    env = SelfPlayVecEnv("leduc_poker", 4, seed=0)
    model = make(env=env)
    observation = env.reset()
    actions, _ = model.predict(observation)
    assert actions.shape == (4,)
    assert observation["action_mask"][np.arange(4), actions].all()
    single, _ = model.predict({key: value[0] for key, value in observation.items()}, deterministic=True)
    assert single == model.predict(observation, deterministic=True)[0][0]


def test_a_masked_policy_needs_masks():
    with pytest.raises(ValueError, match="needs observations with the entries 'observation' and 'action_mask'"):
        MaxEntPPO("MaskedMlpPolicy", DummyVecEnv([lambda: make_vec_env("CartPole-v1").envs[0]]), device="cpu")


@pytest.mark.slow
def test_kuhn_poker_is_learnt():
    states = InformationStates("kuhn_poker")
    callback = ExploitabilityCallback(states, every_steps=50_000)
    model = MaxEntPPO(
        "MaskedMlpPolicy",
        SelfPlayVecEnv("kuhn_poker", 64, seed=0),
        learning_rate=lambda progress: 1e-3 * progress,
        n_steps=16,
        batch_size=512,
        n_epochs=2,
        gamma=1.0,
        entropy_gamma=1.0,
        entropy_gae_lambda=0.95,
        tau=lambda progress: 0.05 + 0.15 * progress,
        magnet="ema",
        magnet_coef=0.5,
        magnet_decay=0.95,
        seed=0,
        device="cpu",
        engine="eager",
    ).learn(200_000, callback=callback)
    assert callback.history[0][1].exploitability > 0.4
    found = states.evaluate(model)
    assert found.exploitability < 0.08
    assert found.value == pytest.approx(-1 / 18, abs=0.05)
