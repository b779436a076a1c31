"""Entropy advantages that count in turns of a conversation instead of tokens.

With hundreds of tokens a turn a discount γ_H < 1 for each token ends within the turn. Here either only the step from
one turn to the next is discounted, or a whole turn is one action. ``turn`` ``[B, T]`` numbers the turns of each
completion from 0, and is -1 for tokens that the policy did not choose; batch first, zeros there, no result has a
gradient.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maxent_onpolicy.estimators.advantages import AdvantageEstimate
from maxent_onpolicy.llm.advantages import (
    check_discounts,
    check_tokens,
    own_token_gae,
    token_entropy_advantage,
    value_after,
)
from maxent_onpolicy.validation import check_choice

TurnReduction = Literal["sum", "mean"]


@torch.no_grad()
def turn_discounted_entropy_advantage(
    entropy_reward: Float[Tensor, "B T"],
    entropy_value: Float[Tensor, "B T"],
    turn: Int[Tensor, "B T"],
    entropy_gamma: float,
    entropy_gae_lambda: float,
    truncated: Bool[Tensor, " B"] | None = None,
    last_value: Float[Tensor, " B"] | None = None,
    parallel: bool = False,
) -> AdvantageEstimate:
    """Entropy advantage of tokens, with γ_H once for each change of turn and no discount within a turn.

    ``δ_t = h_t + c_t·V_H,t+1 − V_H,t`` and ``A_t = δ_t + c_t·λ_H·A_t+1`` over own tokens, with ``c_t = γ_H`` where
    ``t+1`` belongs to another turn, else 1. λ_H acts from token to token. Turns in which the policy said nothing do not
    count.

    Args:
        entropy_reward: ``[B, T]`` nats.
        entropy_value: ``[B, T]`` entropy critic at the state from which each token was chosen.
        turn: ``[B, T]``.
        entropy_gamma: γ_H in ``[0, 1]`` from one turn to the next.
        entropy_gae_lambda: λ_H in ``[0, 1]`` from one own token to the next.
        truncated: ``[B]`` completions that a limit of length cut off. ``None``: all ended.
        last_value: ``[B]`` entropy critic after the last own token; the limit falls within that token's turn, so this
            is not discounted.
        parallel: as in :func:`~maxent_onpolicy.estimators.advantages.gae`, for each turn.

    Returns:
        ``A_H`` and the entropy critic's target ``A_H + V_H``.

    Raises:
        ValueError: if ``turn`` is not as described or falls within a completion, or as
            :func:`~maxent_onpolicy.llm.advantages.token_entropy_advantage`.
    """
    mask = _own_tokens(turn)
    check_tokens(mask, entropy_reward=entropy_reward, entropy_value=entropy_value)
    check_discounts(entropy_gamma, entropy_gae_lambda)
    after = value_after(mask, truncated, last_value)
    starts = turn_starts(turn)
    total = AdvantageEstimate(*torch.zeros((2, *turn.shape), device=turn.device))
    for number in reversed(turn[mask].unique().tolist()):
        # One turn is the recursion without a discount. What follows it, traces included, enters as the value after its
        # last token: c·(V + λ·A) is all that the next turn's first token adds to δ and to A there.
        here = turn == number
        part = own_token_gae(entropy_reward, entropy_value, here, after, 1.0, entropy_gae_lambda, parallel)
        first = here & starts
        bootstrap = entropy_gamma * (torch.where(first, entropy_value, 0.0) + entropy_gae_lambda * part.advantage)
        after = torch.where(first.any(1), torch.where(first, bootstrap, 0.0).sum(1), after)
        total = AdvantageEstimate(total.advantage + part.advantage, total.target + part.target)
    return total


@torch.no_grad()
def turn_entropy_advantage(
    entropy_reward: Float[Tensor, "B T"],
    entropy_value: Float[Tensor, "B T"],
    turn: Int[Tensor, "B T"],
    entropy_gamma: float,
    entropy_gae_lambda: float,
    reduction: TurnReduction = "sum",
    truncated: Bool[Tensor, " B"] | None = None,
    last_value: Float[Tensor, " B"] | None = None,
) -> AdvantageEstimate:
    """Entropy advantage with a whole turn as one action: all tokens of a turn share one number.

    Args:
        entropy_reward: ``[B, T]`` nats of each token.
        entropy_value: ``[B, T]`` entropy critic; only that at the first own token of each turn is read, see
            :func:`turn_starts`.
        turn: ``[B, T]``.
        entropy_gamma: γ_H in ``[0, 1]`` from one turn to the next.
        entropy_gae_lambda: λ_H in ``[0, 1]``, likewise.
        reduction: a turn's entropy reward is the ``"sum"`` of its tokens' (with sampled rewards ``−log π`` of the whole
            turn) or their ``"mean"``, which does not grow with its length.
        truncated: ``[B]`` completions that were cut off. ``None``: all ended.
        last_value: ``[B]`` entropy critic where the next turn would have begun.

    Returns:
        ``A_H`` and the target of the critic at the turn's first own token, both repeated over the turn's tokens.

    Raises:
        ValueError: if ``turn`` is not as described or falls within a completion, ``reduction`` is unknown, or as
            :func:`~maxent_onpolicy.llm.advantages.token_entropy_advantage`.
    """
    mask = _own_tokens(turn)
    check_choice("reduction", reduction, ("sum", "mean"))
    starts = turn_starts(turn)
    check_tokens(mask, entropy_reward=entropy_reward)
    check_tokens(starts, entropy_value=entropy_value)
    reward, value, length = (
        _sum_by_turn(x, turn)
        for x in (torch.where(mask, entropy_reward, 0.0), torch.where(starts, entropy_value, 0.0), mask.float())
    )
    if reduction == "mean":
        reward = reward / length.clamp(min=1)
    discounts = (entropy_gamma, entropy_gae_lambda)
    estimate = token_entropy_advantage(reward, value, length > 0, *discounts, truncated, last_value)
    return AdvantageEstimate(*(torch.where(mask, x.gather(1, turn.clamp(min=0).long()), 0.0) for x in estimate))


def turn_starts(turn: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """First own token of each turn: where the turn is higher than that of all tokens before."""
    before = torch.cat([torch.full_like(turn[:, :1], -1), turn[:, :-1]], 1).cummax(1).values
    return turn > before


def _own_tokens(turn: Tensor) -> Tensor:
    """Check the numbers of turns; return the mask of own tokens."""
    if turn.dim() != 2 or turn.is_floating_point() or turn.dtype == torch.bool:
        raise ValueError(f"`turn` must be integers of the shape [B, T], got {turn.dtype} {list(turn.shape)}")
    if (turn < -1).any():
        raise ValueError(f"`turn` must be -1 or more, got {int(turn.min())}")
    mask = turn >= 0
    if (mask & (turn < turn.cummax(1).values)).any():
        raise ValueError("`turn` must not fall within a completion")
    return mask


def _sum_by_turn(value: Tensor, turn: Tensor) -> Tensor:
    """Sum ``value`` ``[B, T]``, 0 outside of the mask, over the tokens of each turn: ``[B, K]``."""
    value = value.to(torch.promote_types(value.dtype, torch.float32))
    return value.new_zeros(len(value), int(turn.max()) + 1).scatter_add(1, turn.clamp(min=0).long(), value)
