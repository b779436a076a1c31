"""PPO's update with compiled steps: an epoch is gathered once, and nothing asks the device before its end."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from maxent_onpolicy.engine.buffer import Minibatch, RolloutBuffer, random_order
from maxent_onpolicy.engine.compiled.cache import kept_programs
from maxent_onpolicy.engine.compiled.capture import Call, CapturedEpoch
from maxent_onpolicy.engine.compiled.parameters import FlatParameters
from maxent_onpolicy.engine.compiled.program import (
    Accumulators,
    Probe,
    StepFunction,
    adam_coefficients,
    compile_graph,
    flatten,
    side_effects_undone,
    trace,
    unflatten,
)
from maxent_onpolicy.engine.mean_shift import MeanShift
from maxent_onpolicy.engine.metrics import UpdateMetrics

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.controlled import ClipRanges
    from maxent_onpolicy.algorithms.ppo import PPO

logger = logging.getLogger(__name__)


class Epoch:
    """A rollout in random order, in memory that stays, cut into minibatches.

    Args:
        buffer: of which the first rollout is taken; later ones must have the same fields.
        batch_size: samples a minibatch.

    Attributes:
        batches: each minibatch's tensors, views of the memory; see :func:`~.program.flatten`.
        like: a minibatch, for its fields.
        adam: ``[minibatches, 2]``, Adam's coefficients.
    """

    def __init__(self, buffer: RolloutBuffer, batch_size: int) -> None:
        self._shape = (buffer.buffer_size, buffer.n_envs)
        self.like = all_samples(buffer)
        self._data = [torch.empty_like(tensor) for tensor in flatten(self.like)]
        self.load(buffer, np.arange(len(self._data[0])))
        self.batches = list(zip(*(tensor.split(batch_size) for tensor in self._data), strict=True))
        self.adam = torch.zeros(len(self.batches), 2, device=buffer.device)

    def load(self, buffer: RolloutBuffer, order: np.ndarray) -> None:
        """Gather a rollout's samples in the given order ``[T·B]``."""
        indices = torch.as_tensor(order, device=buffer.device)
        for source, target in zip(flatten(all_samples(buffer)), self._data, strict=True):
            torch.index_select(source, 0, indices, out=target)

    def shuffle(self, buffer: RolloutBuffer) -> None:
        """Gather a rollout's samples in the order of the next epoch."""
        self.load(buffer, random_order(*self._shape))

    def shift_mean(self, shift: MeanShift | None) -> None:
        """Move the gathered actions, which are an input of the programs."""
        if shift is not None:
            action = unflatten(self.like, self._data).action
            action -= shift.draw(len(action)).view_as(action)

    def minibatch(self, index: int) -> Minibatch:
        """Return a minibatch by its fields' names."""
        return unflatten(self.like, list(self.batches[index]))


class CompiledUpdate:
    """The compiled steps of one model: one program for each size of minibatch.

    Args:
        algorithm: the model, with a complete rollout.
        clip: the clip ranges in force.
        backend: see :func:`~maxent_onpolicy.engine.compiled.program.compile_graph`.

    Attributes:
        seconds: spent on tracing and compiling.
        asks_every_minibatch: whether an epoch ends where the KL divergence is too large. Asking costs nothing on the
            CPU; a GPU would have to finish every minibatch first, and makes the remaining steps do nothing instead.

    Raises:
        Exception: whatever tracing or compiling raises.
    """

    def __init__(self, algorithm: "PPO", clip: "ClipRanges", backend: str | None) -> None:
        start = time.perf_counter()
        buffer, policy = algorithm.rollout_buffer, algorithm.policy
        self.epoch = Epoch(buffer, algorithm.batch_size)
        self._kind = rollout_kind(algorithm, clip)
        self._probe = Probe(algorithm, self.epoch.minibatch(0), clip)
        self._parameters = FlatParameters(policy, self._probe.names)
        self._accumulators = Accumulators.zeros(len(self._probe.metrics), buffer.device)
        self._numbers = torch.zeros(len(self._values(algorithm, clip)), device=buffer.device)
        self._numbers.copy_(torch.tensor(self._values(algorithm, clip)))
        self._programs: dict[int, Callable[..., Tensor]] = {}
        for index, batch in enumerate(self.epoch.batches):
            if len(batch[0]) not in self._programs:
                self._programs[len(batch[0])] = self._compile(algorithm, clip, index, backend)
        self._captured: CapturedEpoch | None = None
        self.asks_every_minibatch = buffer.device.type == "cpu"
        self.seconds = time.perf_counter() - start

    def _compile(self, algorithm: "PPO", clip: "ClipRanges", index: int, backend: str | None) -> Callable[..., Tensor]:
        step = StepFunction(algorithm, self._probe, self._parameters, self.epoch.like, clip)
        arguments = self._arguments(algorithm, index)
        graph = trace(step, arguments)
        program = compile_graph(graph, backend, algorithm.device)
        # The compiler runs at the first call. That call changes nothing, because no epoch is active.
        with kept_programs(), side_effects_undone(algorithm), torch.no_grad():
            program(*arguments)
        return program

    def _arguments(self, algorithm: "PPO", index: int) -> list[Tensor]:
        parameters, accumulators = self._parameters, self._accumulators
        return [
            *(parameters.flat, parameters.mean, parameters.square),
            *(accumulators.sums, accumulators.last, accumulators.active),
            *(self._numbers, self.epoch.adam[index]),
            *algorithm.policy.buffers(),
            *self.epoch.batches[index],
        ]

    def _values(self, algorithm: "PPO", clip: "ClipRanges") -> list[float]:
        limit = float("inf") if algorithm.target_kl is None else 1.5 * algorithm.target_kl
        first = [clip.policy, clip.high or 0.0, clip.value or 0.0, algorithm.max_grad_norm, limit]
        return [*first, *(getattr(algorithm, name) for name in self._probe.numbers)]

    def difference(self, algorithm: "PPO", clip: "ClipRanges") -> str | None:
        """Return what these programs were not compiled for, or ``None``."""
        if self._kind != rollout_kind(algorithm, clip):
            return "the shape of the rollout, the options of the optimiser or what is trained"
        numbers = {name: getattr(algorithm, name, None) for name in self._probe.numbers}
        strange = next((name for name, value in numbers.items() if not isinstance(value, float | int)), None)
        if strange is not None:
            return f"`{strange}`"
        return self._probe.guard.difference(algorithm)

    @torch.no_grad()
    def run(self, algorithm: "PPO", clip: "ClipRanges") -> UpdateMetrics:
        """Train for all epochs, or until the KL divergence is too large."""
        self._parameters.adopt(algorithm.policy)
        self._numbers.copy_(torch.tensor(self._values(algorithm, clip)))
        metrics = UpdateMetrics()
        calls = [
            (self._programs[len(batch[0])], self._arguments(algorithm, index))
            for index, batch in enumerate(self.epoch.batches)
        ]
        for epoch in range(algorithm.n_epochs):
            self.epoch.shuffle(algorithm.rollout_buffer)
            self.epoch.shift_mean(algorithm.mean_shift())
            self._accumulators.start()
            count, stopped = self._run_epoch(algorithm, calls)
            algorithm._n_updates += 1
            sums = dict(zip(self._probe.metrics, self._accumulators.sums.clone(), strict=False))
            last = dict(zip(self._probe.metrics, self._accumulators.last.clone(), strict=True))
            del sums["loss"]
            metrics.add(sums, count, last_loss=last["loss"])
            self._parameters.steps += count - stopped
            if algorithm.adapts_within_updates:
                algorithm.after_epoch(metrics.last["approx_kl"].item())
            if stopped:
                algorithm.report_early_stop(epoch, last["approx_kl"].item())
                break
        self._parameters.publish(algorithm.policy)
        return metrics

    def _run_epoch(self, algorithm: "PPO", calls: list[Call]) -> tuple[int, bool]:
        """Return how many minibatches were evaluated, and whether the last of them stopped the update."""
        group = algorithm.policy.optimizer.param_groups[0]
        adam, total = self.epoch.adam, len(calls)
        adam.copy_(adam_coefficients(self._parameters.steps, total, float(group["lr"]), group["betas"]))
        active = self._accumulators.active
        if active.device.type == "cuda":
            if self._captured is None or not self._captured.fits(calls):
                self._captured = CapturedEpoch(calls)
            self._captured.run(lambda: side_effects_undone(algorithm))
        else:
            for program, arguments in calls:
                program(*arguments)
                if self.asks_every_minibatch and algorithm.target_kl is not None and not active.item():
                    break
        if algorithm.target_kl is None:
            return total, False
        return int(self._accumulators.sums[-1].item()), not active.item()


def all_samples(buffer: RolloutBuffer) -> Minibatch:
    """Return a whole rollout, time-major, as one minibatch of views ``[T·B, ...]``."""
    fields = {name: getattr(buffer, name).flatten(0, 1) for name in buffer.minibatch_fields()}
    return Minibatch(buffer.flat_observation(), **fields)


def rollout_kind(algorithm: "PPO", clip: "ClipRanges") -> tuple[object, ...]:
    """Return what decides the shapes and branches of a step, beside the guard of the probe."""
    buffer = algorithm.rollout_buffer
    group = algorithm.policy.optimizer.param_groups[0]
    options = (group["betas"], group["eps"], group["weight_decay"])
    shapes = (buffer.buffer_size, buffer.n_envs, algorithm.batch_size)
    trained = tuple(parameter.requires_grad for parameter in algorithm.policy.parameters())
    rules = (clip.value is None, clip.high is None, clip.balance, clip.entropy_bounds)
    return (*shapes, buffer.entropy, buffer.magnet is None, *rules, *options, algorithm.device, trained)
