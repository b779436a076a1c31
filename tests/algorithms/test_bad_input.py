"""Bad input gets an error that names the argument, its value and what is allowed."""

import re
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from noise_env import Noise
from stable_baselines3.common.vec_env import DummyVecEnv

from maxent_onpolicy import PPO, MaxEntPPO
from maxent_onpolicy.engine.finite import NonFiniteError

SMALL = {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "device": "cpu"}

BAD = [
    ({"tau": -0.1}, "`tau` must be in [0, inf), got -0.1"),
    ({"tau": float("nan")}, "`tau` must be in [0, inf), got nan"),
    ({"tau": "automatic"}, "`tau` must be a number of at least 0, a schedule or 'auto'; got 'automatic' (did you mean"),
    ({"tau_bounds": 3}, "`tau_bounds` must be a pair (low, high), got 3"),
    ({"gamma": "0.9"}, "`gamma` must be a number in [0, 1], got '0.9'"),
    ({"learning_rate": float("inf")}, "`learning_rate` must be in [0, inf), got inf"),
    ({"learning_rate": "1e-3"}, "`learning_rate` must be a number in [0, inf), got '1e-3'"),
    ({"n_steps": 12.5}, "`n_steps` must be an integer of at least 1, got 12.5"),
    ({"n_epochs": 1.5}, "`n_epochs` must be an integer of at least 1, got 1.5"),
    ({"batch_size": "64"}, "`batch_size` must be an integer of at least 1, got '64'"),
    ({"popart": "no"}, "`popart` must be one of True, False; got 'no'"),
    ({"normalize_advantage": None}, "`normalize_advantage` must be one of True, False; got None"),
    ({"entropy_centering": "off"}, "`entropy_centering` must be one of True, False; got 'off'"),
    ({"reward_augmentation": 2}, "`reward_augmentation` must be one of True, False; got 2"),
    ({"policy_kwargs": 3}, "`policy_kwargs` must be keywords of the policy with values, got 3"),
    ({"policy_kwargs": {"log_std_bounds": 2}}, "`log_std_bounds` must be a pair (low, high), got 2"),
    ({"tau": None}, "`tau` must be a number in [0, inf), got None"),
    ({"entropy_gamma": 1.1}, "`entropy_gamma` must be in [0, 1], got 1.1"),
    ({"entropy_gae_lambda": -0.5}, "`entropy_gae_lambda` must be in [0, 1], got -0.5"),
    ({"gamma": 2.0}, "`gamma` must be in [0, 1], got 2.0"),
    ({"gae_lambda": float("inf")}, "`gae_lambda` must be in [0, 1], got inf"),
    ({"entropy_vf_coef": -1}, "`entropy_vf_coef` must be in [0, inf), got -1"),
    ({"popart_beta": 0.0}, "`popart_beta` must be in (0, 1], got 0.0"),
    ({"tau_bounds": (0.0, 1.0)}, "`tau_bounds[0]` must be in (0, inf), got 0.0"),
    ({"tau_bounds": (0.5, 0.1)}, "`tau_bounds[1]` must be in [0.5, inf), got 0.1"),
    ({"tau_learning_rate": 0}, "`tau_learning_rate` must be in (0, inf), got 0"),
    ({"entropy_reward": "exakt"}, "`entropy_reward` must be one of 'sampled', 'exact'; got 'exakt' (did you mean"),
    ({"advantage_normalization": "none"}, "`advantage_normalization` must be one of 'combined', 'separate'"),
    ({"target_entropy": -1.0}, "`target_entropy` only applies to `tau='auto'`"),
    ({"n_steps": 0}, "`n_steps` must be in [1, inf), got 0"),
    ({"n_epochs": 0}, "`n_epochs` must be in [1, inf), got 0"),
    ({"batch_size": 0}, "`batch_size` must be in [1, inf), got 0"),
    ({"batch_size": 1}, "`batch_size` must be greater than 1 to normalise advantages, got 1"),
    ({"clip_range": 0.0}, "`clip_range` must be in (0, inf), got 0.0"),
    ({"clip_range_vf": -0.2}, "`clip_range_vf` must be positive, or None not to clip; got -0.2"),
    ({"target_kl": 0}, "`target_kl` must be in (0, inf), got 0"),
    ({"max_grad_norm": 0.0}, "`max_grad_norm` must be in (0, inf), got 0.0"),
    ({"vf_coef": -0.5}, "`vf_coef` must be in [0, inf), got -0.5"),
    ({"policy_kwargs": {"action_distribution": "tanh_gaussian"}, "entropy_reward": "exact"}, "has none, use 'sampled'"),
    ({"policy_kwargs": {"log_std_bounds": (-3, -1)}}, "`log_std_init` must be in (-3, -1), got 0.0"),
    ({"policy_kwargs": {"log_std_bounds": (-3, 0), "state_dependent_std": True}}, "`log_std_init` must be in (-3, 0)"),
    ({"rollout_buffer_class": dict}, "`rollout_buffer_class` must be None or a subclass"),
]


@pytest.mark.parametrize(
    ("kwargs", "message"), BAD, ids=[next(iter(kwargs)) + str(i) for i, (kwargs, _) in enumerate(BAD)]
)
def test_arguments_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MaxEntPPO("MlpPolicy", Noise(), **SMALL | kwargs)


def test_a_misspelt_policy_gets_the_closest_name():
    with pytest.raises(ValueError, match=r"`policy` must be one of 'MlpPolicy'.*got 'MlpPolcy' .*mean 'MlpPolicy'"):
        MaxEntPPO("MlpPolcy", Noise(), **SMALL)


def test_zero_is_a_value_and_not_a_default():
    model = MaxEntPPO("MlpPolicy", Noise(), entropy_gae_lambda=0.0, entropy_gamma=0.0, **SMALL)
    assert model.entropy_gae_lambda == 0.0
    model.learn(32)
    buffer = model.rollout_buffer
    # γ_H = 0: the advantage is the entropy reward minus its critic, nothing later counts.
    torch.testing.assert_close(buffer.entropy_advantage, buffer.entropy_reward - buffer.entropy_value)


def test_a_batch_that_does_not_divide_the_rollout_warns_and_drops_nothing():
    with pytest.warns(
        UserWarning, match=r"n_steps \* n_envs = 32 \* 2 = 64 .* mini-batch of size 14.*No sample is dropped"
    ):
        model = PPO("MlpPolicy", DummyVecEnv([Noise, Noise]), **SMALL | {"batch_size": 50})
    model.learn(64)
    assert sum(len(batch.action) for batch in model.rollout_buffer.get(50)) == 64


def test_a_batch_that_divides_it_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PPO("MlpPolicy", DummyVecEnv([Noise, Noise]), **SMALL)


@pytest.mark.parametrize("dictionary", [False, True], ids=["flat", "dict"])
def test_a_bad_observation_names_step_and_environment(dictionary):
    policy = "MultiInputPolicy" if dictionary else "MlpPolicy"
    envs = [lambda: Noise(dictionary=dictionary), lambda: Noise(broken="observation", at=5, dictionary=dictionary)]
    what = re.escape("observation['a']") if dictionary else "observation"
    with pytest.raises(NonFiniteError, match=rf"{what} of environment 1 is nan at step 10 \(counted over all env"):
        MaxEntPPO(policy, DummyVecEnv(envs), **SMALL).learn(64)


@pytest.mark.parametrize("dictionary", [False, True], ids=["flat", "dict"])
def test_a_bad_final_observation_names_step_and_environment(dictionary):
    bad = {"broken": "observation", "at": 10, "limit": 5}
    envs = [lambda: Noise(dictionary=dictionary), lambda: Noise(dictionary=dictionary, **bad)]
    policy = "MultiInputPolicy" if dictionary else "MlpPolicy"
    what = re.escape("final observation['a']") if dictionary else "final observation"
    with pytest.raises(NonFiniteError, match=f"{what} of environment 1 is nan at step 20 "):
        MaxEntPPO(policy, DummyVecEnv(envs), **SMALL).learn(64)


def test_a_bad_observation_after_a_rollouts_last_step_is_the_environments_fault():
    env = Noise(broken="observation", at=32, limit=None)
    with pytest.raises(NonFiniteError, match=r"observation of environment 0 is nan at step 32 .*check the environment"):
        PPO("MlpPolicy", env, **SMALL).learn(32)


def test_a_bad_reward_names_step_and_environment():
    envs = [lambda: Noise(broken="reward", at=9), Noise]
    with pytest.raises(NonFiniteError, match=r"reward of environment 0 is inf at step 16 "):
        PPO("MlpPolicy", DummyVecEnv(envs), **SMALL).learn(64)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3)], ids=str)
def test_a_diverged_policy_is_named(value, space):
    model = PPO("MlpPolicy", Noise(action_space=space), **SMALL)
    model.policy.action_net.bias.data[0] = value
    with pytest.raises(NonFiniteError, match=r"action of environment 0 .* at step 0.*parameters have diverged"):
        model.learn(32)


@pytest.mark.parametrize("n_epochs", [1, 3], ids=["at the end", "in the middle"])
def test_a_diverging_update_is_reported(n_epochs):
    model = PPO("MlpPolicy", Noise(), **SMALL | {"n_epochs": n_epochs})
    value_net = model.policy.value_net
    value_net.register_forward_hook(lambda module, inputs, output: output * (1e30 if torch.is_grad_enabled() else 1))
    with pytest.raises(NonFiniteError, match=r"update after step 32"):
        model.learn(32)


def test_unsupported_spaces():
    class Tuples(gym.Env):
        observation_space = spaces.Box(-1, 1, (2,), np.float32)
        action_space = spaces.Tuple([spaces.Discrete(2)])

    with pytest.raises(AssertionError, match="only supports"):
        PPO("MlpPolicy", Tuples())
