"""Epochs on a GPU: nothing is read back before an epoch's end, and a CUDA graph replays its thousands of kernels.

At the sizes of reinforcement learning a GPU computes a minibatch step faster than
Python can launch its kernels. All arrays of an epoch have fixed places, so its
steps are captured once and replayed with one call.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from maxent_onpolicy.engine.packed.adam import DeviceAdam, Rates
from maxent_onpolicy.engine.packed.minibatches import Minibatches
from maxent_onpolicy.engine.packed.model import PackedModel, PackedNetworks
from maxent_onpolicy.engine.packed.ppo import PPOSettings, Rows, StepConstants

logger = logging.getLogger(__name__)


class _Inputs(NamedTuple):
    """What may change from one epoch to the next besides the matrix."""

    constants: tuple[StepConstants, ...]
    limits: Tensor | None
    rates: Rates


class DeviceEpochs:
    """Makes the steps of epochs for ``S`` models on one device.

    Args:
        minibatches: their matrix and steps.
        adam: their optimiser.
        device: where everything is.
    """

    def __init__(self, minibatches: Minibatches, adam: DeviceAdam, device: torch.device) -> None:
        self._minibatches, self._adam = minibatches, adam
        count = minibatches.epoch.shape[0]
        self._active = torch.ones(count, dtype=torch.bool, device=device)
        self._taken = torch.zeros(count, dtype=torch.int64, device=device)
        self._device = device
        self._inputs: _Inputs | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def run(self, settings: Sequence[PPOSettings]) -> list[int]:
        """Make an epoch's steps; return each model's number of minibatches, negative if the last one stopped it."""
        if self._take_in(settings) and self._device.type == "cuda":
            self._graph = self._capture()
        if self._graph is None:
            self._steps()
        else:
            self._graph.replay()
        assert self._inputs is not None
        if self._inputs.limits is None:
            return [len(self._minibatches.batches)] * len(settings)
        return torch.where(self._active, self._taken, -self._taken).tolist()

    def _take_in(self, settings: Sequence[PPOSettings]) -> bool:
        """Bring the settings to where the steps read them; return whether more than numbers has changed."""
        by_step = self._minibatches.constants(settings)
        limits = None
        if any(each.target_kl is not None for each in settings):
            highest = [float("inf") if each.target_kl is None else 1.5 * each.target_kl for each in settings]
            limits = torch.tensor(highest, device=self._device)
        new = _Inputs(tuple(by_step[step] for step, _ in self._minibatches.batches), limits, self._adam.rates(settings))
        if self._inputs is not None:
            (old_leaves, old_form), (leaves, form) = tree_flatten(self._inputs), tree_flatten(new)
            if form == old_form and all(
                isinstance(old, Tensor) == isinstance(leaf, Tensor) and (isinstance(leaf, Tensor) or old == leaf)
                for old, leaf in zip(old_leaves, leaves, strict=True)
            ):
                for old, leaf in zip(old_leaves, leaves, strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(leaf)
                return False
        self._inputs = new
        return True

    def _steps(self) -> None:
        inputs = self._inputs
        assert inputs is not None
        self._active.fill_(True)
        self._taken.zero_()
        for (step, batch), constants in zip(self._minibatches.batches, inputs.constants, strict=True):
            step.loss_gradient(batch, constants)
            if inputs.limits is not None:
                self._taken += self._active
                self._active &= ~(step.approx_kl(batch) > inputs.limits)
            self._adam.apply(inputs.rates, self._active)

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        """Record the steps; ``None``, with the reason in the log, if they cannot be recorded."""
        saved = [vector.clone() for vector in self._adam.vectors]
        graph = torch.cuda.CUDAGraph()
        try:
            # Libraries allocate and choose algorithms at first use, which must not happen while recording.
            stream = torch.cuda.Stream(self._device)
            stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(stream):
                self._steps()
            torch.cuda.current_stream(self._device).wait_stream(stream)
            with torch.cuda.graph(graph):
                self._steps()
        except RuntimeError as error:
            logger.warning(f"The update runs without a CUDA graph, which could not be recorded: {error}")
            return None
        finally:
            for vector, value in zip(self._adam.vectors, saved, strict=True):
                vector.copy_(value)
        return graph


class DeviceTrainer:
    """Makes the steps of an epoch for one model on a device.

    Args:
        model: whose parameters are trained.
        rows: of the matrix.
        sizes: samples of each minibatch.

    Attributes:
        epoch: the matrix ``[R, n]``.
    """

    def __init__(self, model: PackedModel, rows: Rows, sizes: Sequence[int]) -> None:
        own = model.parameters
        vectors = [vector[None] for vector in (own.flat, own.gradient, own.mean, own.square, own.step)]
        networks = PackedNetworks(model.policy, own.layout, vectors[0], vectors[1])
        minibatches = Minibatches(networks, rows, sizes)
        self.epoch = minibatches.epoch[0]
        self._epochs = DeviceEpochs(minibatches, DeviceAdam(*vectors), model.device)

    def train(self, settings: PPOSettings) -> int:
        """Return the number of minibatches computed; negative if the last of them stopped the update."""
        return self._epochs.run([settings])[0]
