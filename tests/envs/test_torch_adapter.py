"""Simulators that speak PyTorch, in the styles of Isaac Lab, ManiSkill and Gymnasium."""

import warnings
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from maxent_onpolicy import PPO
from maxent_onpolicy.envs import VecNormalize
from maxent_onpolicy.envs.state import StateNotRestorableError, get_env_state
from maxent_onpolicy.envs.torch_adapter import TorchEnvAdapter
from maxent_onpolicy.envs.torch_native import TorchCartPole, TorchPendulum

B = 6


class Simulator:
    """A native environment behind the interface of Gymnasium's vector environments; reuses its tensors."""

    def __init__(self, cls=TorchPendulum, **options):
        self.inner = cls(B, device="cpu", seed=0, **options)
        self.num_envs, self.device = B, "cpu"
        self.single_observation_space = self.inner.observation_space
        self.single_action_space = self.inner.action_space
        self.buffers = None
        self.seeds = []
        self.closed = False

    def reset(self, seed=None):
        self.seeds.append(seed)
        if seed is not None:
            self.inner.seed(seed)
        return self.dress(self.inner.reset_tensor()), {}

    def step(self, actions):
        step = self.inner.step_tensor(actions)
        fresh = [step.observation, step.reward, step.terminated, step.truncated]
        if self.buffers is None:
            self.buffers = [value.clone() for value in fresh]
        for buffer, value in zip(self.buffers, fresh, strict=True):
            buffer.copy_(value)
        observation, reward, terminated, truncated = self.buffers
        return self.dress(observation), reward, terminated, truncated, self.info(step)

    def dress(self, observation):
        return observation

    def info(self, step):
        return {}

    def close(self):
        self.closed = True


class IsaacLabStyle(Simulator):
    """Groups of observations; no final ones; actions without bounds."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.unwrapped = SimpleNamespace(
            single_observation_space={"policy": self.single_observation_space, "critic": self.single_observation_space},
            single_action_space=spaces.Box(-np.inf, np.inf, (1,), np.float32),
        )
        del self.single_observation_space, self.single_action_space

    def dress(self, observation):
        return {"policy": observation, "critic": observation * 0}

    def info(self, step):
        return {"log": {}, "time_outs": step.truncated}


class ManiSkillStyle(Simulator):
    """Final observations for every environment, in the steps in which an episode ended."""

    def info(self, step):
        done = step.terminated | step.truncated
        return {"final_observation": step.final_observation, "_final_observation": done} if done.any() else {}


class GymnasiumStyle(Simulator):
    metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}  # noqa: RUF012

    def info(self, step):
        return {"final_obs": step.final_observation}


@pytest.mark.parametrize("style", [ManiSkillStyle, GymnasiumStyle])
@pytest.mark.parametrize("cls", [TorchPendulum, TorchCartPole])
def test_steps_are_those_of_the_simulator(style, cls):
    options = {"max_episode_steps": 15}
    adapter, expected = TorchEnvAdapter(style(cls=cls, **options)), cls(B, device="cpu", seed=0, **options)
    torch.testing.assert_close(adapter.reset_tensor(), expected.reset_tensor(), rtol=0, atol=0)
    steps, truncations = [], 0
    for index in range(40):
        actions = torch.ones(B, 1) if cls is TorchPendulum else (torch.arange(B) % 5 + index) % 2
        steps.append((adapter.step_tensor(actions), expected.step_tensor(actions)))
    for step, right in steps:  # afterwards: the simulator has long since reused its tensors
        for name in ("observation", "reward", "terminated", "truncated"):
            torch.testing.assert_close(getattr(step, name), getattr(right, name), rtol=0, atol=0)
        rows = right.truncated
        truncations += int(rows.sum())
        torch.testing.assert_close(step.final_observation[rows], right.final_observation[rows], rtol=0, atol=0)
        assert step.final_index is None
        assert not any(step.infos)
    assert truncations >= 2


def test_without_final_observations_the_one_before_the_last_step_stands_in():
    adapter = TorchEnvAdapter(IsaacLabStyle(max_episode_steps=10))
    observations = [adapter.reset_tensor()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for index in range(200):
            step = adapter.step_tensor(torch.ones(B, 1))
            assert step.truncated.all() == (index % 10 == 9)
            if step.truncated.any():
                torch.testing.assert_close(step.final_observation, observations[-1], rtol=0, atol=0)
            observations.append(step.observation)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 1
    assert "IsaacLabStyle reports no final observations" in messages[0]


def test_numpy_infos_hold_only_final_observations_that_are_known():
    known = TorchEnvAdapter(ManiSkillStyle(cls=TorchCartPole, max_episode_steps=9))
    unknown = TorchEnvAdapter(Simulator(cls=TorchCartPole, max_episode_steps=9))
    for adapter in (known, unknown):
        adapter.reset()
        kinds = set()
        for _ in range(40):
            _, _, done, infos = adapter.step(np.ones(B, int))
            for index in np.flatnonzero(done):
                kinds.add((infos[index]["TimeLimit.truncated"], "terminal_observation" in infos[index]))
                assert infos[index]["episode"]["l"] <= 9
        assert kinds == {(True, True), (False, adapter is known)}


def test_a_termination_in_the_step_of_the_time_limit_is_no_truncation():
    class Both(Simulator):
        def step(self, actions):
            observation, reward, _, _, info = super().step(actions)
            return observation, reward[:, None], torch.ones(B, 1), torch.ones(B, dtype=torch.uint8), info

    adapter = TorchEnvAdapter(Both())
    adapter.reset_tensor()
    step = adapter.step_tensor(torch.zeros(B, 1))
    assert step.terminated.tolist() == [True] * B
    assert step.truncated.tolist() == [False] * B
    assert step.reward.shape == (B,)


def test_spaces_and_keys():
    policy = TorchEnvAdapter(IsaacLabStyle())
    assert policy.observation_space.shape == (3,)
    assert policy.action_space == spaces.Box(-100, 100, (1,), np.float32)
    assert TorchEnvAdapter(IsaacLabStyle(), action_bound=2.0).action_space.high.tolist() == [2.0]
    critic = TorchEnvAdapter(IsaacLabStyle(), observation_key="critic")
    assert not critic.reset_tensor().any()
    whole = IsaacLabStyle()
    whole.unwrapped.single_observation_space["state"] = whole.unwrapped.single_observation_space.pop("policy")
    whole.dress = lambda observation: {"state": observation, "critic": observation}
    adapter = TorchEnvAdapter(whole)
    assert set(adapter.observation_space.spaces) == set(adapter.reset_tensor()) == {"state", "critic"}
    assert set(adapter.step_tensor(torch.zeros(B, 1)).final_observation) == {"state", "critic"}


def test_seeds_and_close_reach_the_simulator():
    simulator = Simulator()
    adapter = TorchEnvAdapter(simulator)
    adapter.seed(7)
    adapter.reset(), adapter.reset()
    adapter.close()
    assert simulator.seeds == [7, None]
    assert simulator.closed


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="`observation_key` must be one of 'policy', 'critic'; got 'polic'"):
        TorchEnvAdapter(IsaacLabStyle(), observation_key="polic")
    with pytest.raises(ValueError, match="has no attribute 'num_envs'"):
        TorchEnvAdapter(object())
    late = Simulator()
    late.metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}
    with pytest.raises(ValueError, match="must reset itself within the last step"):
        TorchEnvAdapter(late)
    few = Simulator()
    few.info = lambda step: {"final_observation": step.observation[:2]}
    adapter = TorchEnvAdapter(few)
    with pytest.raises(RuntimeError, match="reset"):
        adapter.step_tensor(torch.zeros(B, 1))
    adapter.reset()
    with pytest.raises(ValueError, match=r"a row for each of 6 environments, got shape \(2, 3\)"):
        adapter.step_tensor(torch.zeros(B, 1))
    with pytest.raises(StateNotRestorableError, match="TorchEnvAdapter"):
        get_env_state(adapter)


@pytest.mark.filterwarnings("ignore:IsaacLabStyle reports no final observations")
@pytest.mark.parametrize("style", [IsaacLabStyle, ManiSkillStyle])
def test_ppo_trains_on_adapted_simulators(style):
    vec_env = VecNormalize(TorchEnvAdapter(style(max_episode_steps=20)), device="cpu")
    model = PPO("MlpPolicy", vec_env, n_steps=32, batch_size=64, n_epochs=2, device="cpu")
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(B * 64)
    assert model.num_timesteps == B * 64
    changed = [not torch.equal(old, new) for old, new in zip(before, model.policy.parameters(), strict=True)]
    assert all(changed)
