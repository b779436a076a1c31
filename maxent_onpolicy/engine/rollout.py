"""Rollout collection: one loop for every environment and every on-policy algorithm."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.deferred import Deferred, StepEvaluation
from maxent_onpolicy.engine.episodes import raw_reward
from maxent_onpolicy.engine.finite import check_finite, check_parameters, is_finite, naming_divergence
from maxent_onpolicy.envs.tensor import Observation, is_tensor_vec_env, step_tensor, to_device

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm

# Actions, values and log-probabilities of one step.
ActResult = tuple[Tensor, Tensor | Deferred, Tensor | Deferred]
Act = Callable[[ActorCriticPolicy, Observation, int], ActResult]


def steps_on_tensors(env: VecEnv) -> bool:
    """Whether an environment's steps are tensors from the start, so that numpy would be a detour."""
    # Our VecNormalize offers tensors always, but around numpy environments on the CPU it works in numpy.
    return is_tensor_vec_env(env) and not getattr(env, "works_in_numpy", False)


def collect_rollout(
    self: "OnPolicyAlgorithm",
    env: VecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
    deferred: bool = False,
    acting: Act | None = None,
) -> bool:
    """Step ``env`` with the current policy until the buffer is full.

    Args:
        self: the algorithm; its counters and last observation advance. The local names are those of SB3's own loop,
            because callbacks read them through ``locals()``.
        env: ``B`` environments.
        callback: called after every step.
        rollout_buffer: is reset and filled.
        n_rollout_steps: ``T``.
        deferred: run the actor alone in every step, and evaluate all steps together at the end; callbacks that read
            ``values`` or ``log_probs`` get them still.
        acting: what chooses actions in place of :func:`act`.

    Returns:
        Whether the rollout is complete (a callback may stop it).

    Raises:
        NonFiniteError: on NaN or Inf in an observation, a reward or an action, naming the step and the environment.
    """
    begin_rollout(self, callback, rollout_buffer)
    return fill_rollout(self, env, callback, rollout_buffer, n_rollout_steps, deferred, acting)


def begin_rollout(self: "OnPolicyAlgorithm", callback: BaseCallback, rollout_buffer: RolloutBuffer) -> None:
    """Do what comes before the first step of :func:`collect_rollout`."""
    assert self._last_obs is not None
    # Evaluation mode: batch normalisation and dropout must not move while acting.
    self.policy.set_training_mode(False)
    rollout_buffer.reset()
    rollout_buffer.make_room_for(self._last_obs)
    # Before any noise is drawn: what a callback saves here continues exactly.
    callback.on_rollout_start()


def fill_rollout(
    self: "OnPolicyAlgorithm",
    env: VecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
    deferred: bool,
    acting: Act | None = None,
) -> bool:
    """Do what follows :func:`begin_rollout`; see :func:`collect_rollout`."""
    if self.use_sde:
        self.policy.reset_noise(noise_envs(rollout_buffer))
    loop = _collect_on_device if steps_on_tensors(env) else _collect_from_numpy
    chosen = with_noise_of_all(act_alone if deferred else acting or act, rollout_buffer)
    chosen = noting_players(chosen, env, rollout_buffer)
    if not loop(self, env, callback, rollout_buffer, n_rollout_steps, chosen):
        return False
    if deferred:
        evaluate_rollout(self.policy, rollout_buffer)
    return True


def _collect_from_numpy(
    self: "OnPolicyAlgorithm",
    env: VecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
    act: Act,
) -> bool:
    policy = self.policy
    n_steps = 0
    while n_steps < n_rollout_steps:
        if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
            policy.reset_noise(noise_envs(rollout_buffer))
        obs_tensor = to_device(self._last_obs, self.device)
        check_finite("observation", obs_tensor, self.num_timesteps)
        actions, values, log_probs = act(policy, obs_tensor, self.num_timesteps)
        check_finite("action", actions, self.num_timesteps)
        clipped_actions = to_environment(policy, self.action_space, actions.cpu().numpy())

        step = step_tensor(env, clipped_actions, self.device)
        check_finite("reward", step.reward, self.num_timesteps)
        new_obs = as_numpy(step.observation)
        rewards = step.reward.cpu().numpy()
        dones = (step.terminated | step.truncated).cpu().numpy()
        infos = step.infos
        self.num_timesteps += self.total_envs
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


def _collect_on_device(
    self: "OnPolicyAlgorithm",
    env: VecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
    act: Act,
) -> bool:
    """Collect without reading a tensor back: tests for NaN and the episodes' statistics wait for the rollout's end."""
    policy, device = self.policy, self.device
    obs_tensor, episode_starts = to_device(self._last_obs, device), torch.as_tensor(self._last_episode_starts)
    to_environment = tensor_action_map(policy, device)
    episodes = self.device_episodes
    start = self.num_timesteps
    n_steps = 0
    while n_steps < n_rollout_steps:
        if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
            policy.reset_noise(noise_envs(rollout_buffer))
        actions, values, log_probs = act(policy, obs_tensor, self.num_timesteps)
        clipped_actions = to_environment(actions)
        step = step_tensor(env, clipped_actions, device)
        done = step.terminated | step.truncated
        new_obs, rewards, dones = (
            as_deferred_numpy(step.observation),
            as_deferred_numpy(step.reward),
            as_deferred_numpy(done),
        )
        infos = step.infos
        self.num_timesteps += self.total_envs

        self._arrived_at = step.observation, done
        callback.update_locals(locals())
        if not callback.on_step():
            self._move_on()
            return False

        if step.final_index is None:
            episodes.add(raw_reward(env, step), done)
        else:
            self._update_info_buffer(infos, done.cpu().numpy())
        n_steps += 1
        rollout_buffer.add(obs_tensor, actions, values, log_probs, episode_starts, step)
        obs_tensor, episode_starts = step.observation, done
    self._move_on()
    check_rollout(policy, rollout_buffer, start)
    assert self.ep_info_buffer is not None
    episodes.report(self.ep_info_buffer)
    check_finite("observation", obs_tensor, self.num_timesteps)
    callback.update_locals(locals())
    return True


@contextmanager
def sampling(policy: ActorCriticPolicy, num_timesteps: int) -> Iterator[None]:
    """Run the networks without gradients; parameters that have diverged raise a ``NonFiniteError``."""
    where = f"action of environment 0 cannot be sampled at step {num_timesteps}"
    with torch.no_grad(), naming_divergence(policy, where):
        yield


def act(policy: ActorCriticPolicy, observation: Observation, num_timesteps: int) -> ActResult:
    """Return sampled actions ``[B, ...]``, values ``[B, 1]`` and log-probabilities ``[B]``, without gradients.

    Raises:
        NonFiniteError: if the policy's parameters have diverged.
    """
    with sampling(policy, num_timesteps):
        actions, values, log_probs = policy(observation)
    return actions, values, log_probs


def act_alone(policy: ActorCriticPolicy, observation: Observation, num_timesteps: int) -> ActResult:
    """Return what :func:`act` does, with values and log-probabilities that are computed only if they are used."""
    with sampling(policy, num_timesteps):
        actions = policy.get_distribution(observation).get_actions()
    actions = actions.reshape((-1, *policy.action_space.shape))  # type: ignore[misc]
    evaluation = StepEvaluation(policy, observation, actions)
    return actions, Deferred(evaluation.values), Deferred(evaluation.log_probs)


def noise_envs(buffer: RolloutBuffer) -> int:
    """Return for how many environments noise is drawn in every step."""
    return buffer.n_envs if buffer.noise_rows is None else buffer.noise_rows.total


def with_noise_of_all(act: Act, buffer: RolloutBuffer) -> Act:
    """Return ``act``, drawing its noise for the environments of all processes where the buffer says so.

    The policy draws it itself, so it is shown rows of zeros in place of what the other processes see.
    """
    rows = buffer.noise_rows
    if rows is None:
        return act
    own, total = slice(rows.first, rows.first + buffer.n_envs), rows.total

    def among_others(observation: Tensor) -> Tensor:
        padded = observation.new_zeros((total, *observation.shape[1:]))
        padded[own] = observation
        return padded

    def act_for_all(policy: ActorCriticPolicy, observation: Observation, num_timesteps: int) -> ActResult:
        padded = (
            {key: among_others(value) for key, value in observation.items()}
            if isinstance(observation, dict)
            else among_others(observation)
        )
        actions, values, log_probs = act(policy, padded, num_timesteps)
        return actions[own], values[own], log_probs[own]  # type: ignore[index]

    return act_for_all


def takes_turns(env: VecEnv | None) -> bool:
    """Whether two players of a zero-sum game take turns in an environment, which then says whose it is.

    Its ``acting_player``, ``[B]`` integers, is 0 or 1 for the player who acts next; rewards are those of player 0.
    """
    return getattr(env, "acting_player", None) is not None


def noting_players(act: Act, env: VecEnv, buffer: RolloutBuffer) -> Act:
    """Return ``act``, writing down who acts; without players that take turns, as it is."""
    if not takes_turns(env):
        return act

    def act_and_note(policy: ActorCriticPolicy, observation: Observation, num_timesteps: int) -> ActResult:
        buffer.note_players(env.acting_player)  # type: ignore[attr-defined]
        return act(policy, observation, num_timesteps)

    return act_and_note


@torch.no_grad()
def evaluate_rollout(policy: ActorCriticPolicy, buffer: RolloutBuffer) -> None:
    """Fill in the values and log-probabilities of a rollout that was collected by the actor alone."""
    action = buffer.action.flatten(0, 1)
    parts = [policy.evaluate_actions(part, action[rows])[:2] for rows, part in buffer.chunks()]
    buffer.value = torch.cat([value.flatten() for value, _ in parts]).reshape(buffer.value.shape)
    buffer.log_prob = torch.cat([log_prob for _, log_prob in parts]).reshape(buffer.log_prob.shape)


def check_rollout(policy: ActorCriticPolicy, buffer: RolloutBuffer, num_timesteps: int) -> None:
    """Look for NaN and Inf in a whole rollout, in one pass.

    Args:
        policy: that acted.
        buffer: a complete rollout.
        num_timesteps: environment steps taken before it.

    Raises:
        NonFiniteError: naming the environment, the step and the first bad value, of the first bad step.
    """
    fields = {"observation": buffer.observation, "action": buffer.action, "reward": buffer.reward}
    if all(is_finite(value) for value in fields.values()):
        return
    for step in range(buffer.buffer_size):
        for what, value in fields.items():
            part = {key: each[step] for key, each in value.items()} if isinstance(value, dict) else value[step]
            if what == "action" and not is_finite(part):
                check_parameters(policy, f"action of environment 0 cannot be sampled at step {num_timesteps}")
            check_finite(what, part, num_timesteps + step * buffer.n_envs)


def to_environment(policy: ActorCriticPolicy, action_space: spaces.Space, actions: np.ndarray) -> np.ndarray:
    """Return the actions ``[B, ...]`` in the environment's units: rescaled if the policy squashes, else clipped."""
    if not isinstance(action_space, spaces.Box):
        return actions
    if policy.squash_output:
        return policy.unscale_action(actions)
    return np.clip(actions, action_space.low, action_space.high)


def tensor_action_map(policy: ActorCriticPolicy, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return :func:`to_environment` as a function of tensors ``[N, ...]``, with the bounds on the device."""
    space = policy.action_space
    if not isinstance(space, spaces.Box):
        return lambda actions: actions
    low, high = (torch.as_tensor(bound, device=device) for bound in (space.low, space.high))
    if policy.squash_output:
        return lambda actions: low + 0.5 * (actions + 1.0) * (high - low)
    return lambda actions: torch.minimum(torch.maximum(actions, low), high)


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


def as_deferred_numpy(value: Observation) -> Any:
    """Return numpy arrays that are copied from the device only if they are used."""
    if isinstance(value, dict):
        return {key: as_deferred_numpy(part) for key, part in value.items()}
    return Deferred(lambda: value.cpu().numpy())


def as_numpy(observation: Observation) -> Any:
    """Return a numpy view (a copy if the tensors are on another device)."""
    if isinstance(observation, dict):
        return {key: value.cpu().numpy() for key, value in observation.items()}
    return observation.cpu().numpy()
