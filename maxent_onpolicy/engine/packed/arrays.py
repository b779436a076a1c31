"""The few array operations of the packed tier, in numpy on the CPU and in torch elsewhere.

At minibatches of 64 the cost of *calling* an operator is as large as its work:
numpy's calls are three times cheaper than torch's, while a GPU needs torch, whose
calls can be captured in a CUDA graph. Both are written with ``out=``, so that a
minibatch allocates nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Any  # np.ndarray or Tensor, as the namespace says


@dataclass(frozen=True)
class Arrays:
    """One array library's versions of the operations; each writes to ``out=``.

    Attributes:
        multiply: ``a·b``.
        add: ``a + b``.
        subtract: ``a − b``.
        divide: ``a/b``.
        matmul: batched matrix product.
        exp: elementwise.
        log: elementwise.
        tanh: elementwise.
        sign: elementwise.
        minimum: elementwise, of two arrays.
        maximum: elementwise, of two arrays.
        less_equal: elementwise ``a ≤ b``.
        sum_rows: sum over the second to last dimension, ``[..., R, N] → [..., N]``.
        max_rows: maximum over the second to last dimension, ``[..., R, N] → [..., N]``.
        take_columns: ``take_columns(a, indices, out)`` gathers along the last dimension.
        view: this library's array on the memory of a tensor.
    """

    multiply: Callable[..., Array]
    add: Callable[..., Array]
    subtract: Callable[..., Array]
    divide: Callable[..., Array]
    matmul: Callable[..., Array]
    exp: Callable[..., Array]
    log: Callable[..., Array]
    tanh: Callable[..., Array]
    sign: Callable[..., Array]
    minimum: Callable[..., Array]
    maximum: Callable[..., Array]
    less_equal: Callable[..., Array]
    sum_rows: Callable[..., Array]
    max_rows: Callable[..., Array]
    take_columns: Callable[[Array, Array, Array], Array]
    view: Callable[[Tensor], Array]


NUMPY = Arrays(
    multiply=np.multiply,
    add=np.add,
    subtract=np.subtract,
    divide=np.divide,
    matmul=np.matmul,
    exp=np.exp,
    log=np.log,
    tanh=np.tanh,
    sign=np.sign,
    minimum=np.minimum,
    maximum=np.maximum,
    less_equal=np.less_equal,
    # Not np.sum: the wrapper costs more than the sum.
    sum_rows=lambda a, out: np.add.reduce(a, axis=-2, out=out),
    max_rows=lambda a, out: np.maximum.reduce(a, axis=-2, out=out),
    # mode="clip" lets numpy write to `out` without a temporary copy; the indices are in range.
    take_columns=lambda a, indices, out: np.take(a, indices, axis=-1, out=out, mode="clip"),
    view=lambda tensor: tensor.numpy(),
)

TORCH = Arrays(
    multiply=torch.mul,
    add=torch.add,
    subtract=torch.sub,
    divide=torch.div,
    matmul=torch.matmul,
    exp=torch.exp,
    log=torch.log,
    tanh=torch.tanh,
    sign=torch.sign,
    minimum=torch.minimum,
    maximum=torch.maximum,
    less_equal=torch.le,
    sum_rows=lambda a, out: torch.sum(a, dim=-2, out=out),
    max_rows=lambda a, out: torch.amax(a, dim=-2, out=out),
    take_columns=lambda a, indices, out: torch.index_select(a, a.dim() - 1, indices, out=out),
    view=lambda tensor: tensor,
)


def arrays_for(device: torch.device) -> Arrays:
    """Return numpy's operations for the CPU, torch's for every other device."""
    return NUMPY if device.type == "cpu" else TORCH
