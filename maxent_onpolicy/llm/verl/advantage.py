"""The entropy still to come, from what verl gives to a policy loss; needs no verl."""

from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maxent_onpolicy.estimators.entropy import sampled_entropy_reward
from maxent_onpolicy.llm.advantages import EntropyScale, critic_free_advantage, token_position, token_soft_advantage
from maxent_onpolicy.validation import check_choice, check_range


@dataclass
class EntropyToGoSettings:
    """How the entropy still to come is estimated and weighed.

    Attributes:
        tau: weight τ; with 0 the loss is verl's.
        entropy_gamma: γ_H, from one of the policy's own tokens to the next.
        entropy_scale: what the standard deviation of ``A_H`` is brought to in each micro-batch: ``"own"`` to 1;
            ``"task"`` to that of the task's advantage, so that a micro-batch with equal advantages is left as it is;
            ``"none"`` leaves it in nats.

    Raises:
        ValueError: if one is out of range.
    """

    tau: float = 0.1
    entropy_gamma: float = 0.99
    entropy_scale: str = "own"

    def __post_init__(self) -> None:
        check_range("tau", self.tau, 0.0)
        check_range("entropy_gamma", self.entropy_gamma, 0.0, 1.0)
        check_choice("entropy_scale", self.entropy_scale, get_args(EntropyScale))


@torch.no_grad()
def micro_batch_to_go(
    old_log_prob: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], entropy_gamma: float
) -> Float[Tensor, "B T"]:
    """``A_H`` of a micro-batch: entropy to go, minus its mean over the completions that have come as far.

    A policy loss is not told which prompt a completion answers, so the whole micro-batch is one group of
    :func:`~maxent_onpolicy.llm.advantages.group_baseline`. What other prompts add to the mean does not depend on the
    token: with few completions it is noise, not bias. As there, a token that no other completion has come as far as
    is only compared with itself, and its ``A_H`` is 0; so is that of all tokens of a completion that is alone.

    Args:
        old_log_prob: ``[B, T]`` ``log π_old``. Its negative is the entropy reward, constant during an update.
        mask: ``[B, T]`` True for the policy's own tokens; unlike elsewhere a completion may have none.
        entropy_gamma: γ_H in ``[0, 1]``.

    Returns:
        ``[B, T]`` nats, 0 outside of the mask.

    Raises:
        ValueError: as :func:`~maxent_onpolicy.llm.advantages.entropy_to_go`.
    """
    kept = mask.any(1)
    future = torch.zeros_like(old_log_prob, dtype=torch.promote_types(old_log_prob.dtype, torch.float32))
    if kept.sum() > 1:
        own = mask[kept]
        group = torch.zeros_like(own[:, 0], dtype=torch.long)
        reward = sampled_entropy_reward(old_log_prob[kept])
        future[kept] = critic_free_advantage(reward, own, group, entropy_gamma).advantage
    return future


@torch.no_grad()
def micro_batch_soft_advantage(
    advantage: Float[Tensor, "B T"],
    entropy_advantage: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    settings: EntropyToGoSettings,
) -> Float[Tensor, "B T"]:
    """``A + τ·A_H`` within the mask, ``A_H`` scaled over the micro-batch; ``A`` elsewhere.

    Args:
        advantage: ``[B, T]`` of the task.
        entropy_advantage: ``[B, T]`` of :func:`micro_batch_to_go`.
        mask: ``[B, T]``; a completion may have no token.
        settings: τ and the scale.

    Raises:
        ValueError: as :func:`~maxent_onpolicy.llm.advantages.token_soft_advantage`.
    """
    kept, shaped = mask.any(1), advantage.clone()
    if kept.any():
        given, own = advantage[kept], mask[kept]
        scale: EntropyScale = settings.entropy_scale  # type: ignore[assignment]
        soft = token_soft_advantage(given, entropy_advantage[kept], own, settings.tau, scale)
        shaped[kept] = torch.where(own, soft, given).to(advantage.dtype)
    return shaped


def compared(mask: Bool[Tensor, "B T"]) -> float:
    """Part of the policy's own tokens as far as which another completion has come; 0 if there are no tokens."""
    position = token_position(mask)[mask]
    if not len(position):
        return 0.0
    return float((position.bincount()[position] > 1).float().mean())
