"""PPO and MaxEntPPO(tau=0) against stable_baselines3.PPO, bit for bit."""

import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from noise_env import Noise
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from maxent_onpolicy import PPO, MaxEntPPO


def parameters(model):
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def assert_same_parameters(theirs, ours):
    expected, got = parameters(theirs), parameters(ours)
    for name, value in expected.items():
        assert torch.equal(got[name], value), f"{name} differs by {(got[name] - value).abs().max()}"


def endless(n_envs=1, **kwargs):
    return DummyVecEnv([lambda: Noise(limit=None, **kwargs) for _ in range(n_envs)])


# The eager engine is the one that repeats SB3's arithmetic in SB3's order.
OURS = [
    lambda *args, **kwargs: PPO(*args, engine="eager", **kwargs),
    lambda *args, **kwargs: MaxEntPPO(*args, engine="eager", tau=0, **kwargs),
]
CASES = {
    "defaults": {},
    "all the options": {
        "clip_range_vf": 0.2,
        "ent_coef": 0.01,
        "target_kl": 0.02,
        "learning_rate": lambda progress: 1e-3 * progress,
        "gae_lambda": 0.9,
    },
    "remainder": {"batch_size": 48},
    "no normalisation": {"normalize_advantage": False},
    "noise matrices": {"use_sde": True, "sde_sample_freq": 4},
    "other networks": {"policy_kwargs": {"net_arch": [32], "activation_fn": torch.nn.ReLU, "ortho_init": False}},
    "separate extractors": {"policy_kwargs": {"share_features_extractor": False}},
}


@pytest.mark.filterwarnings("ignore:.*truncated mini-batch")
@pytest.mark.parametrize("ours", OURS, ids=["PPO", "MaxEntPPO(tau=0)"])
@pytest.mark.parametrize("kwargs", CASES.values(), ids=CASES.keys())
def test_parameters_equal_sb3s_bit_for_bit(ours, kwargs):
    kwargs = {"n_steps": 64, "batch_size": 32, "n_epochs": 3, "seed": 7, "device": "cpu"} | kwargs
    theirs = sb3.PPO("MlpPolicy", endless(4), **kwargs).learn(3 * 256)
    assert_same_parameters(theirs, ours("MlpPolicy", endless(4), **kwargs).learn(3 * 256))


@pytest.mark.parametrize("ours", OURS, ids=["PPO", "MaxEntPPO(tau=0)"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1"])
def test_parity_in_real_environments_that_terminate(ours, env_id):
    # 2·224 steps stay below the time limits of 500: what follows a truncation is evaluated in one batch here, by SB3
    # one observation after the other, and some processors round the two differently.
    kwargs = {"n_steps": 224, "seed": 1, "device": "cpu", "n_epochs": 4}
    theirs = sb3.PPO("MlpPolicy", make_vec_env(env_id, 2), **kwargs).learn(896)
    assert_same_parameters(theirs, ours("MlpPolicy", make_vec_env(env_id, 2), **kwargs).learn(896))


@pytest.mark.parametrize("ours", OURS, ids=["PPO", "MaxEntPPO(tau=0)"])
@pytest.mark.parametrize(
    "space",
    [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3), spaces.Box(-1, 1, (2, 2), np.float64)],
    ids=str,
)
def test_parity_for_every_action_space(ours, space):
    kwargs = {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu"}
    theirs = sb3.PPO("MlpPolicy", endless(2, action_space=space), **kwargs).learn(128)
    assert_same_parameters(theirs, ours("MlpPolicy", endless(2, action_space=space), **kwargs).learn(128))


@pytest.mark.parametrize("ours", OURS, ids=["PPO", "MaxEntPPO(tau=0)"])
def test_parity_for_dictionaries_and_images(ours):
    kwargs = {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu"}
    theirs = sb3.PPO("MultiInputPolicy", endless(2, dictionary=True), **kwargs).learn(128)
    assert_same_parameters(theirs, ours("MultiInputPolicy", endless(2, dictionary=True), **kwargs).learn(128))

    def image_env():
        env = FakeImageEnv(screen_height=40, screen_width=40)
        env.ep_length = 10**6
        env.observation_space.seed(0)
        return env

    def images():
        return DummyVecEnv([image_env])

    theirs = sb3.PPO("CnnPolicy", images(), **kwargs).learn(64)
    assert_same_parameters(theirs, ours("CnnPolicy", images(), **kwargs).learn(64))


class BootstrapsInOneBatch(sb3.common.buffers.RolloutBuffer):
    """SB3's buffer, but all of a rollout's final observations go through the critic in one batch before GAE.

    SB3 evaluates them one by one while it steps; matrix products of another size
    round differently. The arithmetic is SB3's: ``r + γ·V(s_final)`` on the reward.
    """

    policy, gamma_, finals = None, 0.99, ()

    def compute_returns_and_advantage(self, last_values, dones):
        if self.finals:
            observation = torch.as_tensor(np.stack([final for _, _, final in self.finals]))
            with torch.no_grad():
                values = self.policy.predict_values(observation).flatten()
            for (step, env, _), value in zip(self.finals, values, strict=True):
                self.rewards[step, env] += np.float32(self.gamma_) * value.numpy()
        super().compute_returns_and_advantage(last_values, dones)


class RecordsFinals(sb3.common.callbacks.BaseCallback):
    """Hides SB3's own bootstrap and hands the final observations to the buffer."""

    def _on_rollout_start(self):
        self.model.rollout_buffer.finals = []
        self.model.rollout_buffer.policy = self.model.policy

    def _on_step(self):
        step = self.locals["n_steps"]
        for env, info in enumerate(self.locals["infos"]):
            if info.pop("TimeLimit.truncated", False):
                self.model.rollout_buffer.finals.append((step, env, info["terminal_observation"]))
        return True


@pytest.mark.parametrize("ours", OURS, ids=["PPO", "MaxEntPPO(tau=0)"])
def test_truncation_equals_a_reference_that_bootstraps_in_one_batch(ours):
    def env():
        return DummyVecEnv([lambda limit=limit: Noise(limit=limit) for limit in (5, 7, 64)])

    kwargs = {"n_steps": 64, "batch_size": 32, "n_epochs": 3, "seed": 7, "device": "cpu"}
    theirs = sb3.PPO("MlpPolicy", env(), rollout_buffer_class=BootstrapsInOneBatch, **kwargs)
    theirs.learn(3 * 192, callback=RecordsFinals())
    assert_same_parameters(theirs, ours("MlpPolicy", env(), **kwargs).learn(3 * 192))


@pytest.mark.parametrize("ours", OURS, ids=["PPO", "MaxEntPPO(tau=0)"])
def test_one_environment_with_one_truncation_a_rollout_equals_sb3_itself(ours):
    # Then SB3's forward pass has the same batch of one as ours.
    kwargs = {"n_steps": 40, "batch_size": 20, "n_epochs": 3, "seed": 7, "device": "cpu"}
    theirs = sb3.PPO("MlpPolicy", Noise(limit=25), **kwargs).learn(25)
    assert_same_parameters(theirs, ours("MlpPolicy", Noise(limit=25), **kwargs).learn(25))


def test_sb3s_own_truncation_agrees_to_rounding():
    kwargs = {"n_steps": 64, "batch_size": 64, "n_epochs": 1, "seed": 7, "device": "cpu", "learning_rate": 1e-4}
    env = [lambda limit=limit: Noise(limit=limit) for limit in (5, 7)]
    theirs = sb3.PPO("MlpPolicy", DummyVecEnv(env), **kwargs)
    ours = PPO("MlpPolicy", DummyVecEnv(env), **kwargs)
    for model in (theirs, ours):
        _, callback = model._setup_learn(128)
        model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, 64)
    np.testing.assert_allclose(ours.rollout_buffer.advantages, theirs.rollout_buffer.advantages, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.rollout_buffer.returns, theirs.rollout_buffer.returns, rtol=0, atol=1e-6)
    # SB3 edits the rewards; ours are the environment's.
    assert not np.array_equal(ours.rollout_buffer.rewards, theirs.rollout_buffer.rewards)
