"""Collection for soft actor-critic where environments step on tensors: transitions never leave the device."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq
from stable_baselines3.common.utils import should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.finite import check_finite
from maxent_onpolicy.engine.replay import ReplayBuffer
from maxent_onpolicy.engine.rollout import as_deferred_numpy, tensor_action_map
from maxent_onpolicy.engine.soft.model import SoftModel
from maxent_onpolicy.envs.tensor import TensorStep, step_tensor

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.sac import SAC


def collect_on_device(
    self: "SAC",
    model: SoftModel,
    env: VecEnv,
    callback: BaseCallback,
    train_freq: TrainFreq,
    replay_buffer: ReplayBuffer,
    action_noise: ActionNoise | None,
    learning_starts: int,
    log_interval: int | None,
) -> RolloutReturn:
    """Collect as SB3's ``collect_rollouts`` does, with the same random numbers.

    Observations, actions and rewards go into the buffer as tensors. One copy a step is read back: which episodes
    ended, and whether all numbers are finite. Actions before ``learning_starts`` and ``action_noise`` are drawn by
    numpy.

    Args:
        self: the algorithm; its counters and last observation advance. The local names are those of SB3's own loop,
            because callbacks read them through ``locals()``. Arrays among them are copied when they are used.
        model: acts.
        env: ``B`` environments.
        callback: called after every step.
        train_freq: how much to collect.
        replay_buffer: where it goes.
        action_noise: added to actions.
        learning_starts: environment steps with random actions.
        log_interval: episodes between two rows of the log.

    Raises:
        NonFiniteError: on NaN or Inf in a reward or an action, naming the step and the environment.
    """
    self.policy.set_training_mode(False)
    device = self.device
    num_collected_steps, num_collected_episodes, continue_training = 0, 0, True
    callback.on_rollout_start()
    observation = torch.as_tensor(self._last_obs, device=device)
    while should_collect_more_steps(train_freq, num_collected_steps, num_collected_episodes):
        action, scaled = _choose(self, model, observation, action_noise, learning_starts)
        step = step_tensor(env, action, device)
        done = step.terminated | step.truncated
        dones = _read_back(self, observation, scaled, step, done)
        actions, buffer_actions, new_obs, rewards = (
            as_deferred_numpy(each) for each in (action, scaled, step.observation, step.reward)
        )
        infos = step.infos
        self.num_timesteps += env.num_envs
        num_collected_steps += 1

        callback.update_locals(locals())
        if not callback.on_step():
            return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, continue_training=False)

        _count_episodes(self, step, done, dones)
        replay_buffer.add_step(observation, scaled, step)
        self._last_obs = observation = step.observation  # type: ignore[assignment]
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        self._on_step()
        num_collected_episodes += _end_episodes(self, dones, action_noise, log_interval)
    callback.on_rollout_end()
    return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, continue_training)


def _choose(
    algorithm: "SAC", model: SoftModel, observation: Tensor, noise: ActionNoise | None, learning_starts: int
) -> tuple[Tensor, Tensor]:
    """Return actions ``[B, A]`` in the environment's units, and in ``[-1, 1]``."""
    device, count = algorithm.device, len(observation)
    if algorithm.num_timesteps < learning_starts:
        sampled = algorithm._sample_action(learning_starts, noise, count)
        action, scaled = (torch.as_tensor(each, device=device) for each in sampled)
        return action, scaled
    scaled = model.act(observation).clone().reshape(-1, *algorithm.action_space.shape)  # type: ignore[misc]
    if noise is not None:
        # In numpy's precision, as SB3 adds it.
        scaled = (scaled + torch.as_tensor(noise(), device=device)).clamp(-1, 1)
    return tensor_action_map(algorithm.policy, device)(scaled), scaled  # type: ignore[arg-type]


def _read_back(algorithm: "SAC", observation: Tensor, action: Tensor, step: TensorStep, done: Tensor) -> np.ndarray:
    """Return where episodes ended, ``[B]``, and look for NaN and Inf, in one copy from the device."""
    finite = step.reward.isfinite().all() & action.isfinite().all()
    flags = torch.cat([done, finite.reshape(1)]).cpu().numpy()
    if not flags[-1]:
        for what, value in (("observation", observation), ("action", action), ("reward", step.reward)):
            check_finite(what, value, algorithm.num_timesteps)
    return flags[:-1]


def _count_episodes(algorithm: "SAC", step: TensorStep, done: Tensor, dones: np.ndarray) -> None:
    """Do what ``Monitor`` does in SB3's loop."""
    if step.final_index is not None:
        algorithm._update_info_buffer(step.infos, dones)
        return
    episodes = algorithm.device_episodes
    episodes.add(step.reward, done)
    if dones.any():
        assert algorithm.ep_info_buffer is not None
        episodes.report(algorithm.ep_info_buffer)


def _end_episodes(
    algorithm: "SAC", dones: np.ndarray, action_noise: ActionNoise | None, log_interval: int | None
) -> int:
    """Do what SB3's loop does where episodes ended; return how many did."""
    ended = dones.nonzero()[0].tolist()
    for index in ended:
        algorithm._episode_num += 1
        if action_noise is not None:
            action_noise.reset(**({"indices": [index]} if len(dones) > 1 else {}))
        if log_interval is not None and algorithm._episode_num % log_interval == 0:
            algorithm.dump_logs()
    return len(ended)
