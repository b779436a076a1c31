"""Losses of clipped policy optimisation, and the normalisation of their inputs."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def normalize_advantage(advantage: Float[Tensor, " N"], epsilon: float = 1e-8) -> Float[Tensor, " N"]:
    """Shift and scale to zero mean and unit (unbiased) standard deviation; a single element is returned as is."""
    if advantage.numel() <= 1:
        return advantage
    return (advantage - advantage.mean()) / (advantage.std() + epsilon)


# A number, or a scalar tensor where it is an input of a compiled program or depends on the minibatch.
Clip = Any


class SurrogateMetrics(NamedTuple):
    """Scalars about one policy step: fraction of clipped ratios and the estimated KL divergence (nats)."""

    clip_fraction: Tensor
    approx_kl: Tensor


def clipped_surrogate(
    log_prob: Float[Tensor, " N"],
    old_log_prob: Float[Tensor, " N"],
    advantage: Float[Tensor, " N"],
    clip_range: Clip,
    clip_range_high: Clip | None = None,
    kept: Bool[Tensor, " N"] | None = None,
) -> tuple[Float[Tensor, ""], SurrogateMetrics]:
    """PPO's clipped objective, negated (Schulman et al. 2017, arXiv:1707.06347, eq. 7).

    Args:
        log_prob: ``[N]`` under the policy being trained.
        old_log_prob: ``[N]`` under the policy that acted.
        advantage: ``[N]``, usually normalised.
        clip_range: ε in ``ratio ∈ [1 − ε, 1 + ε]``.
        clip_range_high: another ε above 1.
        kept: ``[N]``; samples where it is false count in the loss, but have no gradient. ``None``: all have.

    Returns:
        The scalar loss, and metrics; ``approx_kl`` is the low-variance estimator ``E[(ratio − 1) − log ratio]``
        (Schulman 2020, "Approximating KL divergence").
    """
    log_ratio = log_prob - old_log_prob
    ratio = torch.exp(log_ratio)
    unclipped = advantage * ratio
    high = clip_range if clip_range_high is None else clip_range_high
    clipped = advantage * torch.clamp(ratio, 1 - clip_range, 1 + high)
    objective = torch.min(unclipped, clipped)
    if kept is not None:
        objective = torch.where(kept, objective, objective.detach())
    loss = -objective.mean()
    with torch.no_grad():
        change = ratio - 1
        outside = change.abs() > clip_range if clip_range_high is None else (change > high) | (change < -clip_range)
        clip_fraction = outside.float().mean()
        approx_kl = ((ratio - 1) - log_ratio).mean()
    return loss, SurrogateMetrics(clip_fraction, approx_kl)


def surrogate_objective(
    log_prob: Float[Tensor, " N"], old_log_prob: Float[Tensor, " N"], advantage: Float[Tensor, " N"]
) -> Float[Tensor, ""]:
    """``E[π/π_old · A]``, to be increased within a trust region (Schulman et al. 2015, arXiv:1502.05477, eq. 14)."""
    return (advantage * torch.exp(log_prob - old_log_prob)).mean()


def clip_value(value: Float[Tensor, " N"], old_value: Float[Tensor, " N"], clip_range: float) -> Float[Tensor, " N"]:
    """Keep a critic's prediction within ``clip_range`` (in units of the value) of its prediction during the rollout."""
    return old_value + torch.clamp(value - old_value, -clip_range, clip_range)


def value_loss(value: Float[Tensor, " N"], target: Float[Tensor, " N"], std: float | Tensor = 1.0) -> Float[Tensor, ""]:
    """Mean squared error of a critic in units of its targets' standard deviation.

    Args:
        value: ``[N]`` predictions in the targets' own units.
        target: ``[N]``.
        std: scale of the targets; with PopArt, ``MSE(value, target)/σ²`` is the error of the normalised prediction
            against the normalised target.
    """
    loss = F.mse_loss(target, value)
    return loss if isinstance(std, float) and std == 1.0 else loss / std**2


def entropy_loss(log_prob: Float[Tensor, " N"], entropy: Float[Tensor, " N"] | None) -> Float[Tensor, ""]:
    """Negative mean entropy (nats), estimated as ``mean(log π)`` for a distribution without a closed form."""
    return -torch.mean(-log_prob) if entropy is None else -torch.mean(entropy)


def explained_variance(prediction: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """``1 − Var[target − prediction] / Var[target]``; NaN where the target is constant.

    1 is a perfect critic, 0 no better than a constant, negative worse than one.
    """
    variance = target.var(unbiased=False)
    residual = (target - prediction).var(unbiased=False)
    return torch.where(variance > 0, 1 - residual / variance, torch.full_like(variance, float("nan")))
