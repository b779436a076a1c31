"""What a forward pass says of a batch, and the entropy advantage that follows from it."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maxent_onpolicy.estimators.advantages import AdvantageEstimate
from maxent_onpolicy.llm.advantages import token_entropy_advantage
from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.llm.trl.capture import states_of_tokens
from maxent_onpolicy.llm.trl.config import EntropyAdvantageGRPOConfig
from maxent_onpolicy.llm.trl.critic import EntropyCritic
from maxent_onpolicy.llm.turns import turn_discounted_entropy_advantage, turn_entropy_advantage, turn_starts


class Pass(NamedTuple):
    """TRL's three results of a forward pass, and the hidden states on the way.

    Attributes:
        log_prob: ``[B, T]``.
        entropy: ``[B, T]`` nats.
        aux_loss: of a mixture of experts.
        hidden: parts ``[b, P + T, D]`` of the batch; none without a critic.
    """

    log_prob: Tensor
    entropy: Tensor
    aux_loss: Tensor | None
    hidden: list[Tensor]


def looks_at_whole_batches(method: EntropyControl) -> bool:
    """Whether a method does something with a generated batch before it is split into parts."""
    overrides = [name for name in ("observe", "keep") if getattr(type(method), name) != getattr(EntropyControl, name)]
    return bool(overrides) or (method.stage == "batch" and type(method).shape != EntropyControl.shape)


def critic_advantage(
    args: EntropyAdvantageGRPOConfig,
    reward: Float[Tensor, "B T"],
    batch: TokenBatch,
    critic: EntropyCritic,
    hidden: Float[Tensor, "B S D"],
    cut_off: Bool[Tensor, " B"],
) -> tuple[AdvantageEstimate, Float[Tensor, "B T"]]:
    """Return ``A_H`` with the critic's targets, and its values.

    Args:
        args: says what is discounted, and how much.
        reward: ``[B, T]`` nats.
        batch: the completions.
        critic: of the future entropy.
        hidden: ``[B, P + T, D]`` of prompts and completions.
        cut_off: completions that a limit of length ended.
    """
    mask, tokens = batch.mask, batch.mask.shape[1]
    rows, places = (torch.arange(size, device=mask.device) for size in mask.shape)
    last = hidden[:, -tokens:][rows, (mask * places).argmax(1)]
    value = critic(states_of_tokens(hidden, tokens))
    # Where a completion was cut off, its future goes on after its last token, whose state stands for what would follow.
    settings: dict[str, Any] = {
        "entropy_gamma": args.entropy_gamma,
        "entropy_gae_lambda": args.entropy_gae_lambda,
        "truncated": cut_off,
        "last_value": critic(last),
    }
    if args.entropy_discount == "action":
        return turn_entropy_advantage(reward, value, batch.turn, **settings), value
    if args.entropy_discount == "turn":
        return turn_discounted_entropy_advantage(reward, value, batch.turn, **settings), value
    return token_entropy_advantage(reward, value, mask, **settings), value


def valued_tokens(discount: str, turn: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """Return where the critic's values are used: with turns as actions, at the first own token of each."""
    return turn_starts(turn) if discount == "action" else turn >= 0


def spread(bound: Any, kept: Bool[Tensor, " B"]) -> Any:
    """Return a clip bound, a number or a tensor, for all completions from one for those that are ``kept``."""
    if not isinstance(bound, Tensor) or bound.dim() == 0 or bound.shape[0] == 1:
        return bound
    found = bound.new_zeros((len(kept), *bound.shape[1:]))
    found[kept] = bound
    return found
