"""The minibatches of an epoch, and who makes the steps on them."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from maxent_onpolicy.engine.packed.model import PackedModel, PackedNetworks
from maxent_onpolicy.engine.packed.ppo import PPOSettings, PPOStep, Rows, StepConstants


class Minibatches:
    """The matrix of one epoch, and the step on each of its minibatches.

    Args:
        model: whose parameters are trained; stacked models at once.
        rows: of the matrix.
        sizes: samples of each minibatch that are computed here.
        totals: samples of each minibatch; default: all are computed here.

    Attributes:
        epoch: the matrix ``[..., R, n]``.
        batches: for each minibatch, its step and its views of the matrix.
    """

    def __init__(
        self, model: PackedNetworks, rows: Rows, sizes: Sequence[int], totals: Sequence[int] | None = None
    ) -> None:
        self.epoch = torch.zeros(*model.leading, rows.total, sum(sizes), device=model.device)
        kinds = list(zip(sizes, totals or sizes, strict=True))
        self._steps = {kind: PPOStep(model, rows, *kind) for kind in dict.fromkeys(kinds)}
        view = model.arrays.view(self.epoch)
        firsts = accumulate(sizes, initial=0)
        self.batches = [
            (self._steps[kind], self._steps[kind].views(view, first))
            for kind, first in zip(kinds, firsts, strict=False)
        ]

    def constants(self, settings: Sequence[PPOSettings]) -> dict[PPOStep, StepConstants]:
        """Return the settings of each model, as each of the steps takes them."""
        return {step: step.constants(settings) for step in self._steps.values()}


class Trainer(Protocol):
    """Makes the steps of an epoch.

    Attributes:
        epoch: the matrix ``[R, n]`` on which they are made.
    """

    epoch: Tensor

    def train(self, settings: PPOSettings) -> int:
        """Return the number of minibatches computed; negative if the last of them stopped the update."""
        ...


class SingleTrainer:
    """Makes the steps of an epoch for one model.

    Args:
        model: whose parameters are trained.
        rows: of the matrix.
        sizes: samples of each minibatch.
    """

    def __init__(self, model: PackedModel, rows: Rows, sizes: Sequence[int]) -> None:
        self._model = model
        self._minibatches = Minibatches(model, rows, sizes)
        self.epoch = self._minibatches.epoch

    def train(self, settings: PPOSettings) -> int:
        """See :class:`Trainer`."""
        model, batches = self._model, self._minibatches.batches
        constants = self._minibatches.constants([settings])
        for index, (step, batch) in enumerate(batches):
            step.loss_gradient(batch, constants[step])
            if settings.target_kl is not None and step.approx_kl(batch) > 1.5 * settings.target_kl:
                return -(index + 1)
            model.apply_gradient(settings)
        return len(batches)
