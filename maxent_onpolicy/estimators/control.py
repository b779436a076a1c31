"""What decides sample by sample which policy gradients pass: the entropy ratio, and clip bounds that keep a balance."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TOLERANCE = 1e-5


def entropy_ratio(
    entropy: Float[Tensor, "*batch"], old_entropy: Float[Tensor, "*batch"], discrete: bool, epsilon: float = 1e-8
) -> Float[Tensor, "*batch"]:
    """How much more random a policy has become in each state.

    Args:
        entropy: nats, under the policy being trained.
        old_entropy: nats, under the policy that acted.
        discrete: whether they belong to discrete actions. Then the ratio is ``(H + ε)/(H_old + ε)`` as published (Su et
            al. 2025, arXiv:2512.05591). A differential entropy may be negative or zero, and changes with the actions'
            unit; ``exp(H − H_old)``, the ratio of the volumes that the two policies fill, does not. This is our
            extension.
        epsilon: keeps the division finite; the released code's.
    """
    if discrete:
        return (entropy + epsilon) / (old_entropy + epsilon)
    return torch.exp(entropy - old_entropy)


def within(ratio: Float[Tensor, "*batch"], low: float, high: float) -> Bool[Tensor, "*batch"]:
    """Whether ``low < ratio < high``."""
    return (ratio > low) & (ratio < high)


def balanced_bounds(
    ratio: Float[Tensor, "*batch N"],
    advantage: Float[Tensor, "*batch N"],
    lows: Float[Tensor, " L"],
    highs: Float[Tensor, " K"],
    target: float,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Clip bounds of the ratio that give positive advantages their share of a minibatch (BAPO, arXiv:2510.18927).

    With ``P = Σ_{A≥0} min(r, high)·A`` and ``M = Σ_{A<0} max(r, low)·|A|`` the share is ``P/(P + M)``. While it is
    below the target, first the lower bound takes its next candidate, then the upper one. As in the released code, a
    negative sample beyond the lower bound counts with that bound, so that raising it does not raise the share: it stops
    these samples' gradients, and is at its last candidate before the upper bound moves.

    Args:
        ratio: ``π/π_old``.
        advantage: on any scale.
        lows: candidates of the lower bound, rising.
        highs: candidates of the upper bound, rising.
        target: the share, in [0, 1).

    Returns:
        Lower and upper bound of each minibatch.
    """
    gain, loss = advantage.clamp(min=0).unsqueeze(-2), (-advantage).clamp(min=0).unsqueeze(-2)
    rows = ratio.unsqueeze(-2)
    positive = (torch.minimum(rows, highs.unsqueeze(-1)) * gain).sum(-1)  # [*batch, K]
    negative = (torch.maximum(rows, lows.unsqueeze(-1)) * loss).sum(-1)  # [*batch, L]
    # The share is below the target where P < odds·M; so no division by a sum that may be zero.
    # Normalised advantages balance exactly before the policy has moved, which rounding shall not turn into a step.
    odds = target / (1 - target) * (1 - TOLERANCE)
    low_met = positive[..., :1] >= odds * negative
    high_met = positive >= odds * negative[..., -1:]
    # Candidates rise: the first that will do is the smallest.
    low = torch.where(low_met, lows, lows[-1]).amin(-1)
    high = torch.where(low_met.any(-1, keepdim=True) | high_met, highs, highs[-1]).amin(-1)
    return low, high
