"""Rollout collection: one loop for every environment and every on-policy algorithm."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.finite import check_finite, naming_divergence
from maxent_onpolicy.envs.tensor import Observation, step_tensor, to_device

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm


def collect_rollout(
    self: "OnPolicyAlgorithm", env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
) -> bool:
    """Step ``env`` with the current policy until the buffer is full.

    Args:
        self: the algorithm; its counters and last observation advance. The local names are those of SB3's own loop,
            because callbacks read them through ``locals()``.
        env: ``B`` environments.
        callback: called after every step.
        rollout_buffer: is reset and filled.
        n_rollout_steps: ``T``.

    Returns:
        Whether the rollout is complete (a callback may stop it).

    Raises:
        NonFiniteError: on NaN or Inf in an observation, a reward or an action, naming the step and the environment.
    """
    assert self._last_obs is not None
    policy = self.policy
    # Evaluation mode: batch normalisation and dropout must not move while acting.
    policy.set_training_mode(False)
    rollout_buffer.reset()
    # Before the noise matrices are drawn: what a callback saves here continues exactly.
    callback.on_rollout_start()
    if self.use_sde:
        policy.reset_noise(env.num_envs)

    n_steps = 0
    while n_steps < n_rollout_steps:
        if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
            policy.reset_noise(env.num_envs)
        obs_tensor = to_device(self._last_obs, self.device)
        check_finite("observation", obs_tensor, self.num_timesteps)
        actions, values, log_probs = act(policy, obs_tensor, self.num_timesteps)
        clipped_actions = to_environment(policy, self.action_space, actions.cpu().numpy())

        step = step_tensor(env, clipped_actions, self.device)
        check_finite("reward", step.reward, self.num_timesteps)
        new_obs = as_numpy(step.observation)
        rewards = step.reward.cpu().numpy()
        dones = (step.terminated | step.truncated).cpu().numpy()
        infos = step.infos
        self.num_timesteps += env.num_envs
        if step.final_observation is not None:
            check_finite("final observation", step.final_observation, self.num_timesteps, step.final_index)

        # The environments are already there when a callback saves or stops; SB3 would act on the step before.
        self._arrived_at = new_obs, dones
        callback.update_locals(locals())
        if not callback.on_step():
            self._move_on()
            return False

        self._update_info_buffer(infos, dones)
        n_steps += 1
        rollout_buffer.add(obs_tensor, actions, values, log_probs, self._last_episode_starts, step)
        self._move_on()
    # The successor of the last step: no action is chosen from it in this rollout, but its value counts.
    check_finite("observation", to_device(self._last_obs, self.device), self.num_timesteps)
    callback.update_locals(locals())
    return True


def act(policy: ActorCriticPolicy, observation: Observation, num_timesteps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return sampled actions ``[B, ...]``, values ``[B, 1]`` and log-probabilities ``[B]``, without gradients.

    Raises:
        NonFiniteError: if the policy's parameters have diverged.
    """
    where = f"action of environment 0 cannot be sampled at step {num_timesteps}"
    with torch.no_grad(), naming_divergence(policy, where):
        actions, values, log_probs = policy(observation)
    check_finite("action", actions, num_timesteps)
    return actions, values, log_probs


def to_environment(policy: ActorCriticPolicy, action_space: spaces.Space, actions: np.ndarray) -> np.ndarray:
    """Return the actions ``[B, ...]`` in the environment's units: rescaled if the policy squashes, else clipped."""
    if not isinstance(action_space, spaces.Box):
        return actions
    if policy.squash_output:
        return policy.unscale_action(actions)
    return np.clip(actions, action_space.low, action_space.high)


def clipped_fraction(policy: ActorCriticPolicy, action_space: spaces.Space, action: Tensor) -> float:
    """Return the fraction of action components outside the bounds, which the environment never sees as sampled.

    Args:
        policy: whether it squashes decides whether anything can be clipped.
        action_space: the environment's.
        action: ``[T, B, A]`` as sampled.
    """
    if not isinstance(action_space, spaces.Box) or policy.squash_output:
        return 0.0
    low = torch.as_tensor(action_space.low, device=action.device).flatten()
    high = torch.as_tensor(action_space.high, device=action.device).flatten()
    return ((action < low) | (action > high)).float().mean().item()


def as_numpy(observation: Observation) -> Any:
    """Return a numpy view (a copy if the tensors are on another device)."""
    if isinstance(observation, dict):
        return {key: value.cpu().numpy() for key, value in observation.items()}
    return observation.cpu().numpy()
