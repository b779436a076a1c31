"""Forward and backward pass of stacked MLPs, without allocation.

Samples are columns: an activation is ``[..., K, width, N]``, so that each
network's rows are contiguous, and a constant last row of ones turns the bias into
a column of the weights. Leading dimensions (``...``) are stacked models.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from maxent_onpolicy.engine.packed.arrays import Array, Arrays
from maxent_onpolicy.engine.packed.layout import Stack


class _Layer(NamedTuple):
    weight: Array  # [..., K, out, in + 1]
    weight_transposed: Array  # [..., K, in, out], without the bias
    gradient: Array  # as weight


class _Buffers(NamedTuple):
    """Memory of one layer for a fixed number of columns."""

    output: Array  # [..., K, out, N]; a view of `padded` for hidden layers
    padded: Array  # [..., K, out + 1, N]; the last row is ones
    transposed: Array  # [..., K, N, out + 1]
    delta: Array  # [..., K, out, N]; gradient with respect to the layer's output before the activation
    scratch: Array  # as delta


class StackedMLP:
    """``K`` MLPs of one shape on views of flat parameter and gradient vectors.

    Args:
        stack: their shape and places.
        flat: parameters ``[..., P]``.
        gradient: ``[..., P]``; :meth:`backward` overwrites this stack's part. ``None`` if there is no backward pass.
        arrays: the array library.
    """

    def __init__(self, stack: Stack, flat: Tensor, gradient: Tensor | None, arrays: Arrays) -> None:
        self.stack = stack
        self.arrays = arrays
        self._leading = tuple(flat.shape[:-1])
        self._device = flat.device
        self._layers = []
        for block in stack.blocks:
            weight = block.view(flat)
            self._layers.append(
                _Layer(
                    arrays.view(weight),
                    arrays.view(weight[..., :-1].mT),
                    arrays.view(block.view(flat if gradient is None else gradient)),
                )
            )
        self._buffers: dict[int, list[_Buffers]] = {}
        self._zero = arrays.view(torch.zeros((), device=self._device))

    def buffers(self, columns: int) -> list[_Buffers]:
        """Return the memory for ``columns`` samples, allocated at the first call."""
        if columns not in self._buffers:
            self._buffers[columns] = [self._allocate(block.rows, columns) for block in self.stack.blocks]
        return self._buffers[columns]

    def _allocate(self, rows: int, columns: int) -> _Buffers:
        shape = (*self._leading, len(self.stack.networks))
        padded = torch.ones(*shape, rows + 1, columns, device=self._device)
        delta, scratch = (torch.zeros(*shape, rows, columns, device=self._device) for _ in range(2))
        view = self.arrays.view
        return _Buffers(view(padded[..., :-1, :]), view(padded), view(padded.mT), view(delta), view(scratch))

    def forward(self, inputs: Array) -> Array:
        """Return all outputs ``[..., K, out, N]``; valid until the next call with as many columns.

        Args:
            inputs: ``[..., 1, in + 1, N]``, the last row ones.
        """
        arrays = self.arrays
        buffers = self.buffers(inputs.shape[-1])
        last = len(buffers) - 1
        for index, (layer, buffer) in enumerate(zip(self._layers, buffers, strict=True)):
            arrays.matmul(layer.weight, inputs, out=buffer.output)
            if index < last:
                if self.stack.activation == "tanh":
                    arrays.tanh(buffer.output, out=buffer.output)
                else:
                    arrays.maximum(buffer.output, self._zero, out=buffer.output)
            inputs = buffer.padded
        return buffers[-1].output

    def output_delta(self, columns: int) -> Array:
        """Return where the loss's gradient with respect to the outputs belongs, ``[..., K, out, N]``.

        Rows that belong to no output must stay zero.
        """
        return self.buffers(columns)[-1].delta

    def backward(self, inputs_transposed: Array) -> None:
        """Write the gradient of every weight, given :meth:`output_delta` and the activations of the last forward pass.

        Args:
            inputs_transposed: ``[..., 1, N, in + 1]``, of that forward pass.
        """
        arrays = self.arrays
        buffers = self.buffers(inputs_transposed.shape[-2])
        for index in range(len(buffers) - 1, -1, -1):
            layer, delta = self._layers[index], buffers[index].delta
            if index == 0:
                arrays.matmul(delta, inputs_transposed, out=layer.gradient)
                return
            below = buffers[index - 1]
            arrays.matmul(delta, below.transposed, out=layer.gradient)
            arrays.matmul(layer.weight_transposed, delta, out=below.delta)
            self._through_activation(below)

    def _through_activation(self, buffer: _Buffers) -> None:
        """Multiply ``delta`` by the activation's derivative, which both kinds give from their output."""
        arrays = self.arrays
        output, delta, scratch = buffer.output, buffer.delta, buffer.scratch
        if self.stack.activation == "tanh":
            arrays.multiply(output, output, out=scratch)
            arrays.multiply(scratch, delta, out=scratch)
            arrays.subtract(delta, scratch, out=delta)
        else:
            arrays.sign(output, out=scratch)
            arrays.multiply(delta, scratch, out=delta)
