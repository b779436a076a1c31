"""How far a policy's action distribution is from one that is remembered, or from the uniform one."""

import copy
from typing import Any, TypeVar

import torch
from stable_baselines3.common.distributions import Distribution
from torch import Tensor
from torch import distributions as torch_distributions

from maxent_onpolicy.estimators.trust_region import bernoulli_kl, beta_kl, categorical_kl, gaussian_kl, uniform_kl

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
    if issubclass(kind, torch_distributions.Categorical):
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


def parameters_of(distribution: Distribution) -> Tensor:
    """Return what determines a policy's distribution, to compare others with by :func:`divergence_from`.

    Args:
        distribution: of a policy.

    Returns:
        ``[N, P]``.

    Raises:
        ValueError: for a distribution of a kind that is not known here.
    """
    return torch.cat([torch.cat(_parameters(part), dim=1) for part in _parts(distribution)], dim=1)


def divergence_from(new: Distribution, old_parameters: Tensor) -> Tensor:
    """Exact ``KL(new ‖ old)`` of whole actions, ``[N]`` in nats.

    Args:
        new: of a policy.
        old_parameters: ``[N, P]``, see :func:`parameters_of`; of the same policy, or one of the same kind.

    Raises:
        ValueError: for a distribution of a kind that is not known here.
    """
    total = old_parameters.new_zeros(len(old_parameters))
    start = 0
    for part in _parts(new):
        widths = [parameter.shape[1] for parameter in _parameters(part)]
        old = old_parameters[:, start : start + sum(widths)].split(widths, dim=1)
        start += sum(widths)
        kl = _DIVERGENCES[_kind(part)](*_parameters(part), *old)
        total = total + (kl if kl.dim() == 1 else kl.sum(1))
    return total


def uniform_divergence(distribution: Distribution) -> Tensor:
    """Exact ``KL(π ‖ uniform)`` of whole actions, ``[N]`` in nats; uniform over the legal ones where some are not.

    Raises:
        ValueError: for continuous actions, whose uniform distribution has no meaning for a policy without bounds.
    """
    total: Any = 0.0
    for part in _parts(distribution):
        if _kind(part) not in (torch_distributions.Categorical, torch_distributions.Bernoulli):
            raise ValueError(f"there is no uniform policy over continuous actions ({type(part).__name__})")
        logits = part.logits
        if _kind(part) is torch_distributions.Categorical:
            total = total + uniform_kl(part.entropy(), (logits > -torch.inf).sum(-1))
        else:
            total = total + uniform_kl(part.entropy(), 2.0).sum(1)
    return total


_DIVERGENCES: dict[type, Any] = {
    torch_distributions.Normal: gaussian_kl,
    torch_distributions.Categorical: categorical_kl,
    torch_distributions.Bernoulli: bernoulli_kl,
    torch_distributions.Beta: beta_kl,
}


def _parts(distribution: Distribution) -> list[Any]:
    inner = distribution.distribution
    return inner if isinstance(inner, list) else [inner]


def _kind(part: Any) -> type:
    found = next((kind for kind in _DIVERGENCES if isinstance(part, kind)), None)
    if found is None:
        raise ValueError(f"no divergence is known of the action distribution {type(part).__name__}")
    return found


def _parameters(part: Any) -> list[Tensor]:
    kind = _kind(part)
    if kind is torch_distributions.Normal:
        return [part.loc, part.scale]
    if kind is torch_distributions.Beta:
        return [part.concentration1, part.concentration0]
    return [part.logits]
