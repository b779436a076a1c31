"""PPO and TRPO, and with tau=0 MaxEntPPO and MaxEntTRPO, against the classes of SB3 and sb3-contrib, bit for bit."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import sb3_contrib
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from noise_env import Noise, assert_same_parameters, endless
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from maxent_onpolicy import PPO, TRPO, MaxEntPPO, MaxEntTRPO


class Peer(NamedTuple):
    """Another library's class, and what it is compared at."""

    stock: type
    kwargs: dict[str, Any]
    options: dict[str, Any]  # all that only this algorithm has, changed at once


PPO_LIKE = Peer(
    sb3.PPO,
    {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "seed": 7, "device": "cpu"},
    {"clip_range_vf": 0.2, "ent_coef": 0.01, "target_kl": 0.02},
)
TRPO_LIKE = Peer(
    sb3_contrib.TRPO,
    {"n_steps": 64, "batch_size": 32, "n_critic_updates": 2, "seed": 7, "device": "cpu"},
    {
        "cg_max_steps": 5,
        "cg_damping": 0.01,
        "line_search_shrinking_factor": 0.5,
        "line_search_max_iter": 4,
        "target_kl": 0.05,
        "sub_sampling_factor": 3,
    },
)


class Pair(NamedTuple):
    """One of our classes, and whom it must equal."""

    ours: type
    peer: Peer
    kwargs: dict[str, Any]

    def models(self, env, policy="MlpPolicy", **kwargs):
        """Both, untrained. The eager engine is the one that repeats SB3's arithmetic in SB3's order."""
        kwargs = self.peer.kwargs | kwargs
        yield self.peer.stock(policy, env(), **kwargs)
        yield self.ours(policy, env(), engine="eager", **self.kwargs, **kwargs)

    def check(self, env, steps, policy="MlpPolicy", **kwargs):
        """Train both and compare."""
        assert_same_parameters(*(model.learn(steps) for model in self.models(env, policy, **kwargs)))


PPOS = {"PPO": Pair(PPO, PPO_LIKE, {}), "MaxEntPPO(tau=0)": Pair(MaxEntPPO, PPO_LIKE, {"tau": 0})}
PAIRS = PPOS | {"TRPO": Pair(TRPO, TRPO_LIKE, {}), "MaxEntTRPO(tau=0)": Pair(MaxEntTRPO, TRPO_LIKE, {"tau": 0})}
every_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
every_ppo = pytest.mark.parametrize("pair", PPOS.values(), ids=PPOS)
CASES = {
    "defaults": {},
    "options": {"learning_rate": lambda progress: 1e-3 * progress, "gae_lambda": 0.9},
    "remainder": {"batch_size": 48},
    "no normalisation": {"normalize_advantage": False},
    "noise matrices": {"use_sde": True, "sde_sample_freq": 4},
    "other networks": {"policy_kwargs": {"net_arch": [32], "activation_fn": torch.nn.ReLU, "ortho_init": False}},
    "separate extractors": {"policy_kwargs": {"share_features_extractor": False}},
}


@pytest.mark.filterwarnings("ignore:.*truncated mini-batch")
@every_pair
@pytest.mark.parametrize("name", CASES)
def test_parameters_equal_the_peers_bit_for_bit(pair, name):
    kwargs = CASES[name] | (pair.peer.options if name == "options" else {})
    pair.check(lambda: endless(4), 2 * 256, **kwargs)


@every_pair
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1"])
def test_parity_in_real_environments_that_terminate(pair, env_id):
    # 2·224 steps stay below the time limits of 500: what follows a truncation is evaluated in one batch here, by SB3
    # one observation after the other, and some processors round the two differently.
    pair.check(lambda: make_vec_env(env_id, 2), 896, n_steps=224, batch_size=64, seed=1)


@every_pair
@pytest.mark.parametrize(
    "space",
    [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3), spaces.Box(-1, 1, (2, 2), np.float64)],
    ids=str,
)
def test_parity_for_every_action_space(pair, space):
    pair.check(lambda: endless(2, action_space=space), 256)


@every_pair
def test_parity_for_dictionaries_and_images(pair):
    pair.check(lambda: endless(2, dictionary=True), 256, "MultiInputPolicy")

    def image_env():
        env = FakeImageEnv(screen_height=40, screen_width=40)
        env.ep_length = 10**6
        env.observation_space.seed(0)
        return env

    pair.check(lambda: DummyVecEnv([image_env]), 64, "CnnPolicy", n_steps=32)


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


@every_ppo
def test_truncation_equals_a_reference_that_bootstraps_in_one_batch(pair):
    def env():
        return DummyVecEnv([lambda limit=limit: Noise(limit=limit) for limit in (5, 7, 64)])

    kwargs = pair.peer.kwargs
    theirs = pair.peer.stock("MlpPolicy", env(), rollout_buffer_class=BootstrapsInOneBatch, **kwargs)
    theirs.learn(3 * 192, callback=RecordsFinals())
    _, ours = pair.models(env)
    assert_same_parameters(theirs, ours.learn(3 * 192))


@every_ppo
def test_one_environment_with_one_truncation_a_rollout_equals_sb3_itself(pair):
    # Then SB3's forward pass has the same batch of one as ours.
    pair.check(lambda: Noise(limit=25), 25, n_steps=40, batch_size=20)


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
