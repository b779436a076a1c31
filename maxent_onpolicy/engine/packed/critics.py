"""The critics by themselves: minibatch steps with hand-derived gradients, and Adam on their parameters alone."""

from typing import NamedTuple

import torch
from torch import Tensor

from maxent_onpolicy.engine.packed.adam import PlainAdam
from maxent_onpolicy.engine.packed.arrays import Array
from maxent_onpolicy.engine.packed.model import PackedModel


class CriticSettings(NamedTuple):
    """Numbers of one update.

    Attributes:
        weights: of each critic's mean squared error in the loss; critics that are left out stay as they are.
        learning_rate: Adam's.
        betas: Adam's.
        adam_epsilon: Adam's.
    """

    weights: dict[str, float]
    learning_rate: float
    betas: tuple[float, float]
    adam_epsilon: float


class _Batch(NamedTuple):
    """Views of one minibatch's columns, made once."""

    columns: int
    inputs: Array  # [1, in + 1, N]
    inputs_transposed: Array  # [1, N, in + 1]
    targets: dict[str, Array]  # [N]; normalised
    errors: dict[str, Array]  # [N]; written by the steps


class CriticTrainer:
    """Makes the steps of an epoch.

    Args:
        model: whose critics lie behind the actor in the flat vector.
        sizes: samples of each minibatch.

    Attributes:
        epoch: ``[in + 1 + K, n]``: inputs, then each critic's target in units of its normalised output.
    """

    def __init__(self, model: PackedModel, sizes: list[int]) -> None:
        self._model, self._sizes = model, sizes
        vectors = model.parameters
        first = vectors.layout.actor_size
        flat, gradient, mean, square = (
            vector[first:] for vector in (vectors.flat, vectors.gradient, vectors.mean, vectors.square)
        )
        self._adam = PlainAdam(flat, gradient, mean, square, vectors.step)
        rows, samples, count = model.input_rows, sum(sizes), len(model.critics)
        self.epoch = torch.zeros(rows + count, samples, device=model.device)
        self._errors = torch.zeros(count, samples, device=model.device)
        epoch, errors = model.arrays.view(self.epoch), model.arrays.view(self._errors)
        self._batches = []
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            inputs = self.epoch[None, :rows, part]
            targets = {name: epoch[rows + index, part] for index, name in enumerate(model.critics)}
            own = {name: errors[index, part] for index, name in enumerate(model.critics)}
            views = model.arrays.view(inputs), model.arrays.view(inputs.mT)
            self._batches.append(_Batch(size, *views, targets, own))
            start += size
        self._outputs = {size: {name: model.output(name, size) for name in model.critics} for size in set(sizes)}
        self._deltas = {size: {name: model.output_delta(name, size) for name in model.critics} for size in set(sizes)}
        self._stacks = model.critic_stacks()

    def train(self, settings: CriticSettings) -> dict[str, Tensor]:
        """Make the steps; return the sums over minibatches of each critic's mean squared error."""
        arrays = self._model.arrays
        for batch in self._batches:
            outputs, deltas = self._outputs[batch.columns], self._deltas[batch.columns]
            for mlp in self._stacks:
                mlp.forward(batch.inputs)
            for name, weight in settings.weights.items():
                arrays.subtract(outputs[name], batch.targets[name], out=batch.errors[name])
                arrays.multiply(batch.errors[name], 2.0 * weight / batch.columns, out=deltas[name])
            for mlp in self._stacks:
                mlp.backward(batch.inputs_transposed)
            self._adam.apply(settings)
        sums = {}
        for index, name in enumerate(self._model.critics):
            if name in settings.weights:
                parts = self._errors[index].square().split(self._sizes)
                sums[name] = torch.stack([part.mean() for part in parts]).sum()
        return sums
