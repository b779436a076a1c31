"""Log-probabilities, entropies and their hand-derived gradients for the standard action distributions.

Samples are columns, as in ``network.py``: parameters ``[..., O, N]``, stored actions ``[..., A, N]``.
"""

import itertools
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maxent_onpolicy.engine.packed.arrays import Array, Arrays

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)
EntropyWeight = float | Array


def counts(weight: EntropyWeight) -> bool:
    """Whether an entropy's weight has to be computed with: numbers may be 0, arrays are taken as they come."""
    return not isinstance(weight, float) or weight != 0.0


def spread(weight: EntropyWeight, dimensions: int) -> EntropyWeight:
    """Return a weight that broadcasts over as many further dimensions before the samples'."""
    return weight if isinstance(weight, float) else weight.reshape(*weight.shape[:-1], *[1] * (dimensions + 1))


class PackedDistribution(Protocol):
    """An action distribution of the packed tier, on buffers for ``N`` columns.

    Attributes:
        action_rows: rows that a stored action takes: ``A``, or one-hot.
    """

    action_rows: int

    def log_prob(self, parameters: Array, action: Array) -> Array:
        """Return log-probabilities ``[..., N]`` of ``[..., action_rows, N]``, and keep what the gradient needs."""
        ...

    def entropy(self) -> Array:
        """Return entropies ``[..., N]`` (or ``[..., 1]`` where all are equal) for the last parameters."""
        ...

    def backward(self, weight: Array, entropy_weight: EntropyWeight, delta: Array) -> None:
        """Write the gradient of ``Σ_n weight_n·log π_n + entropy_weight·Σ_n H_n`` into ``delta`` ``[..., O, N]``.

        The entropy's weight is a number, where 0 computes nothing, or one for each stacked model, ``[..., 1]``.
        A free log standard deviation's gradient goes to its place in the flat gradient.
        """
        ...


class Gaussian:
    """Diagonal Gaussian: SB3's, and ours with a state-dependent or bounded log standard deviation.

    Args:
        action_dim: ``A``.
        log_std: free raw log standard deviations ``[..., A, 1]``, or ``None`` where the network gives them.
        log_std_gradient: where their gradient goes, ``[..., A]``.
        bounds: of the log standard deviation, or ``None``.
        columns: ``N``.
        arrays: the array library.
        make: ``make(*shape)`` allocates an array with the models' leading dimensions.
    """

    def __init__(
        self,
        action_dim: int,
        log_std: Array | None,
        log_std_gradient: Array | None,
        bounds: tuple[float, float] | None,
        columns: int,
        arrays: Arrays,
        make: Callable[..., Array],
    ) -> None:
        self.action_rows = self._action_dim = action_dim
        self._columns = columns
        self._bounds = bounds
        self._raw_log_std, self._log_std_gradient = log_std, log_std_gradient
        self._arrays = arrays
        width = 1 if log_std is not None else columns
        self._log_std, self._inverse_std, self._slope = (make(action_dim, width) for _ in range(3))
        self._normaliser = make(width)
        self._standard, self._squared = make(action_dim, columns), make(action_dim, columns)
        self._log_prob, self._correction = make(columns), make(columns)

    def log_prob(self, parameters: Array, action: Array) -> Array:
        """See :class:`PackedDistribution`."""
        arrays, dim = self._arrays, self._action_dim
        raw = self._raw_log_std if self._raw_log_std is not None else parameters[..., dim : 2 * dim, :]
        log_std = self._bound(raw)
        arrays.multiply(log_std, -1.0, out=self._inverse_std)
        arrays.exp(self._inverse_std, out=self._inverse_std)
        arrays.subtract(action, parameters[..., :dim, :], out=self._standard)
        arrays.multiply(self._standard, self._inverse_std, out=self._standard)
        arrays.multiply(self._standard, self._standard, out=self._squared)
        arrays.sum_rows(self._squared, out=self._log_prob)
        arrays.multiply(self._log_prob, -0.5, out=self._log_prob)
        arrays.sum_rows(log_std, out=self._normaliser)
        arrays.add(self._normaliser, dim * HALF_LOG_2_PI, out=self._normaliser)
        arrays.subtract(self._log_prob, self._normaliser, out=self._log_prob)
        return self._log_prob

    def _bound(self, raw: Array) -> Array:
        if self._bounds is None:
            return raw
        arrays, (low, high) = self._arrays, self._bounds
        # low + (high − low)·sigmoid(raw), with sigmoid(x) = (1 + tanh(x/2))/2.
        arrays.multiply(raw, 0.5, out=self._slope)
        arrays.tanh(self._slope, out=self._slope)
        arrays.multiply(self._slope, 0.5 * (high - low), out=self._log_std)
        arrays.add(self._log_std, 0.5 * (high + low), out=self._log_std)
        # Its derivative: (high − low)·(1 − tanh²)/4.
        arrays.multiply(self._slope, self._slope, out=self._slope)
        arrays.multiply(self._slope, -0.25 * (high - low), out=self._slope)
        arrays.add(self._slope, 0.25 * (high - low), out=self._slope)
        return self._log_std

    def entropy(self) -> Array:
        """See :class:`PackedDistribution`; ``Σ (log σ + ½ + ½ log 2π)``."""
        return self._normaliser + 0.5 * self._action_dim

    def backward(self, weight: Array, entropy_weight: EntropyWeight, delta: Array) -> None:
        """See :class:`PackedDistribution`."""
        arrays, dim = self._arrays, self._action_dim
        mean_delta = delta[..., :dim, :]
        arrays.multiply(self._standard, self._inverse_std, out=mean_delta)
        arrays.multiply(mean_delta, weight[..., None, :], out=mean_delta)
        arrays.subtract(self._squared, 1.0, out=self._squared)
        if self._raw_log_std is None:
            std_delta = delta[..., dim : 2 * dim, :]
            arrays.multiply(self._squared, weight[..., None, :], out=std_delta)
            if counts(entropy_weight):
                arrays.add(std_delta, spread(entropy_weight, 1), out=std_delta)
            if self._bounds is not None:
                arrays.multiply(std_delta, self._slope, out=std_delta)
            return
        gradient = self._log_std_gradient
        arrays.matmul(self._squared, weight[..., None], out=gradient)
        if counts(entropy_weight):
            arrays.add(gradient, spread(entropy_weight, 1) * self._columns, out=gradient)
        if self._bounds is not None:
            arrays.multiply(gradient, self._slope, out=gradient)


class Categorical:
    """``D`` independent categorical actions of ``n`` choices each; stored actions are one-hot.

    Args:
        choices: ``n`` of each of the ``D`` dimensions, all equal.
        columns: ``N``.
        arrays: the array library.
        make: ``make(*shape)`` allocates an array with the models' leading dimensions.
    """

    def __init__(self, choices: list[int], columns: int, arrays: Arrays, make: Callable[..., Array]) -> None:
        self._shape = (len(choices), choices[0], columns)
        self.action_rows = sum(choices)
        self._arrays = arrays
        self._logits, self._probability, self._scratch = (make(*self._shape) for _ in range(3))
        self._row, self._entropy = make(len(choices), columns), make(len(choices), columns)
        self._log_prob, self._entropy_sum = make(columns), make(columns)

    def _split(self, rows: Array) -> Array:
        """View ``[..., D·n, N]`` as ``[..., D, n, N]``."""
        return rows.reshape(*rows.shape[:-2], *self._shape)

    def log_prob(self, parameters: Array, action: Array) -> Array:
        """See :class:`PackedDistribution`."""
        arrays = self._arrays
        logits, row = self._split(parameters[..., : self.action_rows, :]), self._row
        arrays.max_rows(logits, out=row)
        arrays.subtract(logits, row[..., None, :], out=self._logits)
        arrays.exp(self._logits, out=self._probability)
        arrays.sum_rows(self._probability, out=row)
        arrays.divide(self._probability, row[..., None, :], out=self._probability)
        arrays.log(row, out=row)
        arrays.subtract(self._logits, row[..., None, :], out=self._logits)
        self._action = self._split(action)
        arrays.multiply(self._logits, self._action, out=self._scratch)
        arrays.sum_rows(self._scratch, out=row)
        arrays.sum_rows(row, out=self._log_prob)
        return self._log_prob

    def entropy(self) -> Array:
        """See :class:`PackedDistribution`."""
        arrays = self._arrays
        arrays.multiply(self._probability, self._logits, out=self._scratch)
        arrays.sum_rows(self._scratch, out=self._entropy)
        arrays.multiply(self._entropy, -1.0, out=self._entropy)
        arrays.sum_rows(self._entropy, out=self._entropy_sum)
        return self._entropy_sum

    def backward(self, weight: Array, entropy_weight: EntropyWeight, delta: Array) -> None:
        """See :class:`PackedDistribution`."""
        arrays = self._arrays
        rows = self._split(delta[..., : self.action_rows, :])
        arrays.subtract(self._action, self._probability, out=rows)
        arrays.multiply(rows, weight[..., None, None, :], out=rows)
        if counts(entropy_weight):
            # ∂H/∂logits = −p·(log p + H)
            self.entropy()
            arrays.add(self._logits, self._entropy[..., None, :], out=self._scratch)
            arrays.multiply(self._scratch, self._probability, out=self._scratch)
            arrays.multiply(self._scratch, spread(-entropy_weight, 2), out=self._scratch)
            arrays.add(rows, self._scratch, out=rows)


class UnequalCategorical:
    """Independent categorical actions with different numbers of choices, one after another.

    Args:
        choices: of each dimension.
        columns: ``N``.
        arrays: the array library.
        make: ``make(*shape)`` allocates an array with the models' leading dimensions.
    """

    def __init__(self, choices: list[int], columns: int, arrays: Arrays, make: Callable[..., Array]) -> None:
        self.action_rows = sum(choices)
        self._parts = [Categorical([n], columns, arrays, make) for n in choices]
        starts = np.cumsum([0, *choices])
        self._rows = [slice(start, stop) for start, stop in itertools.pairwise(starts.tolist())]

    def log_prob(self, parameters: Array, action: Array) -> Array:
        """See :class:`PackedDistribution`."""
        rows = zip(self._parts, self._rows, strict=True)
        return sum(part.log_prob(parameters[..., each, :], action[..., each, :]) for part, each in rows)

    def entropy(self) -> Array:
        """See :class:`PackedDistribution`."""
        return sum(part.entropy() for part in self._parts)

    def backward(self, weight: Array, entropy_weight: EntropyWeight, delta: Array) -> None:
        """See :class:`PackedDistribution`."""
        for part, rows in zip(self._parts, self._rows, strict=True):
            part.backward(weight, entropy_weight, delta[..., rows, :])


def encode_choices(action: Tensor, choices: list[int]) -> Tensor:
    """Return actions ``[n, D]`` one-hot, as rows ``[Σ choices, n]``."""
    columns = [F.one_hot(column.long(), n) for column, n in zip(action.T, choices, strict=True)]
    return torch.cat(columns, dim=1).T.float()


class Bernoulli:
    """``A`` independent binary actions.

    Args:
        action_dim: ``A``.
        columns: ``N``.
        arrays: the array library.
        make: ``make(*shape)`` allocates an array with the models' leading dimensions.
    """

    def __init__(self, action_dim: int, columns: int, arrays: Arrays, make: Callable[..., Array]) -> None:
        self.action_rows = action_dim
        self._arrays = arrays
        self._logits, self._probability, self._softplus, self._scratch = (make(action_dim, columns) for _ in range(4))
        self._log_prob, self._entropy = make(columns), make(columns)

    def log_prob(self, parameters: Array, action: Array) -> Array:
        """See :class:`PackedDistribution`; ``a·l − softplus(l)``."""
        arrays, scratch = self._arrays, self._scratch
        self._action = action
        logits = self._logits
        logits[...] = parameters[..., : self.action_rows, :]
        # σ(l) = (1 + tanh(l/2))/2 and softplus(l) = max(l, 0) + log(1 + exp(−|l|)), both without overflow.
        arrays.multiply(logits, 0.5, out=self._probability)
        arrays.tanh(self._probability, out=self._probability)
        arrays.multiply(self._probability, 0.5, out=self._probability)
        arrays.add(self._probability, 0.5, out=self._probability)
        arrays.multiply(logits, -1.0, out=scratch)
        arrays.minimum(logits, scratch, out=scratch)
        arrays.exp(scratch, out=scratch)
        arrays.add(scratch, 1.0, out=scratch)
        arrays.log(scratch, out=self._softplus)
        arrays.sign(logits, out=scratch)
        arrays.add(scratch, 1.0, out=scratch)
        arrays.multiply(scratch, 0.5, out=scratch)
        arrays.multiply(scratch, logits, out=scratch)
        arrays.add(self._softplus, scratch, out=self._softplus)
        arrays.multiply(action, logits, out=scratch)
        arrays.subtract(scratch, self._softplus, out=scratch)
        arrays.sum_rows(scratch, out=self._log_prob)
        return self._log_prob

    def entropy(self) -> Array:
        """See :class:`PackedDistribution`; ``softplus(l) − σ(l)·l``."""
        arrays = self._arrays
        arrays.multiply(self._probability, self._logits, out=self._scratch)
        arrays.subtract(self._softplus, self._scratch, out=self._scratch)
        arrays.sum_rows(self._scratch, out=self._entropy)
        return self._entropy

    def backward(self, weight: Array, entropy_weight: EntropyWeight, delta: Array) -> None:
        """See :class:`PackedDistribution`."""
        arrays = self._arrays
        rows = delta[..., : self.action_rows, :]
        arrays.subtract(self._action, self._probability, out=rows)
        arrays.multiply(rows, weight[..., None, :], out=rows)
        if counts(entropy_weight):
            # ∂H/∂l = −l·σ(l)·(1 − σ(l))
            scratch = self._scratch
            arrays.multiply(self._probability, self._probability, out=scratch)
            arrays.subtract(scratch, self._probability, out=scratch)
            arrays.multiply(scratch, self._logits, out=scratch)
            arrays.multiply(scratch, spread(entropy_weight, 1), out=scratch)
            arrays.add(rows, scratch, out=rows)
