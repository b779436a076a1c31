"""How far a policy's action distribution has moved from one that is remembered."""

import copy
from typing import Any, TypeVar

import torch
from stable_baselines3.common.distributions import Distribution
from torch import Tensor
from torch import distributions as torch_distributions

from maxent_onpolicy.estimators.trust_region import bernoulli_kl, beta_kl, categorical_kl, gaussian_kl

AnyDistribution = TypeVar("AnyDistribution", bound=Distribution)


def remember(distribution: AnyDistribution) -> AnyDistribution:
    """Return a distribution that keeps its parameters when the policy sets the original to others."""
    return copy.copy(distribution)


def kl_divergence(new: Distribution, old: Distribution) -> Tensor:
    """Exact ``KL(new ‖ old)`` of two distributions of one policy, in nats.

    Args:
        new: of a policy.
        old: of the same policy before, see :func:`remember`. Squashed Gaussians are compared before squashing, which
            changes no divergence; gSDE's as the Gaussian over actions that its noise amounts to.

    Returns:
        ``[N, A]``, one for each of the independent dimensions of the action, or ``[N]`` for one that consists of
        choices.

    Raises:
        ValueError: if PyTorch knows no closed form for the distribution.
    """
    if isinstance(new.distribution, list):
        assert isinstance(old.distribution, list)
        pairs = zip(new.distribution, old.distribution, strict=True)
        return torch.stack([_kl_divergence(*pair) for pair in pairs], dim=1).sum(dim=1)
    return _kl_divergence(new.distribution, old.distribution)


def _kl_divergence(new: Any, old: Any) -> Tensor:
    # In torch's own order of operations, so that the gradients too are those of stable_baselines3's function.
    kind = type(new)
    if kind is torch_distributions.Normal:
        return gaussian_kl(new.loc, new.scale, old.loc, old.scale)
    if kind is torch_distributions.Categorical:
        return categorical_kl(new.logits, old.logits)
    if kind is torch_distributions.Bernoulli:
        return bernoulli_kl(new.logits, old.logits)
    if kind is torch_distributions.Beta:
        return beta_kl(new.concentration1, new.concentration0, old.concentration1, old.concentration0)
    try:
        return torch_distributions.kl_divergence(new, old)
    except NotImplementedError:
        raise ValueError(
            f"the action distribution {kind.__name__} has no closed form of the KL divergence that PyTorch knows"
        ) from None
