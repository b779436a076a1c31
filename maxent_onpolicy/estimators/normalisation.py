"""Running moments and PopArt, as functions of their state."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class RunningMoments:
    """Mean, population variance and weight of all samples seen so far.

    Attributes:
        mean: ``[...]``.
        var: ``[...]``.
        count: scalar; a small positive start weight keeps the first update finite.
    """

    mean: Tensor
    var: Tensor
    count: Tensor


def running_moments_update(state: RunningMoments, batch: Float[Tensor, "N ..."]) -> RunningMoments:
    """Merge a batch of samples into running moments.

    Chan, Golub & LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample variances".

    Args:
        state: moments so far, each ``[...]``.
        batch: ``[N, ...]`` new samples.

    Returns:
        The moments of old and new samples together; ``state`` itself if the batch is empty.
    """
    batch_count = batch.shape[0]
    if batch_count == 0:
        return state
    batch = batch.to(state.mean.dtype)
    batch_mean = batch.mean(dim=0)
    # Not Tensor.var: over the first dimension of a contiguous batch it is many times slower.
    batch_var = (batch - batch_mean).square().mean(dim=0)
    total = state.count + batch_count
    delta = batch_mean - state.mean
    mean = state.mean + delta * batch_count / total
    second_moment = (
        state.var * state.count + batch_var * batch_count + delta.square() * state.count * batch_count / total
    )
    return RunningMoments(mean, second_moment / total, total)


class PopArtState(NamedTuple):
    """Exponentially weighted first and second moment of a critic's targets, before debiasing.

    Attributes:
        mean: scalar; ``Σ_i w_i·x_i``.
        mean_square: scalar; ``Σ_i w_i·x_i²``.
        weight: scalar; ``Σ_i w_i``, in ``[0, 1]``. Zero means that nothing has been seen.
    """

    mean: Tensor
    mean_square: Tensor
    weight: Tensor


def popart_update(state: PopArtState, target: Float[Tensor, "*shape"], beta: float) -> PopArtState:
    """Move PopArt's moments towards those of a batch of targets.

    van Hasselt et al. (2016), "Learning values across many orders of magnitude", eq. 6.

    Args:
        state: moments so far.
        target: critic targets in their own units, any shape.
        beta: weight of this batch, in ``(0, 1]``.
    """
    target = target.to(state.mean.dtype)
    return PopArtState(
        mean=torch.lerp(state.mean, target.mean(), beta),
        mean_square=torch.lerp(state.mean_square, target.square().mean(), beta),
        weight=torch.lerp(state.weight, torch.ones_like(state.weight), beta),
    )


def popart_moments(state: PopArtState, min_std: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Return debiased mean and standard deviation, each a scalar.

    Dividing by the accumulated weight removes the bias towards the zero start.
    Before the first update the moments are those of an identity map, (0, 1), so
    that the first update does not multiply the head by zero.

    Args:
        state: PopArt's moments.
        min_std: lower bound that keeps constant targets from blowing up the head.
    """
    seen = state.weight > 0
    weight = torch.where(seen, state.weight, torch.ones_like(state.weight))
    mean = state.mean / weight
    variance = state.mean_square / weight - mean.square()
    std = variance.clamp(min=min_std**2).sqrt()
    return mean, torch.where(seen, std, torch.ones_like(std))


def popart_rescale(
    weight: Float[Tensor, "1 features"],
    bias: Float[Tensor, "1"],
    old: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return head parameters that leave the denormalised output unchanged under new moments.

    van Hasselt et al. (2016), eq. 9: ``σ·(Wh + b) + μ`` before equals the same expression after.

    Args:
        weight: ``[1, F]`` of the linear head.
        bias: ``[1]`` of the linear head.
        old: ``(mean, std)`` under which the head was trained.
        new: ``(mean, std)`` from now on.
    """
    (old_mean, old_std), (new_mean, new_std) = old, new
    rescaled_weight = weight * (old_std / new_std).to(weight.dtype)
    rescaled_bias = (bias * old_std + old_mean - new_mean) / new_std
    return rescaled_weight, rescaled_bias.to(bias.dtype)
