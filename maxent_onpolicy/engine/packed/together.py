"""Rollouts of several models in one loop, where their environments live on tensors.

A step on a device costs the launches of its kernels, hardly their work. Here the
actors of all models are one batched product a layer, and their environments one
batch of rows; only random numbers are drawn model by model, each from its own
generator. Every model is left as its own loop would leave it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.deferred import Deferred
from maxent_onpolicy.engine.episodes import DeviceEpisodes
from maxent_onpolicy.engine.finite import NonFiniteError, check_finite, check_parameters, is_finite
from maxent_onpolicy.engine.listeners import listens
from maxent_onpolicy.engine.lockstep import Member
from maxent_onpolicy.engine.packed.model import PackedModel, model_kind
from maxent_onpolicy.engine.packed.stacked_actors import StackedActors
from maxent_onpolicy.engine.packed.stacked_evaluation import evaluate_together
from maxent_onpolicy.engine.rollout import tensor_action_map
from maxent_onpolicy.envs.tensor import to_device
from maxent_onpolicy.envs.torch_vec_env import DeviceVecEnv, EnvStack

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm

logger = logging.getLogger(__name__)


def why_not_together(env: VecEnv, callback: BaseCallback, buffer: RolloutBuffer, model: PackedModel) -> str | None:
    """Return why a model's rollout must be collected by itself, or ``None``."""
    if not isinstance(env, DeviceVecEnv) or env.stack_kind() is None:
        return f"{type(env).__name__} cannot be stacked"
    try:
        hash(env.stack_kind())
    except TypeError as error:
        return f"what {type(env).__name__} says of its settings: {error}"
    if torch.empty(0, device=env.device).device != model.device:
        return f"environments on {env.device}, networks on {model.device}"
    if listens(callback):
        return "a callback that is called after every step"
    return None if buffer.noise_rows is None else "noise that is drawn for other processes too"


@dataclass(frozen=True, eq=False)
class RolloutRequest:
    """A rollout of one model, whose buffer is empty and whose callbacks know that it starts.

    Attributes:
        algorithm: whose policy acts.
        model: its networks.
        env: its environments.
        buffer: is filled, but for values and log-probabilities.
        member: whose random state is advanced.
    """

    algorithm: "OnPolicyAlgorithm"
    model: PackedModel
    env: DeviceVecEnv
    buffer: RolloutBuffer
    member: Member

    def kind(self) -> tuple[Any, ...]:
        """Return what models must share to be stacked."""
        return (model_kind(self.model), self.env.stack_kind(), self.buffer.buffer_size)


class _Step(NamedTuple):
    """What is kept of a step, ``[S·B, ...]`` each."""

    observation: Tensor
    parameters: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    done: Tensor
    final_observation: Tensor | None


class CollectAlone:
    """The reply to those whose common loop failed: nothing has changed, and each may try by itself."""


# What is wrong with a rollout's numbers; or its log-probabilities and values; or ``None``: these are to be computed.
Outcome = NonFiniteError | dict[str, Tensor] | CollectAlone | None


def collect_all(requests: Sequence[RolloutRequest]) -> list[Outcome]:
    """Collect the rollouts of all who have met; those of one kind at once."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(request.kind(), []).append(index)
    outcomes: list[Outcome] = [None] * len(requests)
    for indices in groups.values():
        loop = _Loop([requests[index] for index in indices])
        for index, outcome in zip(indices, loop.run(), strict=True):
            outcomes[index] = outcome
    return outcomes


def evaluates_together(device: torch.device) -> bool:
    """Whether the rollouts of all models are evaluated at once.

    On a CPU that saves next to nothing, and each policy's own modules give the same numbers to the last bit.
    """
    return device.type != "cpu"


class _Loop:
    """One rollout of ``S`` models of one kind, with ``B`` environments each.

    Args:
        requests: theirs.
    """

    def __init__(self, requests: Sequence[RolloutRequest]) -> None:
        self._requests = requests
        self._device = requests[0].model.device
        self._policy = requests[0].model.policy
        self._n_envs = requests[0].env.num_envs

    @torch.no_grad()
    def run(self) -> list[Outcome]:
        """Make all steps and hand over what came of them."""
        requests = self._requests
        models = [request.model for request in requests]
        generators = [request.member.random.generator(self._device) for request in requests]
        envs = [request.env for request in requests]
        counters = [request.algorithm.device_episodes for request in requests]
        try:
            actors = StackedActors(models, generators)
            stack = type(envs[0]).stack(envs)
            episodes = DeviceEpisodes.together(counters)
            steps, last = self._steps(actors, stack, episodes)
        except Exception as error:
            # It may be the fault of one, which must not hurt the others.
            logger.warning(
                f"{len(requests)} models collect a rollout one after the other; together it failed: {error!r}"
            )
            return [CollectAlone()] * len(requests)
        stack.put_back()
        episodes.hand_back(counters)
        for request, generator in zip(requests, generators, strict=True):
            request.member.random.advance(generator)
        errors = self._hand_over(steps, last, actors.std(steps.parameters))
        if not evaluates_together(self._device):
            return list(errors)
        values = evaluate_together(models, steps.observation, steps.action)
        return [value if error is None else error for value, error in zip(values, errors, strict=True)]

    def _steps(self, actors: StackedActors, stack: EnvStack, episodes: DeviceEpisodes) -> tuple[_Step, Tensor]:
        """Make all steps; return them, ``[T, S·B, ...]``, and the observation after them."""
        to_environment = tensor_action_map(self._policy, self._device)
        observation = torch.cat([_last_observation(request.algorithm, self._device) for request in self._requests])
        steps: list[_Step] = []
        for _ in range(self._requests[0].buffer.buffer_size):
            parameters = actors.parameters(observation)
            actions = actors.sample(parameters)
            step = stack.step_tensor(to_environment(actions))
            done = step.terminated | step.truncated
            episodes.add(step.reward, done)
            assert not isinstance(step.final_observation, dict)
            ends = (step.terminated, step.truncated, done, step.final_observation)
            steps.append(_Step(observation, parameters.flatten(0, 1), actions, step.reward, *ends))
            assert isinstance(step.observation, Tensor)
            observation = step.observation
        fields: list[Any] = [None if field[0] is None else torch.stack(field) for field in zip(*steps, strict=True)]
        return _Step(*fields), observation

    def _hand_over(self, steps: _Step, last: Tensor, std: Tensor | None) -> list[NonFiniteError | None]:
        """Fill the buffers with steps ``[T, S·B, ...]``, move the models on and look for what is not finite.

        Args:
            steps: of all.
            last: the observation ``[S·B, ...]`` after them.
            std: standard deviations, ``[T, S·B, A]`` or ``[1, S, A]``, or ``None``.
        """
        parts = [_columns(steps, rows) for rows in self._rows()]
        finite = self._finite(steps, last, std)
        errors: list[NonFiniteError | None] = []
        for index, (request, part, rows) in enumerate(zip(self._requests, parts, self._rows(), strict=True)):
            algorithm = request.algorithm
            first = torch.as_tensor(algorithm._last_episode_starts, device=self._device).bool()
            fields = {name: getattr(part, name) for name in ("observation", "action", "reward")}
            fields |= {"terminated": part.terminated, "truncated": part.truncated}
            fields["episode_start"] = torch.cat([first.unsqueeze(0), part.done[:-1]])
            request.buffer.fill(fields, part.final_observation)
            before = algorithm.num_timesteps
            algorithm.num_timesteps += len(part.reward) * algorithm.total_envs
            algorithm._arrived_at = last[rows].clone(), part.done[-1].clone()
            algorithm._move_on()
            errors.append(None if finite[index] else _error_of(algorithm, part, last[rows], before))
        return errors

    def _rows(self) -> list[slice]:
        return [slice(first * self._n_envs, (first + 1) * self._n_envs) for first in range(len(self._requests))]

    def _finite(self, steps: _Step, last: Tensor, std: Tensor | None) -> list[bool]:
        """Return for each model whether all of its numbers are finite; the only wait for the device."""
        count = len(self._requests)
        values = [steps.observation, steps.parameters, steps.action, steps.reward, last.unsqueeze(0)]
        good = [each.isfinite() for each in values if each.is_floating_point()]
        if std is not None:
            good.append(std.isfinite() & (std > 0))
        flags = [each.reshape(len(each), count, -1).all(dim=2).all(dim=0) for each in good]
        finite: list[bool] = torch.stack(flags).all(dim=0).tolist()
        return finite


def _columns(steps: _Step, rows: slice) -> _Step:
    fields: list[Any] = [None if field is None else field[:, rows] for field in steps]
    return _Step(*fields)


def _last_observation(algorithm: "OnPolicyAlgorithm", device: torch.device) -> Tensor:
    observation = to_device(algorithm._last_obs, device)
    assert isinstance(observation, Tensor)
    return observation


def _error_of(algorithm: "OnPolicyAlgorithm", steps: _Step, last: Tensor, before: int) -> NonFiniteError:
    """Return the error that names the first bad number of a rollout.

    Args:
        algorithm: whose it is.
        steps: ``[T, B, ...]``.
        last: the observation ``[B, ...]`` after them.
        before: environment steps taken before the rollout.
    """
    try:
        for index in range(len(steps.reward)):
            now = before + index * algorithm.total_envs
            check_finite("observation", steps.observation[index], now)
            if not (is_finite(steps.parameters[index]) and is_finite(steps.action[index])):
                check_parameters(algorithm.policy, f"action of environment 0 cannot be sampled at step {now}")
            check_finite("action", steps.parameters[index], now)
            check_finite("action", steps.action[index], now)
            check_finite("reward", steps.reward[index], now)
        check_finite("observation", last, algorithm.num_timesteps)
    except NonFiniteError as error:
        return error
    return NonFiniteError(
        f"action of environment 0 cannot be sampled at step {before}: the policy has diverged "
        "(its standard deviation is 0)"
    )


def locals_after(request: RolloutRequest, callback: BaseCallback) -> dict[str, Any]:
    """Return what callbacks may read through ``self.locals`` at a rollout's end, by the names of SB3's loop."""
    algorithm, buffer = request.algorithm, request.buffer
    return {
        "self": algorithm,
        "env": request.env,
        "callback": callback,
        "rollout_buffer": buffer,
        "n_rollout_steps": buffer.buffer_size,
        "n_steps": buffer.buffer_size,
        "obs_tensor": Deferred(lambda: to_device(algorithm._last_obs, algorithm.device)),
        "new_obs": algorithm._last_obs,
        "dones": algorithm._last_episode_starts,
        "rewards": Deferred(lambda: buffer.reward[-1].cpu().numpy()),
        "actions": buffer.action[-1],
        "clipped_actions": Deferred(lambda: tensor_action_map(algorithm.policy, algorithm.device)(buffer.action[-1])),
        "values": Deferred(lambda: buffer.value[-1].unsqueeze(1)),
        "log_probs": Deferred(lambda: buffer.log_prob[-1]),
        "infos": request.env.infos,
    }
