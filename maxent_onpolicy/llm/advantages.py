"""Advantages of the policy's own tokens, batch first ``[B, T]``.

What an environment or a tool wrote, and padding, is skipped: the recursion of
:func:`~maxent_onpolicy.estimators.entropy.entropy_advantage` runs over a completion's own tokens as if nothing stood
between them. Outside of the mask every result is 0, and whatever numbers stand there are ignored. No result has a
gradient.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maxent_onpolicy.estimators.advantages import AdvantageEstimate
from maxent_onpolicy.estimators.entropy import center, entropy_advantage, soft_advantage
from maxent_onpolicy.llm.batch import check_groups, check_own_tokens
from maxent_onpolicy.validation import check_choice, check_range

EntropyScale = Literal["none", "own", "task"]

# Spread below this fraction of the largest number is rounding.
SPREAD = 1e-5


@torch.no_grad()
def token_entropy_advantage(
    entropy_reward: Float[Tensor, "B T"],
    entropy_value: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    entropy_gamma: float,
    entropy_gae_lambda: float,
    truncated: Bool[Tensor, " B"] | None = None,
    last_value: Float[Tensor, " B"] | None = None,
    parallel: bool = False,
) -> AdvantageEstimate:
    """Entropy advantage of tokens (arXiv:2407.18143, with a token as the action).

    Args:
        entropy_reward: ``[B, T]`` nats; sampled, exact or centred.
        entropy_value: ``[B, T]`` entropy critic at the state from which each token was chosen.
        mask: ``[B, T]`` True for the policy's own tokens.
        entropy_gamma: γ_H in ``[0, 1]`` from one own token to the next.
        entropy_gae_lambda: λ_H in ``[0, 1]``, likewise.
        truncated: ``[B]`` completions that a limit of length cut off; others end with their last own token. ``None``:
            all ended.
        last_value: ``[B]`` entropy critic after the last own token; matters where ``truncated``.
        parallel: as in :func:`~maxent_onpolicy.estimators.advantages.gae`.

    Returns:
        ``A_H`` and the entropy critic's target ``A_H + V_H``.

    Raises:
        ValueError: if shapes or types are wrong, a completion has no own token, a number within the mask is not finite,
            a discount is out of range, or only one of ``truncated`` and ``last_value`` is given.
    """
    check_tokens(mask, entropy_reward=entropy_reward, entropy_value=entropy_value)
    check_discounts(entropy_gamma, entropy_gae_lambda)
    after = value_after(mask, truncated, last_value)
    return own_token_gae(entropy_reward, entropy_value, mask, after, entropy_gamma, entropy_gae_lambda, parallel)


@torch.no_grad()
def entropy_to_go(
    entropy_reward: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], entropy_gamma: float, parallel: bool = False
) -> Float[Tensor, "B T"]:
    """Entropy advantage without a critic: ``Σ_k γ_H^k·h_{t+k}`` over this own token and the later ones.

    :func:`token_entropy_advantage` with λ_H = 1 and V_H = 0. With nothing to bootstrap from, a completion that was cut
    off counts as one that ended there. Its level grows with what remains of a completion: subtract
    :func:`group_baseline`.

    Args:
        entropy_reward: ``[B, T]`` nats.
        mask: ``[B, T]``.
        entropy_gamma: γ_H in ``[0, 1]``.
        parallel: as in :func:`~maxent_onpolicy.estimators.advantages.gae`.

    Raises:
        ValueError: as :func:`token_entropy_advantage`.
    """
    none = torch.zeros_like(entropy_reward)
    return token_entropy_advantage(entropy_reward, none, mask, entropy_gamma, 1.0, parallel=parallel).advantage


def token_position(mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Number of each own token among its completion's own, from 0; -1 elsewhere."""
    return torch.where(mask, mask.cumsum(1) - 1, -1)


@torch.no_grad()
def group_baseline(
    to_go: Float[Tensor, "B T"],
    position: Int[Tensor, "B T"],
    group: Int[Tensor, " B"],
    leave_one_out: bool = False,
) -> Float[Tensor, "B T"]:
    """Mean over those completions of a group that have come as far, at the same position.

    Where nobody else in the group has, a completion is only compared with itself: the baseline is its own mean there,
    so that a token alone at its position has the advantage 0, with ``leave_one_out`` too.

    Args:
        to_go: ``[B, T]``, for example of :func:`entropy_to_go`.
        position: ``[B, T]`` what counts as the same position, -1 outside of the mask: :func:`token_position`, or the
            number of the turn; then all tokens of a turn share one baseline, to which each completion adds its mean
            there.
        group: ``[B]`` number of the prompt that a completion answers.
        leave_one_out: whether a completion is left out of its own baseline, which then does not depend on its tokens.

    Returns:
        ``[B, T]``, to be subtracted.

    Raises:
        ValueError: if a group has a single completion, or as :func:`token_entropy_advantage`.
    """
    mask = position >= 0
    check_tokens(mask, to_go=to_go, position=position)
    _check_rows(mask, "group", group)
    member_of, size = check_groups(group)
    column = position.clamp(min=0).long()
    to_go = torch.where(mask, to_go, 0.0).to(torch.promote_types(to_go.dtype, torch.float32))
    count = _at_position(mask.to(to_go.dtype), column)
    # A completion's own mean at each position it has, [B, P], and sums of these over its group.
    own_mean, present = _at_position(to_go, column) / count.clamp(min=1), (count > 0).to(to_go.dtype)
    total, members = (
        x.new_zeros(len(size), x.shape[1]).index_add(0, member_of, x)[member_of] for x in (own_mean, present)
    )
    mean = total / members.clamp(min=1)
    if leave_one_out:
        mean = torch.where(members > 1, (total - own_mean) / (members - 1).clamp(min=1), mean)
    return torch.where(mask, mean.gather(1, column), 0.0)


@torch.no_grad()
def critic_free_advantage(
    entropy_reward: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], group: Int[Tensor, " B"], entropy_gamma: float
) -> AdvantageEstimate:
    """Entropy to go less its group's mean at the same token as ``A_H``; its target is the entropy to go itself.

    Args:
        entropy_reward: ``[B, T]`` nats.
        mask: ``[B, T]``.
        group: ``[B]`` number of the prompt that a completion answers.
        entropy_gamma: γ_H in ``[0, 1]``.

    Raises:
        ValueError: as :func:`entropy_to_go` and :func:`group_baseline`.
    """
    to_go = entropy_to_go(entropy_reward, mask, entropy_gamma)
    return AdvantageEstimate(to_go - group_baseline(to_go, token_position(mask), group), to_go)


@torch.no_grad()
def scaled_entropy_advantage(
    entropy_advantage: Float[Tensor, "B T"],
    advantage: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    scale: EntropyScale = "task",
    ratio: float = 1.0,
    centered: bool = True,
) -> Float[Tensor, "B T"]:
    """Bring ``A_H`` to the task's scale: at first it is tens of nats, where advantages of groups are about 1.

    Standard deviations (not Bessel's) are over the own tokens of the batch that is given, so that long completions
    weigh more. With ``"task"`` a batch whose task advantage has no spread (all rewards equal) yields zeros: there is no
    scale to match. Likewise with ``"task"`` and ``"own"`` if ``A_H`` itself has no spread beyond rounding, centred or
    not.

    Args:
        entropy_advantage: ``[B, T]``.
        advantage: ``[B, T]`` of the task.
        mask: ``[B, T]``.
        scale: ``"task"``: standard deviation becomes ``ratio`` times the task advantage's; ``"own"``: becomes
            ``ratio``; ``"none"``: multiplied by ``ratio`` only.
        ratio: at least 0.
        centered: whether the mean over own tokens is subtracted before.

    Raises:
        ValueError: if ``scale`` or ``ratio`` is out of range, or as :func:`token_entropy_advantage`.
    """
    check_tokens(mask, entropy_advantage=entropy_advantage, advantage=advantage)
    check_choice("scale", scale, ("none", "own", "task"))
    check_range("ratio", ratio, low=0)
    own = entropy_advantage[mask].to(torch.promote_types(entropy_advantage.dtype, torch.float32))
    largest = own.abs().max()
    if centered:
        own = center(own)
    if scale != "none":
        spread = own.std(correction=0)
        wanted = advantage[mask].to(own.dtype).std(correction=0) if scale == "task" else torch.ones_like(spread)
        spread_is_real = spread > SPREAD * largest
        own = own * torch.where(spread_is_real, wanted / torch.where(spread_is_real, spread, 1.0), 0.0)
    return own.new_zeros(mask.shape).masked_scatter(mask, ratio * own)


@torch.no_grad()
def token_soft_advantage(
    advantage: Float[Tensor, "B T"],
    entropy_advantage: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    tau: float,
    scale: EntropyScale = "task",
    ratio: float = 1.0,
    centered: bool = True,
) -> Float[Tensor, "B T"]:
    """``A + τ·A_H`` within the mask, with ``A_H`` as :func:`scaled_entropy_advantage` makes it.

    With ``"task"`` and equal rewards in the whole batch this is ``A`` alone.

    Args:
        advantage: ``[B, T]`` of the task.
        entropy_advantage: ``[B, T]``.
        mask: ``[B, T]``.
        tau: temperature, at least 0.
        scale: see :func:`scaled_entropy_advantage`.
        ratio: see there.
        centered: see there.

    Raises:
        ValueError: as :func:`scaled_entropy_advantage`, or if ``tau`` is negative.
    """
    check_range("tau", tau, low=0)
    scaled = scaled_entropy_advantage(entropy_advantage, advantage, mask, scale, ratio, centered)
    return soft_advantage(torch.where(mask, advantage, 0.0), scaled, tau)


def own_token_gae(
    entropy_reward: Float[Tensor, "B T"],
    entropy_value: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    after: Float[Tensor, " B"],
    entropy_gamma: float,
    entropy_gae_lambda: float,
    parallel: bool = False,
) -> AdvantageEstimate:
    """Estimate over tokens within the mask, unchecked; rows without any have zeros.

    Args:
        entropy_reward: ``[B, T]``.
        entropy_value: ``[B, T]``.
        mask: ``[B, T]``.
        after: ``[B]`` value of what follows a row's last own token; 0 if nothing does.
        entropy_gamma: discount.
        entropy_gae_lambda: trace.
        parallel: as in :func:`~maxent_onpolicy.estimators.advantages.gae`.
    """
    dtype = torch.promote_types(torch.promote_types(entropy_reward.dtype, entropy_value.dtype), torch.float32)
    # Own tokens first, in their order; beyond the longest row's there is nothing.
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]
    own = mask.gather(1, order)
    reward, value = (torch.where(own, x.gather(1, order), 0.0).to(dtype) for x in (entropy_reward, entropy_value))
    nothing = torch.zeros_like(own[:, :1])
    last = own & ~torch.cat([own[:, 1:], nothing], 1)
    next_value = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1)
    next_value = torch.where(last, after.to(dtype).unsqueeze(1), next_value)
    columns = (reward.T, value.T, next_value.T, ~own.T, (last | ~own).T)
    estimate = entropy_advantage(*columns, entropy_gamma, entropy_gae_lambda, parallel)
    empty = reward.new_zeros(mask.shape)
    return AdvantageEstimate(*(empty.scatter(1, order, result.T) for result in estimate))


def value_after(
    mask: Bool[Tensor, "B T"], truncated: Bool[Tensor, " B"] | None, last_value: Float[Tensor, " B"] | None
) -> Float[Tensor, " B"]:
    """Value of what follows each completion: ``last_value`` where truncated, else 0.

    Raises:
        ValueError: if only one of the two is given, a shape or a type is wrong, or a value that is needed is not
            finite.
    """
    if (truncated is None) != (last_value is None):
        missing = "truncated" if truncated is None else "last_value"
        raise ValueError(f"`truncated` and `last_value` must be given together, got no `{missing}`")
    if truncated is None or last_value is None:
        return torch.zeros(len(mask), device=mask.device)
    _check_rows(mask, "truncated", truncated)
    _check_rows(mask, "last_value", last_value)
    if truncated.dtype != torch.bool:
        raise ValueError(f"`truncated` must be of the type bool, got {truncated.dtype}")
    if not torch.isfinite(last_value[truncated]).all():
        raise ValueError("`last_value` has a NaN or infinite number where `truncated`")
    return torch.where(truncated, last_value, 0.0)


def check_tokens(mask: Bool[Tensor, "B T"], **values: Tensor) -> None:
    """Check a mask and what belongs to its tokens.

    Raises:
        ValueError: if a shape or the mask's type is wrong, a completion has no own token, or a number is not finite.
    """
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(f"`mask` must be bool of the shape [B, T], got {mask.dtype} {list(mask.shape)}")
    check_own_tokens(mask)
    for name, value in values.items():
        if value.shape != mask.shape:
            raise ValueError(f"`{name}` must have the mask's shape {list(mask.shape)}, got {list(value.shape)}")
        if not torch.isfinite(value[mask]).all():
            raise ValueError(f"`{name}` has a NaN or infinite number inside the mask")


def check_discounts(entropy_gamma: float, entropy_gae_lambda: float) -> None:
    """Check γ_H and λ_H.

    Raises:
        ValueError: if one is outside of ``[0, 1]``.
    """
    check_range("entropy_gamma", entropy_gamma, 0, 1)
    check_range("entropy_gae_lambda", entropy_gae_lambda, 0, 1)


def _check_rows(mask: Tensor, name: str, value: Tensor) -> None:
    if value.shape != mask.shape[:1]:
        raise ValueError(f"`{name}` must have the shape {list(mask.shape[:1])}, got {list(value.shape)}")


def _at_position(value: Tensor, column: Tensor) -> Tensor:
    """Sum ``value`` ``[B, T]`` over equal ``column``: ``[B, P]``."""
    return value.new_zeros(len(value), int(column.max()) + 1).scatter_add(1, column, value)
