"""Packed models of one shape, trained as one: what their updates have in common is computed for all at once.

Each model stays an ordinary packed model with a flat vector, a rollout and random
generators of its own. For an epoch its vectors are rows of ``[S, P]``, its matrix is
one of ``[S, R, n]``, and one batched product serves all. The rows never mix: each
model's numbers are those that it would have alone, to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from maxent_onpolicy.engine.lockstep import Member
from maxent_onpolicy.engine.metrics import UpdateMetrics
from maxent_onpolicy.engine.packed.adam import DeviceAdam, HostAdam
from maxent_onpolicy.engine.packed.arrays import NUMPY
from maxent_onpolicy.engine.packed.device import DeviceEpochs
from maxent_onpolicy.engine.packed.engine import PackedEngine
from maxent_onpolicy.engine.packed.minibatches import Minibatches
from maxent_onpolicy.engine.packed.model import PackedModel, PackedNetworks
from maxent_onpolicy.engine.packed.ppo import PPOSettings
from maxent_onpolicy.engine.packed.threads import few_threads
from maxent_onpolicy.engine.packed.update import PackedUpdate

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm
    from maxent_onpolicy.algorithms.ppo import PPO, ClipRanges

# On the CPU stacking saves calls, and costs cache misses: larger minibatches are faster one model after the other.
HOST_COLUMNS = 128


class MemberEngine(PackedEngine):
    """The packed engine of a model that makes its minibatch steps together with others.

    Args:
        algorithm: its policy must fit.
        member: where it meets the others. After :meth:`leave` it trains alone.
    """

    def __init__(self, algorithm: "OnPolicyAlgorithm", member: Member) -> None:
        super().__init__(algorithm)
        self._member: Member | None = member
        self._trainer: MemberTrainer | None = None

    def leave(self) -> None:
        """Part with the others."""
        self._member = self._trainer = None

    def update(self, algorithm: "PPO", clip: "ClipRanges") -> UpdateMetrics:
        """Train on the rollout for all epochs, or until the KL divergence is too large."""
        update = self._update_of(algorithm, algorithm.rollout_buffer)
        if self._member is None or (self.model.device.type == "cpu" and update.batch_size > HOST_COLUMNS):
            return super().update(algorithm, clip)
        self.model.parameters.adopt(algorithm.policy)
        if self._trainer is None or self._trainer.update is not update:
            self._trainer = MemberTrainer(self._member, update)
        return update.run(algorithm, clip, self._trainer)


class MemberTrainer:
    """Makes the steps of an epoch together with whoever else is at one.

    Args:
        member: where they meet.
        update: of this model.

    Attributes:
        epoch: the matrix ``[R, n]``; after the first epoch a part of the matrix of all.
        update: as given.
    """

    def __init__(self, member: Member, update: PackedUpdate) -> None:
        self._member = member
        self.update = update
        self.epoch = torch.zeros(update.rows.total, update.samples, device=update.model.device)

    def train(self, settings: PPOSettings) -> int:
        """Return the number of minibatches computed; negative if the last of them stopped the update."""
        done: int = self._member.meet(EpochRequest(self, settings))
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
        model, settings = self.model, self.settings
        layout = model.parameters.layout
        heads = tuple(
            (network.name, tuple(head.out_features for head in network.heads))
            for stack in layout.stacks
            for network in stack.networks
        )
        stacks = tuple((stack.activation, stack.blocks) for stack in layout.stacks)
        options = (settings.ent_coef, settings.value_clip is None, settings.betas, settings.adam_epsilon)
        networks = (layout.size, layout.log_std, stacks, heads, str(model.policy.action_space))
        return (model.device, networks, _distribution(model), tuple(self.trainer.update.sizes), options)


class StackedUpdates:
    """Serves the epochs of all models that have met; those of one kind at once, others apart."""

    def __init__(self) -> None:
        self._stacks: dict[tuple[Any, ...], Stacked] = {}

    def __call__(self, requests: Sequence[EpochRequest]) -> list[int]:
        """Make the steps of all requests; return for each what :meth:`MemberTrainer.train` does."""
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
        """Whether these are the models it was made for, in the same order."""
        return [id(request.trainer) for request in requests] == [id(trainer) for trainer in self._trainers]

    @torch.no_grad()
    def train(self, requests: Sequence[EpochRequest]) -> list[int]:
        """Make the steps of one epoch for each model; return for each what :meth:`MemberTrainer.train` does."""
        self._load(requests)
        settings = [request.settings for request in requests]
        with few_threads(self.networks.operations(requests[0].trainer.update.batch_size)):
            if self._host_adam is None:
                done = self._device_epochs.run(settings)
            else:
                done = self._run_on_host(settings, self._host_adam)
        self._store(requests)
        return done

    def _load(self, requests: Sequence[EpochRequest]) -> None:
        for index, request in enumerate(requests):
            for own, row in self._vectors(request.model, index):
                row.copy_(own)
            if request.trainer.epoch is not self._rows[index]:
                self._rows[index].copy_(request.trainer.epoch)
                # From now on the model shuffles into its part of the common matrix.
                request.trainer.epoch = self._rows[index]

    def _store(self, requests: Sequence[EpochRequest]) -> None:
        for index, request in enumerate(requests):
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


def _distribution(model: PackedModel) -> tuple[Any, ...]:
    """Return what tells one action distribution from another."""
    kind = model.policy.action_dist
    plain = {name: value for name, value in vars(kind).items() if isinstance(value, bool | int | float | str | tuple)}
    return (type(kind), tuple(sorted(plain.items(), key=lambda item: item[0])))
