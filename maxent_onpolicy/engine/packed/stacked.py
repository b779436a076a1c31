"""Packed models of one shape, trained as one: what their updates have in common is computed for all at once.

Each model stays an ordinary packed model with a flat vector, a rollout and random
generators of its own. For an epoch its vectors are rows of ``[S, P]``, its matrix is
one of ``[S, R, n]``, and one batched product serves all. The rows never mix: each
model's numbers are those that it would have alone, to rounding.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.finite import naming_divergence
from maxent_onpolicy.engine.listeners import tell_of_rollout
from maxent_onpolicy.engine.lockstep import WAIT, Member
from maxent_onpolicy.engine.metrics import UpdateMetrics
from maxent_onpolicy.engine.packed.adam import DeviceAdam, HostAdam
from maxent_onpolicy.engine.packed.arrays import NUMPY
from maxent_onpolicy.engine.packed.device import DeviceEpochs
from maxent_onpolicy.engine.packed.engine import PackedEngine
from maxent_onpolicy.engine.packed.minibatches import Minibatches
from maxent_onpolicy.engine.packed.model import PackedModel, PackedNetworks, model_kind
from maxent_onpolicy.engine.packed.ppo import PPOSettings
from maxent_onpolicy.engine.packed.threads import few_threads
from maxent_onpolicy.engine.packed.together import (
    CollectAlone,
    RolloutRequest,
    collect_all,
    locals_after,
    why_not_together,
)
from maxent_onpolicy.engine.packed.update import PackedUpdate
from maxent_onpolicy.engine.rollout import begin_rollout, evaluate_rollout, fill_rollout, steps_on_tensors

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm
    from maxent_onpolicy.algorithms.controlled import ClipRanges
    from maxent_onpolicy.algorithms.ppo import PPO

logger = logging.getLogger(__name__)

# On the CPU stacking saves calls, and costs cache misses: larger minibatches are faster one model after the other.
HOST_COLUMNS = 128
# Others wait for a model that collects by itself once, because it evaluates perhaps, and then returns to them.
AWAITED_ROLLOUTS = 1


class MemberEngine(PackedEngine):
    """The packed engine of a model that collects rollouts and makes its minibatch steps together with others.

    Args:
        algorithm: its policy must fit.
        member: where it meets the others. After :meth:`leave` it trains alone.
    """

    def __init__(self, algorithm: "OnPolicyAlgorithm", member: Member) -> None:
        super().__init__(algorithm)
        self._member: Member | None = member
        self._trainer: MemberTrainer | None = None
        self._alone: float = math.inf  # rollouts since the last common one

    def leave(self) -> None:
        """Part with the others."""
        self._member = self._trainer = None

    def collect(
        self,
        algorithm: "OnPolicyAlgorithm",
        env: VecEnv,
        callback: BaseCallback,
        buffer: RolloutBuffer,
        n_steps: int,
    ) -> bool:
        """Fill the buffer; together with others where environments live on tensors and nobody listens to each step."""
        if self._member is None or not steps_on_tensors(env):
            return super().collect(algorithm, env, callback, buffer, n_steps)
        self._alone += 1
        self.model.parameters.adopt(algorithm.policy)
        self._values = {}
        begin_rollout(algorithm, callback, buffer)
        reason = "a callback that changed the policy"
        if not self.fits(algorithm) or (reason := why_not_together(env, callback, buffer, self.model) or ""):
            logger.debug(f"The rollout is collected for this model alone because of {reason}")
            return fill_rollout(algorithm, env, callback, buffer, n_steps, deferred=True)
        self.model.parameters.adopt(algorithm.policy)  # what a callback has loaded
        start = algorithm.num_timesteps
        request = RolloutRequest(algorithm, self.model, env, buffer, self._member)  # type: ignore[arg-type]
        self._alone = 0
        values = self._member.meet(request)
        if isinstance(values, CollectAlone):
            return fill_rollout(algorithm, env, callback, buffer, n_steps, deferred=True)
        if values is not None:
            self._values = values
            buffer.log_prob, buffer.value = values["log_prob"], values["value"]
        else:
            with naming_divergence(algorithm.policy, f"actions of the rollout from step {start} cannot be evaluated"):
                evaluate_rollout(algorithm.policy, buffer)
        assert algorithm.ep_info_buffer is not None
        algorithm.device_episodes.report(algorithm.ep_info_buffer)
        tell_of_rollout(callback, n_steps, locals_after(request, callback))
        return True

    def update(self, algorithm: "PPO", clip: "ClipRanges") -> UpdateMetrics:
        """Train on the rollout for all epochs, or until the KL divergence is too large."""
        update = self._update_of(algorithm, algorithm.rollout_buffer)
        if self._member is None or (self.model.device.type == "cpu" and update.batch_size > HOST_COLUMNS):
            return super().update(algorithm, clip)
        self.model.parameters.adopt(algorithm.policy)
        if self._trainer is None or self._trainer.update is not update:
            self._trainer = MemberTrainer(self._member, update)
        self._trainer.awaited = self._alone <= AWAITED_ROLLOUTS
        return update.run(algorithm, clip, self._trainer)


class MemberTrainer:
    """Makes the steps of an epoch together with whoever else is at one.

    Args:
        member: where they meet.
        update: of this model.

    Attributes:
        awaited: whether the others' common rollouts wait for the end of this one's update.
        epoch: the matrix ``[R, n]``; after the first epoch a part of the matrix of all.
        member: as given.
        update: as given.
    """

    def __init__(self, member: Member, update: PackedUpdate) -> None:
        self.member = member
        self.update = update
        self.awaited = False
        self.epoch = torch.zeros(update.rows.total, update.samples, device=update.model.device)

    def train(self, settings: PPOSettings) -> int:
        """Return the number of minibatches computed; negative if the last of them stopped the update."""
        done: int = self.member.meet(EpochRequest(self, settings))
        return done


@dataclass(frozen=True)
class EpochRequest:
    """An epoch of one model.

    Attributes:
        trainer: the model's, with the shuffled matrix.
        settings: of the update.
    """

    trainer: MemberTrainer
    settings: PPOSettings

    @property
    def model(self) -> PackedModel:
        """Whose parameters are trained."""
        return self.trainer.update.model

    def kind(self) -> tuple[Any, ...]:
        """Return what models must share to be stacked."""
        settings = self.settings
        ent_coef = None if settings.ent_coef_varies else settings.ent_coef
        adam = (settings.betas, settings.adam_epsilon)
        options = (ent_coef, settings.value_clip is None, *adam, settings.balance, settings.entropy_bounds)
        return (model_kind(self.model), tuple(self.trainer.update.sizes), options)


class StackedWork:
    """Serves all models that have met: rollouts and epochs of one kind at once, others apart.

    A rollout waits until all those who take part in common ones are at theirs. Else models that stop their updates
    early would from then on collect by themselves. Nobody waits for those who have gone their own way since.
    """

    def __init__(self) -> None:
        self._updates = StackedUpdates()

    def __call__(self, requests: Sequence[Any]) -> list[Any]:
        """Do what is asked for; return a reply for each. Requests that are of neither kind get ``None``."""
        replies: list[Any] = [None] * len(requests)
        epochs = {index: each for index, each in enumerate(requests) if isinstance(each, EpochRequest)}
        rollouts = {index: each for index, each in enumerate(requests) if isinstance(each, RolloutRequest)}
        if any(each.trainer.awaited for each in epochs.values()):
            replies = [WAIT if index in rollouts else None for index in range(len(requests))]
        else:
            for index, outcome in zip(rollouts, collect_all(list(rollouts.values())), strict=True):
                replies[index] = outcome
        for index, done in zip(epochs, self._updates(list(epochs.values())), strict=True):
            replies[index] = done
        return replies


class StackedUpdates:
    """Serves the epochs of all models that have met; those of one kind at once, others apart."""

    def __init__(self) -> None:
        self._stacks: dict[tuple[Any, ...], Stacked] = {}

    def __call__(self, requests: Sequence[EpochRequest]) -> list[int]:
        """Make the steps of all requests; return for each what :meth:`MemberTrainer.train` does."""
        if not requests:  # but for rollouts, after which the same models train on
            return []
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(request.kind(), []).append(index)
        results = [0] * len(requests)
        for kind, indices in groups.items():
            stack = self._stacks.get(kind)
            chosen = [requests[index] for index in indices]
            if stack is None or not stack.holds(chosen):
                stack = self._stacks[kind] = Stacked(chosen)
            for index, done in zip(indices, stack.train(chosen), strict=True):
                results[index] = done
        self._stacks = {kind: stack for kind, stack in self._stacks.items() if kind in groups}
        return results


class Stacked:
    """``S`` models of one kind as one.

    Args:
        requests: of these models; they give the shapes.
    """

    def __init__(self, requests: Sequence[EpochRequest]) -> None:
        first = requests[0]
        parameters = first.model.parameters
        self.count = len(requests)
        shape, device = (self.count, parameters.layout.size), first.model.device
        self._flat, self._gradient, self._mean, self._square = (torch.zeros(shape, device=device) for _ in range(4))
        self._step = torch.zeros(self.count, device=device)
        self.networks = PackedNetworks(first.model.policy, parameters.layout, self._flat, self._gradient)
        self._minibatches = Minibatches(self.networks, first.trainer.update.rows, first.trainer.update.sizes)
        self._rows = list(self._minibatches.epoch)
        self._trainers = [request.trainer for request in requests]
        vectors = (self._flat, self._gradient, self._mean, self._square, self._step)
        self._host_adam = HostAdam(*vectors) if self.networks.arrays is NUMPY else None
        if self._host_adam is None:
            self._device_epochs = DeviceEpochs(self._minibatches, DeviceAdam(*vectors), device)

    def holds(self, requests: Sequence[EpochRequest]) -> bool:
        """Whether these are the models it was made for, in the same order.

        On a device some of them are enough, where the others have only stopped their updates early, or few have ended:
        to make another stack, and to record its steps, would take longer than to compute theirs in vain.
        """
        here = [request.trainer for request in requests]
        if here == self._trainers:
            return True
        ended = sum(trainer.member.ended for trainer in self._trainers)
        return self._host_adam is None and 2 * ended <= self.count and set(here) <= set(self._trainers)

    @torch.no_grad()
    def train(self, requests: Sequence[EpochRequest]) -> list[int]:
        """Make the steps of one epoch for each model; return for each what :meth:`MemberTrainer.train` does."""
        places = [self._trainers.index(request.trainer) for request in requests]
        self._load(requests, places)
        # Those who are not here make no step: any divergence is too much.
        settings = [replace(requests[0].settings, target_kl=-math.inf)] * self.count
        for place, request in zip(places, requests, strict=True):
            settings[place] = request.settings
        with few_threads(self.networks.operations(requests[0].trainer.update.batch_size)):
            if self._host_adam is None:
                done = self._device_epochs.run(settings)
            else:
                done = self._run_on_host(settings, self._host_adam)
        self._store(requests, places)
        return [done[place] for place in places]

    def _load(self, requests: Sequence[EpochRequest], places: Sequence[int]) -> None:
        for index, request in zip(places, requests, strict=True):
            for own, row in self._vectors(request.model, index):
                row.copy_(own)
            if request.trainer.epoch is not self._rows[index]:
                self._rows[index].copy_(request.trainer.epoch)
                # From now on the model shuffles into its part of the common matrix.
                request.trainer.epoch = self._rows[index]

    def _store(self, requests: Sequence[EpochRequest], places: Sequence[int]) -> None:
        for index, request in zip(places, requests, strict=True):
            for own, row in self._vectors(request.model, index):
                own.copy_(row)

    def _vectors(self, model: PackedModel, index: int) -> list[tuple[Tensor, Tensor]]:
        own = model.parameters
        return [
            (own.flat, self._flat[index]),
            (own.mean, self._mean[index]),
            (own.square, self._square[index]),
            (own.step, self._step[index]),
        ]

    def _run_on_host(self, settings: Sequence[PPOSettings], adam: HostAdam) -> list[int]:
        constants = self._minibatches.constants(settings)
        limits = np.array([np.inf if each.target_kl is None else 1.5 * each.target_kl for each in settings])
        watched = bool(np.isfinite(limits).any())
        batches = self._minibatches.batches
        done = [len(batches)] * self.count
        active = list(range(self.count))
        adam.choose(settings, active)
        for index, (step, batch) in enumerate(batches):
            step.loss_gradient(batch, constants[step])
            if watched:
                stopped = step.approx_kl(batch) > limits
                if stopped.any():
                    done = [
                        -(index + 1) if model in active and stopped[model] else done[model]
                        for model in range(self.count)
                    ]
                    active = [model for model in active if not stopped[model]]
                    adam.choose(settings, active)
                if not active:
                    break
            adam.apply()
        return done
