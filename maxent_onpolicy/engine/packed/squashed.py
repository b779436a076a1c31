"""The tanh-Gaussian of the packed tier; the density is that of ``policies.distributions.TanhGaussianDistribution``."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maxent_onpolicy.engine.packed.arrays import Array
from maxent_onpolicy.engine.packed.distributions import HALF_LOG_2_PI, EntropyWeight, Gaussian, counts
from maxent_onpolicy.policies.distributions import LOG_2

EPSILON = torch.finfo(torch.float32).eps
# The outermost actions stand for everything that rounds to them: their density is the tail's probability over this.
TAIL_WIDTH = 1.25 * EPSILON
TAIL_START = math.atanh(1.0 - TAIL_WIDTH)


def encode_squashed(action: Tensor) -> Tensor:
    """Return what does not depend on the parameters, as rows ``[3·A, n]`` for actions ``[n, A]``.

    The Gaussian actions, the squashing's log-derivatives, and the sign where the action is an outermost one (else 0).
    """
    inside = action.clamp(-1.0 + EPSILON, 1.0 - EPSILON)
    gaussian = torch.atanh(inside)
    correction = 2.0 * (LOG_2 - gaussian - F.softplus(-2.0 * gaussian))
    tail = inside.sign() * (inside.abs() >= 1.0 - EPSILON)
    return torch.cat([gaussian.T, correction.T, tail.T])


class TanhGaussian(Gaussian):
    """Gaussian squashed by tanh; its entropy is estimated from the sampled action, as it has no closed form.

    Args:
        *args: as :class:`~maxent_onpolicy.engine.packed.distributions.Gaussian`.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.action_rows = 3 * self._action_dim

    def log_prob(self, parameters: Array, action: Array) -> Array:
        """See :class:`~maxent_onpolicy.engine.packed.distributions.PackedDistribution`."""
        arrays, dim = self._arrays, self._action_dim
        super().log_prob(parameters, action[..., :dim, :])
        tail = action[..., 2 * dim :, :]
        arrays.sum_rows(action[..., dim : 2 * dim, :], out=self._correction)
        arrays.subtract(self._log_prob, self._correction, out=self._log_prob)
        # On a GPU asking whether there is any tail costs more than computing it.
        if isinstance(tail, Tensor) or tail.any():
            self._tails(*(torch.as_tensor(part) for part in (parameters, action, tail)))
        return self._log_prob

    def _tails(self, parameters: Tensor, action: Tensor, tail: Tensor) -> None:
        """Replace the outermost actions' densities, and the derivatives that :meth:`backward` uses."""
        dim = self._action_dim
        standard, squared, inverse_std, log_prob = (
            torch.as_tensor(part) for part in (self._standard, self._squared, self._inverse_std, self._log_prob)
        )
        outermost = tail != 0
        excess = (tail * parameters[..., :dim, :] - TAIL_START) * inverse_std
        log_tail = torch.special.log_ndtr(excess)
        density = -0.5 * squared + inverse_std.log() - HALF_LOG_2_PI - action[..., dim : 2 * dim, :]
        correction = torch.where(outermost, log_tail - math.log(TAIL_WIDTH) - density, 0.0)
        log_prob += correction.sum(-2)
        # The derivative of log Φ, the inverse Mills ratio.
        ratio = torch.exp(-0.5 * excess.square() - HALF_LOG_2_PI - log_tail)
        standard.copy_(torch.where(outermost, tail * ratio, standard))
        squared.copy_(torch.where(outermost, 1.0 - excess * ratio, squared))

    def entropy(self) -> Array:
        """See :class:`~maxent_onpolicy.engine.packed.distributions.PackedDistribution`; ``−log π`` of the actions."""
        return -self._log_prob

    def backward(self, weight: Array, entropy_weight: EntropyWeight, delta: Array) -> None:
        """See :class:`~maxent_onpolicy.engine.packed.distributions.PackedDistribution`."""
        if counts(entropy_weight):
            self._arrays.subtract(weight, entropy_weight, out=weight)
        super().backward(weight, 0.0, delta)
