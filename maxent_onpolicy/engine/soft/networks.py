"""Stacked MLPs on flat vectors, with the passes that soft actor-critic needs.

Samples are rows, as in the modules, so that a module's weights are contiguous
views of the vector. At batches of 256 and layers of 256 units nearly all time is in
the matrix products: torch's operators serve every device, and a CUDA graph.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh"}


@dataclass(frozen=True)
class Shape:
    """What ``K`` stacked networks have in common, and where their layers lie in a flat vector.

    Attributes:
        networks: ``K``.
        widths: of the input, the hidden layers and the output.
        activation: a value of ``ACTIVATIONS``; between the layers.
    """

    networks: int
    widths: tuple[int, ...]
    activation: str

    @property
    def size(self) -> int:
        """Length ``P`` of the flat vector."""
        return sum(self.networks * rows * (columns + 1) for columns, rows in zip(self.widths, self.widths[1:]))  # noqa: B905

    @property
    def operations(self) -> float:
        """Floating-point operations for each sample of the largest matrix product."""
        return 2.0 * self.networks * max(a * b for a, b in zip(self.widths, self.widths[1:]))  # noqa: B905

    def layers(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's weights ``[K, out, in]`` and biases ``[K, out]`` as views of ``flat`` ``[P]``."""
        result, start = [], 0
        for columns, rows in zip(self.widths, self.widths[1:]):  # noqa: B905
            weights = self.networks * rows * columns
            biases = self.networks * rows
            weight = flat[start : start + weights].view(self.networks, rows, columns)
            bias = flat[start + weights : start + weights + biases].view(self.networks, rows)
            result.append((weight, bias))
            start += weights + biases
        return result


class _Layer(NamedTuple):
    weight: Tensor  # [K, out, in]
    transposed: Tensor  # [K, in, out]
    bias: Tensor  # [K, 1, out]
    weight_gradient: Tensor
    bias_gradient: Tensor  # [K, out]


class StackedRows:
    """``K`` MLPs of one shape for a fixed number of samples ``N``; nothing is allocated after construction.

    Args:
        shape: theirs.
        flat: parameters ``[P]``.
        gradient: ``[P]``; ``None`` where :meth:`backward` is not needed.
        samples: ``N``.
        trained: ``M``, the first samples, through which alone the backward pass goes; default is all.
    """

    def __init__(
        self, shape: Shape, flat: Tensor, gradient: Tensor | None, samples: int, trained: int | None = None
    ) -> None:
        self.shape = shape
        views = shape.layers(flat)
        gradients = shape.layers(flat if gradient is None else gradient)
        self._layers = [
            _Layer(weight, weight.mT, bias[:, None], weight_gradient, bias_gradient)
            for (weight, bias), (weight_gradient, bias_gradient) in zip(views, gradients, strict=True)
        ]
        # Outputs of each layer after its activation, and the loss's gradient with respect to them before it.
        self._outputs = [flat.new_zeros(shape.networks, samples, width) for width in shape.widths[1:]]
        self._trained = samples if trained is None else trained
        self._kept = [output[:, : self._trained] for output in self._outputs]
        self._deltas = [torch.zeros_like(kept) for kept in self._kept]
        self._inputs = flat.new_zeros(0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs ``[K, N, out]`` for inputs ``[N, in]``; valid until the next call."""
        rows = self._inputs = inputs.expand(self.shape.networks, -1, -1)
        last = len(self._layers) - 1
        for index, (layer, output) in enumerate(zip(self._layers, self._outputs, strict=True)):
            torch.baddbmm(layer.bias, rows, layer.transposed, out=output)
            if index < last:
                _activate(output, self.shape.activation)
            rows = output
        return rows

    @property
    def output_delta(self) -> Tensor:
        """Where the loss's gradient with respect to the outputs belongs, ``[K, M, out]``."""
        return self._deltas[-1]

    def backward(self) -> None:
        """Write the gradient of every parameter, given :attr:`output_delta`, for the last :meth:`forward`."""
        for index in range(len(self._layers) - 1, -1, -1):
            layer, delta = self._layers[index], self._deltas[index]
            rows = self._kept[index - 1] if index else self._inputs[:, : self._trained]
            torch.bmm(delta.mT, rows, out=layer.weight_gradient)
            torch.sum(delta, dim=1, out=layer.bias_gradient)
            if index:
                torch.bmm(delta, layer.weight, out=self._deltas[index - 1])
                _through_activation(self._deltas[index - 1], self._kept[index - 1], self.shape.activation)

    def input_gradient(self, first: int, out: Tensor) -> Tensor:
        """Return the gradient ``[N, in - first]`` with respect to the last inputs, summed over the networks.

        Parameters get none.

        Args:
            first: input from which on it is wanted.
            out: memory for it.
        """
        for index in range(len(self._layers) - 1, 0, -1):
            torch.bmm(self._deltas[index], self._layers[index].weight, out=self._deltas[index - 1])
            _through_activation(self._deltas[index - 1], self._kept[index - 1], self.shape.activation)
        return torch.sum(torch.bmm(self._deltas[0], self._layers[0].weight[:, :, first:]), dim=0, out=out)

    def input_gradient_of_choice(self, choice: Tensor, first: int, out: Tensor) -> Tensor:
        """As :meth:`input_gradient` of each sample's chosen output: work for one network, not ``K``.

        Args:
            choice: ``[N]``, the network whose output, of width one, counts.
            first: input from which on it is wanted.
            out: memory for it.
        """
        for network in range(self.shape.networks):
            rows = (choice == network).nonzero().squeeze(1)
            delta = self._layers[-1].weight[network].expand(len(rows), -1)
            for index in range(len(self._layers) - 2, -1, -1):
                delta = _times_slope(delta, self._outputs[index][network].index_select(0, rows), self.shape.activation)
                weight = self._layers[index].weight[network]
                delta = delta @ (weight if index else weight[:, first:])
            out.index_copy_(0, rows, delta if len(self._layers) > 1 else delta[:, first:])
        return out


def _activate(output: Tensor, activation: str) -> None:
    if activation == "relu":
        torch.relu_(output)
    else:
        torch.tanh_(output)


def _times_slope(delta: Tensor, output: Tensor, activation: str) -> Tensor:
    if activation == "relu":
        return torch.ops.aten.threshold_backward(delta, output, 0)
    return torch.ops.aten.tanh_backward(delta, output)


def _through_activation(delta: Tensor, output: Tensor, activation: str) -> None:
    """Multiply ``delta`` in place by the activation's slope, which both kinds give from their output."""
    if activation == "relu":
        torch.ops.aten.threshold_backward.grad_input(delta, output, 0, grad_input=delta)
    else:
        torch.ops.aten.tanh_backward.grad_input(delta, output, grad_input=delta)
