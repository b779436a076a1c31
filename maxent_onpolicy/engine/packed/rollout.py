"""Rollout collection with the packed actor: only the actor runs, in numpy, and nothing is copied twice."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.deferred import Deferred, StepEvaluation
from maxent_onpolicy.engine.finite import array_is_finite, check_finite, check_parameters
from maxent_onpolicy.engine.listeners import listens, tell_of_rollout
from maxent_onpolicy.engine.packed.model import PackedModel
from maxent_onpolicy.engine.packed.sampling import make_sampler
from maxent_onpolicy.engine.rollout import begin_rollout
from maxent_onpolicy.envs.tensor import from_numpy_step

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm


def collect_packed(
    self: "OnPolicyAlgorithm",
    env: VecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
    model: PackedModel,
) -> bool:
    """Step numpy environments until the buffer is full, as ``engine.rollout.collect_rollout`` does.

    ``values`` and ``log_probs`` of a step are computed only if a callback reads them;
    the buffer's are filled by the caller, all steps at once.

    Args:
        self: the algorithm; the local names are those of SB3's own loop, because callbacks read them.
        env: ``B`` environments.
        callback: called after every step.
        rollout_buffer: is reset and filled, but for ``value`` and ``log_prob``.
        n_rollout_steps: ``T``.
        model: the policy's networks.

    Returns:
        Whether the rollout is complete (a callback may stop it). Infinite observations and rewards are for the caller
        to find.

    Raises:
        NonFiniteError: on NaN in an observation or an action, naming the step and the environment.
    """
    policy = self.policy
    begin_rollout(self, callback, rollout_buffer)
    n_envs, total_envs = env.num_envs, self.total_envs
    actor = model.actor(n_envs)
    sampler = make_sampler(policy, n_rollout_steps, n_envs, rollout_buffer.noise_rows)
    to_environment = action_map(policy, self.action_space)
    assert isinstance(rollout_buffer.observation, Tensor)
    obs_tensors = rollout_buffer.observation.unbind()
    stored_obs = rollout_buffer.observation.numpy()
    flat_obs = stored_obs.reshape(n_rollout_steps, n_envs, -1)
    stored_actions = rollout_buffer.action.numpy()
    stored_rewards = rollout_buffer.reward.numpy()
    stored_starts = rollout_buffer.episode_start.numpy()

    # Telling a callback of every step costs more than sampling the actions.
    somebody_listens = listens(callback)
    n_steps = 0
    while n_steps < n_rollout_steps:
        stored_obs[n_steps] = self._last_obs
        obs = flat_obs[n_steps]
        parameters = actor(obs)
        if not array_is_finite(parameters):
            check_finite("observation", torch.from_numpy(obs), self.num_timesteps)
            check_parameters(policy, f"action of environment 0 cannot be sampled at step {self.num_timesteps}")
            check_finite("action", torch.from_numpy(parameters.T), self.num_timesteps)
        actions = stored_actions[n_steps]
        sampler.sample(parameters, n_steps, actions)
        clipped_actions = to_environment(actions)
        new_obs, rewards, dones, infos = env.step(clipped_actions)
        self.num_timesteps += total_envs

        self._arrived_at = new_obs, dones
        if somebody_listens:
            obs_tensor = obs_tensors[n_steps]
            evaluation = StepEvaluation(policy, obs_tensor, actions)
            values, log_probs = Deferred(evaluation.values), Deferred(evaluation.log_probs)
            callback.update_locals(locals())
            if not callback.on_step():
                self._move_on()
                return False

        if np.count_nonzero(dones):
            ended = np.flatnonzero(dones)  # only their infos are built
            self._update_info_buffer([infos[index] for index in ended], dones[ended])
            step = from_numpy_step(new_obs, rewards, dones, infos, "cpu")
            if step.final_observation is not None:
                check_finite("final observation", step.final_observation, self.num_timesteps, step.final_index)
            rollout_buffer.add_ends(n_steps, step)
        stored_rewards[n_steps] = rewards
        stored_starts[n_steps] = self._last_episode_starts
        n_steps += 1
        self._move_on()
    rollout_buffer.pos = n_steps
    check_finite("observation", self._last_observation(), self.num_timesteps)
    if somebody_listens:
        callback.update_locals(locals())
    else:
        obs_tensor = obs_tensors[-1]
        evaluation = StepEvaluation(policy, obs_tensor, stored_actions[-1])
        values, log_probs = Deferred(evaluation.values), Deferred(evaluation.log_probs)
        tell_of_rollout(callback, n_steps, locals())
    return True


def action_map(policy: ActorCriticPolicy, space: spaces.Space) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from stored actions ``[B, A]`` to new arrays in the environment's units and shape."""
    if isinstance(space, spaces.Box):
        shape, low, high = (-1, *space.shape), space.low, space.high
        minimum, maximum = np.minimum, np.maximum
        if policy.squash_output:
            return lambda actions: policy.unscale_action(actions.reshape(shape))
        if len(space.shape) != 1:
            return lambda actions: np.minimum(np.maximum(actions.reshape(shape), low), high)
        return lambda actions: minimum(maximum(actions, low), high)
    if isinstance(space, spaces.MultiDiscrete):
        return lambda actions: actions.astype(np.int64)
    return np.copy
