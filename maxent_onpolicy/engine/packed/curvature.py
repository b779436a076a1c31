"""Second derivatives of the KL divergence with respect to an action distribution's parameters, in closed form.

Samples are columns: parameters are ``[O, N]``, as the actor's network gives them. Where new and old parameters are the
same, the second derivative is the Fisher information, which is a small matrix for every sample.
"""

import itertools
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from torch import Tensor

from maxent_onpolicy.estimators.trust_region import KLReduction, bernoulli_kl, categorical_kl, gaussian_kl
from maxent_onpolicy.policies.distributions import GaussianDistribution


class Curvature(Protocol):
    """The divergence of one kind of distribution around remembered parameters."""

    def remember(self, parameters: Tensor) -> None:
        """Take parameters ``[O, N]`` (and a free log standard deviation, as it is now) as those of the old policy."""
        ...

    def kl(self, parameters: Tensor) -> Tensor:
        """Return the divergences ``[N]`` of new parameters ``[O, N]`` from the old ones, reduced over the action."""
        ...

    def apply(self, tangent: Tensor, log_std_tangent: Tensor | None) -> Tensor | None:
        """Multiply a change of the parameters ``[O, N]`` by the Fisher information, in place.

        A change ``[A]`` of the free log standard deviation gives, for the sum over all samples, what is returned.
        """
        ...


def make_curvature(policy: ActorCriticPolicy, reduction: KLReduction) -> Curvature:
    """Return the curvature of a policy's action distribution, which the packed engine must know."""
    space = policy.action_space
    if isinstance(space, spaces.Discrete):
        return CategoricalCurvature([int(space.n)])
    if isinstance(space, spaces.MultiDiscrete):
        return CategoricalCurvature([int(n) for n in space.nvec])
    action_dim = get_action_dim(space)
    scale = 1.0 / action_dim if reduction == "mean" else 1.0
    if isinstance(space, spaces.MultiBinary):
        return BernoulliCurvature(action_dim, scale)
    kind = policy.action_dist
    bounds = kind.log_std_bounds if isinstance(kind, GaussianDistribution) else None
    bound = kind.bound if isinstance(kind, GaussianDistribution) else None
    return GaussianCurvature(action_dim, getattr(policy, "log_std", None), bounds, bound, scale)


class GaussianCurvature:
    """Of a diagonal Gaussian, also one whose samples are squashed: ``1/σ²`` for the mean and 2 for log σ.

    Args:
        action_dim: ``A``.
        log_std: the free raw log standard deviation ``[A]``; ``None`` where the network gives it.
        bounds: of the log standard deviation, or ``None``.
        bound: maps the raw value into them, or ``None``.
        scale: of each dimension's divergence.
    """

    def __init__(
        self,
        action_dim: int,
        log_std: Tensor | None,
        bounds: tuple[float, float] | None,
        bound: Callable[[Tensor], Tensor] | None,
        scale: float,
    ) -> None:
        self._action_dim, self._log_std, self._scale = action_dim, log_std, scale
        self._bounds, self._bound = bounds, bound

    def _raw(self, parameters: Tensor) -> Tensor:
        dim = self._action_dim
        return parameters[dim : 2 * dim] if self._log_std is None else self._log_std.detach()[:, None]

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return means ``[A, N]`` and standard deviations ``[A, N]`` or ``[A, 1]``."""
        raw = self._raw(parameters)
        return parameters[: self._action_dim], (raw if self._bound is None else self._bound(raw)).exp()

    def remember(self, parameters: Tensor) -> None:
        """See :class:`Curvature`."""
        mean, std = self._split(parameters)
        self._mean, self._std = mean.clone(), std.clone()
        self._mean_weight = self._scale / std.square()
        self._std_weight: Tensor | float = 2.0 * self._scale
        if self._bounds is not None:
            low, high = self._bounds
            fraction = self._raw(parameters).sigmoid()
            self._std_weight = 2.0 * self._scale * ((high - low) * fraction * (1 - fraction)).square()

    def kl(self, parameters: Tensor) -> Tensor:
        """See :class:`Curvature`."""
        mean, std = self._split(parameters)
        shape = mean.shape
        return self._scale * gaussian_kl(mean, std.expand(shape), self._mean, self._std.expand(shape)).sum(0)

    def apply(self, tangent: Tensor, log_std_tangent: Tensor | None) -> Tensor | None:
        """See :class:`Curvature`."""
        dim = self._action_dim
        tangent[:dim] *= self._mean_weight
        if self._log_std is None:
            tangent[dim : 2 * dim] *= self._std_weight
            return None
        assert log_std_tangent is not None
        weight = self._std_weight.flatten() if isinstance(self._std_weight, Tensor) else self._std_weight
        return tangent.shape[1] * weight * log_std_tangent


class CategoricalCurvature:
    """Of independent choices: ``diag(p) − p·pᵀ`` for the logits of each.

    Args:
        choices: their numbers.
    """

    def __init__(self, choices: list[int]) -> None:
        ends = np.cumsum([0, *choices]).tolist()
        self._rows = [slice(start, stop) for start, stop in itertools.pairwise(ends)]

    def remember(self, parameters: Tensor) -> None:
        """See :class:`Curvature`."""
        self._log_probs = [parameters[rows].log_softmax(0) for rows in self._rows]
        self._probabilities = [log_prob.exp() for log_prob in self._log_probs]

    def kl(self, parameters: Tensor) -> Tensor:
        """See :class:`Curvature`."""
        pairs = zip(self._rows, self._log_probs, strict=True)
        parts = [categorical_kl(parameters[rows].log_softmax(0).mT, old.mT) for rows, old in pairs]
        return torch.stack(parts).sum(0)

    def apply(self, tangent: Tensor, log_std_tangent: Tensor | None) -> Tensor | None:
        """See :class:`Curvature`."""
        for rows, probability in zip(self._rows, self._probabilities, strict=True):
            part = tangent[rows]
            part -= (probability * part).sum(0, keepdim=True)
            part *= probability
        return None


class BernoulliCurvature:
    """Of independent binary actions: ``p·(1 − p)`` for the log-odds of each.

    Args:
        action_dim: ``A``.
        scale: of each dimension's divergence.
    """

    def __init__(self, action_dim: int, scale: float) -> None:
        self._action_dim, self._scale = action_dim, scale

    def remember(self, parameters: Tensor) -> None:
        """See :class:`Curvature`."""
        self._logits = parameters[: self._action_dim].clone()
        probability = self._logits.sigmoid()
        self._weight = self._scale * probability * (1 - probability)

    def kl(self, parameters: Tensor) -> Tensor:
        """See :class:`Curvature`."""
        return self._scale * bernoulli_kl(parameters[: self._action_dim], self._logits).sum(0)

    def apply(self, tangent: Tensor, log_std_tangent: Tensor | None) -> Tensor | None:
        """See :class:`Curvature`."""
        tangent *= self._weight
        return None
