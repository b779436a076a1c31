"""What the entropy critic adds: its estimates, its effect and its bookkeeping."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from noise_env import Noise
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.policies import ActorCriticPolicy as SB3Policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from maxent_onpolicy import PPO, MaxEntPPO
from maxent_onpolicy.algorithms.maxent import default_target_entropy
from maxent_onpolicy.envs.toys import ConstantRewardEnv
from maxent_onpolicy.estimators.advantages import gae

SMALL = {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "device": "cpu", "seed": 0}


def noise(n_envs=2, **kwargs):
    return DummyVecEnv([lambda i=i: Noise(limit=5 + 2 * i, **kwargs) for i in range(n_envs)])


@pytest.mark.parametrize("end", ["truncated", "terminated", "never"])
def test_the_entropy_critic_learns_the_closed_form(end):
    """V_H = H/(1 − γ_H) where the episode is cut off or endless, H·(1 − γ_Hⁿ)/(1 − γ_H) where it terminates in n."""
    gamma, length = 0.8, 5
    # Cut off by a time limit, so that the final observation is one that the critic is trained on.
    inside = ConstantRewardEnv(
        spaces.Discrete(4), reward=0.0, length=length, end="never" if end == "truncated" else end
    )
    env = DummyVecEnv([lambda: gym.wrappers.TimeLimit(inside, length) if end == "truncated" else inside])
    model = MaxEntPPO(
        "MlpPolicy",
        env,
        tau=1.0,
        entropy_gamma=gamma,
        entropy_gae_lambda=0.9,
        learning_rate=3e-3,
        n_steps=200,
        batch_size=50,
        n_epochs=10,
        seed=0,
        device="cpu",
        policy_kwargs={"net_arch": {"pi": [8], "vf": [32, 32]}},
    ).learn(6_000)
    elapsed = range(length) if end == "terminated" else [0]
    observations = torch.tensor([[step / length] for step in elapsed])
    with torch.no_grad():
        predicted = model.policy.predict_entropy_values(observations).flatten().numpy()
        entropy = model.policy.get_distribution(observations).entropy()
    # A reward of zero leaves entropy as the only aim: the policy stays uniform.
    np.testing.assert_allclose(entropy.numpy(), math.log(4), atol=0.02)
    expected = [inside.value(step, gamma, per_step=math.log(4)) for step in elapsed]
    np.testing.assert_allclose(predicted, expected, rtol=0.05)


def test_the_soft_advantage_moves_the_policy_towards_entropy():
    """The same seed with a large and a small temperature: only the first keeps a wide action distribution."""
    stds = {}
    for tau in (0.0, 0.5):
        env = ConstantRewardEnv(spaces.Box(-2, 2, (1,), np.float32), reward=0.0)
        model = MaxEntPPO("MlpPolicy", env, tau=tau, seed=0, n_steps=256, learning_rate=3e-3, device="cpu")
        stds[tau] = model.learn(2048).policy.log_std.exp().item()
    assert stds[0.5] > 1.5
    assert stds[0.5] > 1.3 * stds[0.0]


def rollout(model, steps=None):
    model.set_random_seed(0)
    _, callback = model._setup_learn(10_000)
    model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, steps or model.n_steps)
    return model.rollout_buffer


@pytest.mark.parametrize("kind", ["sampled", "exact"])
@pytest.mark.parametrize("centered", [False, True])
def test_the_rollouts_entropy_estimates_follow_their_definition(kind, centered):
    model = MaxEntPPO(
        "MlpPolicy",
        noise(),
        entropy_reward=kind,
        entropy_centering=centered,
        entropy_gamma=0.99,
        entropy_gae_lambda=0.7,
        **SMALL,
    )
    buffer = rollout(model)
    with torch.no_grad():
        distribution = model.policy.get_distribution(buffer.flat_observation())
        entropy = distribution.entropy().reshape(32, 2) if kind == "exact" else -buffer.log_prob
    if centered:
        entropy = entropy - entropy.mean()
    torch.testing.assert_close(buffer.entropy_reward, entropy)

    steps, indices, final = buffer.final_observations()
    assert len(steps) == 32 // 5 + 32 // 7
    with torch.no_grad():
        value = model.policy.predict_entropy_values(buffer.flat_observation()).reshape(32, 2)
        next_value = torch.cat([value[1:], model.policy.predict_entropy_values(torch.as_tensor(model._last_obs)).T])
        next_value[steps, indices] = model.policy.predict_entropy_values(final).flatten()
    advantage, target = gae(entropy, value, next_value, buffer.terminated, buffer.done, 0.99, 0.7)
    torch.testing.assert_close(buffer.entropy_advantage, advantage)
    torch.testing.assert_close(buffer.entropy_value_target, target)


class CountsCriticCalls:
    """Counts the batches that go through a policy's critics."""

    def __init__(self, policy):
        self.sizes = {"predict_values": [], "predict_entropy_values": []}
        for name, sizes in self.sizes.items():
            original = getattr(policy, name)
            setattr(
                policy, name, lambda obs, original=original, sizes=sizes: (sizes.append(len(obs)), original(obs))[1]
            )


def test_all_truncated_environments_share_one_forward_pass_of_each_critic():
    model = MaxEntPPO("MlpPolicy", noise(), **SMALL)
    calls = CountsCriticCalls(model.policy)
    buffer = rollout(model)
    truncated = int(buffer.truncated.sum())
    assert truncated == 10
    assert calls.sizes["predict_values"] == [2, truncated]
    # The rollout's own observations went through all networks at once.
    assert calls.sizes["predict_entropy_values"] == [2, truncated]


def test_final_observations_are_those_of_the_ended_episodes():
    class Counter(gym.Env):
        observation_space = spaces.Box(0, 100, (1,), np.float32)
        action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.t = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.t += 1
            return np.array([self.t], np.float32), 0.0, False, self.t == 6, {}

    buffer = rollout(MaxEntPPO("MlpPolicy", Counter(), **SMALL))
    steps, indices, final = buffer.final_observations()
    assert steps.tolist() == [5, 11, 17, 23, 29]
    assert indices.tolist() == [0] * 5
    assert final.flatten().tolist() == [6.0] * 5
    assert buffer.observations[6, 0] == 0.0
    assert not buffer.terminated.any()


def test_reward_augmentation_equals_the_soft_advantage_with_shared_discount_and_trace():
    """The same rollout through one critic on ``r − τ·log π`` and through two, with V = V_r + τ·V_H."""
    tau = 0.3
    kwargs = {"gamma": 0.9, "gae_lambda": 0.8, "policy_kwargs": {"entropy_net_arch": None}, **SMALL}
    two = MaxEntPPO("MlpPolicy", noise(), tau=tau, entropy_gamma=0.9, entropy_gae_lambda=0.8, **kwargs)
    one = MaxEntPPO("MlpPolicy", noise(), tau=tau, reward_augmentation=True, **kwargs)
    with torch.no_grad():
        one.policy.value_net.weight.copy_(two.policy.value_net.weight + tau * two.policy.entropy_value_net.weight)
        one.policy.value_net.bias.copy_(two.policy.value_net.bias + tau * two.policy.entropy_value_net.bias)
    first, second = rollout(two), rollout(one)
    torch.testing.assert_close(first.log_prob, second.log_prob)
    soft = first.advantage + tau * first.entropy_advantage
    torch.testing.assert_close(soft, second.advantage, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        first.value_target + tau * first.entropy_value_target, second.value_target, rtol=0, atol=1e-5
    )


def test_the_ablation_has_no_entropy_critic_and_keeps_the_logged_return():
    env = VecMonitor(DummyVecEnv([lambda: Noise(limit=8)]))
    model = MaxEntPPO("MlpPolicy", env, reward_augmentation=True, tau=100.0, **SMALL).learn(64)
    assert not hasattr(model.policy, "entropy_value_net")
    assert "train/entropy_advantage_mean" not in model.logger.name_to_value
    # 8 standard normal rewards: an augmented return would be in the hundreds.
    assert abs(np.mean([info["r"] for info in model.ep_info_buffer])) < 10


LOGGED = {
    "entropy",
    "entropy_advantage_mean",
    "entropy_advantage_std",
    "entropy_advantage_share",
    "explained_variance",
    "entropy_explained_variance",
    "tau",
    "std",
    "clipped_actions",
    "value_loss",
    "entropy_value_loss",
    "approx_kl",
    "clip_fraction",
}


def test_everything_is_logged():
    model = MaxEntPPO("MlpPolicy", "Pendulum-v1", **SMALL | {"n_steps": 400, "batch_size": 100}).learn(400)
    values = model.logger.name_to_value
    assert {f"train/{name}" for name in LOGGED} <= set(values)
    assert values["train/tau"] == 0.1
    assert 0 < values["train/entropy_advantage_share"] < 1
    # Pendulum's bounds are ±2 and the deviation is 1: P(|a| > 2) is about 4.6 %.
    assert values["train/clipped_actions"] == pytest.approx(0.046, abs=0.03)


def test_episode_length_is_logged():
    model = MaxEntPPO("MlpPolicy", gym.wrappers.TimeLimit(Noise(limit=None), 8), **SMALL)
    seen = {}

    class Reads(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_start(self):
            seen.update({"length": [info["l"] for info in self.model.ep_info_buffer]})

    model.learn(64, callback=Reads())
    assert set(seen["length"]) == {8}


class TestTemperature:
    def test_a_schedule_follows_the_remaining_progress(self):
        taus = []

        class Reads(BaseCallback):
            def _on_step(self):
                return True

            def _on_rollout_end(self):
                taus.append(self.model._tau_of_rollout)

        MaxEntPPO("MlpPolicy", noise(), tau=LinearSchedule(0.4, 0.0, 1.0), **SMALL).learn(4 * 64, callback=Reads())
        np.testing.assert_allclose(taus, [0.4, 0.3, 0.2, 0.1])

    def test_every_call_of_learn_has_its_own_progress(self):
        # A rollout of 64 steps overshoots the 40 asked for: the progress left behind is negative.
        model = MaxEntPPO("MlpPolicy", noise(), tau=lambda progress: 0.4 * progress, **SMALL).learn(40)
        assert model._tau_of_rollout == pytest.approx(0.4)
        model.learn(64, reset_num_timesteps=False)
        assert model._tau_of_rollout == pytest.approx(0.4 * 0.5)
        assert model.learn(64)._tau_of_rollout == pytest.approx(0.4)
        assert model.learn(0)._tau_of_rollout == pytest.approx(0.4)

    def test_a_schedule_that_leaves_the_range_is_reported(self):
        with pytest.raises(ValueError, match=r"`tau` must be in \[0, inf\), got -0.25"):
            MaxEntPPO("MlpPolicy", noise(), tau=lambda progress: 0.25 - 0.5 * progress, **SMALL).learn(64)

    def test_numbers_of_numpy(self):
        assert MaxEntPPO("MlpPolicy", noise(), tau=np.float32(0.5), **SMALL).current_tau == 0.5
        assert not MaxEntPPO("MlpPolicy", noise(), tau=np.int64(0), **SMALL).uses_entropy_critic

    @pytest.mark.parametrize(("target", "grows"), [(5.0, True), (-5.0, False)])
    def test_auto_moves_towards_the_target(self, target, grows):
        model = MaxEntPPO("MlpPolicy", noise(), tau="auto", target_entropy=target, initial_tau=0.1, **SMALL)
        assert model.current_tau == pytest.approx(0.1)
        model.learn(5 * 64)
        assert (model.current_tau > 0.1) == grows

    def test_auto_stays_within_its_bounds(self):
        model = MaxEntPPO(
            "MlpPolicy",
            noise(),
            tau="auto",
            target_entropy=50.0,
            initial_tau=0.1,
            tau_bounds=(0.05, 0.11),
            tau_learning_rate=1.0,
            **SMALL,
        ).learn(3 * 64)
        assert model.current_tau == pytest.approx(0.11)

    @pytest.mark.slow
    # The task's advantages are noise here, which normalised by itself weighs more: τ has to rise further.
    @pytest.mark.parametrize(("normalization", "rate"), [("combined", 0.02), ("separate", 0.1)])
    def test_auto_reaches_the_target_entropy(self, normalization, rate):
        env = DummyVecEnv([lambda: ConstantRewardEnv(spaces.Box(-1, 1, (1,), np.float32), reward=0.0)])
        model = MaxEntPPO(
            "MlpPolicy",
            env,
            tau="auto",
            target_entropy=1.8,
            tau_learning_rate=rate,
            advantage_normalization=normalization,
            learning_rate=3e-3,
            n_steps=256,
            device="cpu",
            seed=0,
        ).learn(20_000)
        entropy = model.policy.get_distribution(torch.zeros(1, 1)).entropy().item()
        assert entropy >= 1.75

    def test_default_targets(self):
        assert default_target_entropy(spaces.Box(-1, 1, (3,))) == -3.0
        assert default_target_entropy(spaces.Discrete(8)) == pytest.approx(0.5 * math.log(8))
        assert default_target_entropy(spaces.MultiDiscrete([2, 4])) == pytest.approx(0.5 * math.log(8))
        assert default_target_entropy(spaces.MultiBinary(3)) == pytest.approx(0.5 * 3 * math.log(2))
        with pytest.raises(ValueError, match="`target_entropy` has no default"):
            default_target_entropy(spaces.Text(3))


OPTIONS = {
    "popart": {"popart": True},
    "own network": {"policy_kwargs": {"entropy_net_arch": [16]}},
    "separate normalisation": {"advantage_normalization": "separate"},
    "no normalisation": {"normalize_advantage": False},
    "noise matrices": {"use_sde": True},
    "tanh": {"policy_kwargs": {"action_distribution": "tanh_gaussian"}},
    "beta": {"policy_kwargs": {"action_distribution": "beta"}, "entropy_reward": "exact"},
    "state-dependent std": {"policy_kwargs": {"state_dependent_std": True, "log_std_bounds": (-4, 1)}},
    "sb3's own policy": {"policy": SB3Policy},
    "separate extractors": {"policy_kwargs": {"share_features_extractor": False}},
    "value clipping": {"clip_range_vf": 0.2, "popart": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_parameter_learns_with_every_option(options):
    model = MaxEntPPO(options.pop("policy", "MlpPolicy"), noise(), **SMALL, **options)
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    model.learn(128)
    for name, value in model.policy.named_parameters():
        assert not torch.equal(value, before[name]), name
        assert value.isfinite().all()


SPACES = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(3),
    spaces.Box(-1, 1, (2, 2), np.float32),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("dictionary", [False, True], ids=["flat", "dict"])
def test_every_action_and_observation_space(space, dictionary):
    policy = "MultiInputPolicy" if dictionary else "MlpPolicy"
    env = noise(action_space=space, dictionary=dictionary)
    model = MaxEntPPO(policy, env, entropy_reward="exact", tau="auto", **SMALL).learn(128)
    obs = env.reset()
    actions, _ = model.predict(obs)
    assert all(space.contains(space.dtype.type(action) if action.ndim == 0 else action) for action in actions)


def test_images():
    model = MaxEntPPO("CnnPolicy", FakeImageEnv(screen_height=40, screen_width=40, discrete=True), **SMALL).learn(64)
    assert model.rollout_buffer.observation.dtype == torch.uint8
    assert model.rollout_buffer.truncated.sum() == 3


@pytest.mark.parametrize("kwargs", [{"tau": 0}, {"tau": 0.1}, {"reward_augmentation": True}], ids=str)
def test_popart_follows_the_critics_that_are_trained(kwargs):
    model = MaxEntPPO("MlpPolicy", noise(), popart=True, **SMALL, **kwargs).learn(64)
    mean, std = model.policy.value_net.moments
    target = model.rollout_buffer.value_target
    torch.testing.assert_close(mean, target.mean())
    torch.testing.assert_close(std, target.std(unbiased=False))
    if kwargs.get("tau") == 0:
        assert model.policy.entropy_value_net.moments == (0.0, 1.0)
    if kwargs.get("tau") == 0.1:
        torch.testing.assert_close(
            model.policy.entropy_value_net.moments[0], model.rollout_buffer.entropy_value_target.mean()
        )


def test_without_temperature_popart_is_ppo_with_popart():
    kwargs = {"popart": True, "engine": "eager", **SMALL}
    with_head = MaxEntPPO("MlpPolicy", noise(), tau=0, **kwargs).learn(192).policy.state_dict()
    without = PPO("MlpPolicy", noise(), **kwargs).learn(192).policy.state_dict()
    for name, value in without.items():
        assert torch.equal(with_head[name], value), name
