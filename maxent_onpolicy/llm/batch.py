"""What every estimator and every method of entropy control is given: completions as tensors ``[B, T]``."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """``B`` completions of at most ``T`` tokens, padded at the end.

    Tokens that the policy did not choose (what an environment or a tool wrote, padding) are outside of ``mask``; no
    method looks at their numbers or changes anything there.

    Attributes:
        log_prob: ``[B, T]`` ``log π`` of each token under the current policy; may carry a gradient.
        old_log_prob: ``[B, T]`` the same under the policy that sampled; without a gradient.
        entropy: ``[B, T]`` nats, of the current policy where the token was chosen; may carry a gradient.
        old_entropy: ``[B, T]`` nats, of the policy that sampled.
        advantage: ``[B, T]`` without a gradient.
        mask: ``[B, T]`` True for the policy's own tokens.
        turn: ``[B, T]`` number of the turn that a token belongs to, from 0; -1 outside of ``mask``.
        group: ``[B]`` number of the prompt that a completion answers.
        reward: ``[B]`` of whole completions.

    Raises:
        ValueError: if shapes differ, a completion has no token of the policy's own, or a number inside ``mask`` is not
            finite; names the field.
    """

    log_prob: Float[Tensor, "B T"]
    old_log_prob: Float[Tensor, "B T"]
    entropy: Float[Tensor, "B T"]
    old_entropy: Float[Tensor, "B T"]
    advantage: Float[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    turn: Int[Tensor, "B T"]
    group: Int[Tensor, " B"]
    reward: Float[Tensor, " B"]

    def __post_init__(self) -> None:
        shape = tuple(self.log_prob.shape)
        if len(shape) != 2:
            raise ValueError(f"`log_prob` must have the shape [B, T], got {list(shape)}")
        for field in fields(self):
            value: Tensor = getattr(self, field.name)
            wanted = shape[:1] if field.name in ("group", "reward") else shape
            if tuple(value.shape) != wanted:
                raise ValueError(f"`{field.name}` must have the shape {list(wanted)}, got {list(value.shape)}")
        if self.mask.dtype != torch.bool:
            raise ValueError(f"`mask` must be of the type bool, got {self.mask.dtype}")
        check_own_tokens(self.mask)
        for name in ("log_prob", "old_log_prob", "entropy", "old_entropy", "advantage"):
            if not torch.isfinite(getattr(self, name).detach()[self.mask]).all():
                raise ValueError(f"`{name}` has a NaN or infinite number inside `mask`")
        if not torch.isfinite(self.reward).all():
            raise ValueError("`reward` has a NaN or infinite number")

    @property
    def ratio(self) -> Float[Tensor, "B T"]:
        """``π/π_old`` of each token, 1 outside of ``mask``."""
        return torch.where(self.mask, self.log_prob - self.old_log_prob, 0.0).exp()

    def replaced(self, **changes: Any) -> Self:
        """Return the same batch with other fields."""
        return replace(self, **changes)


def turns_of(mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Number the turns of completions from 0: one ends where somebody else's tokens follow; -1 outside of ``mask``."""
    before = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)
    return torch.where(mask, (mask & ~before).cumsum(1) - 1, -1)


def check_own_tokens(mask: Bool[Tensor, "B T"]) -> None:
    """Raise if a completion has no token of the policy's own.

    Raises:
        ValueError: naming the rows.
    """
    empty = ~mask.any(1)
    if empty.any():
        rows = empty.nonzero().flatten().tolist()
        raise ValueError(f"`mask` has no token of the policy's own in the completions {rows}; leave them out")


def check_groups(group: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Int[Tensor, " G"]]:
    """Number the groups from 0, for whoever compares a completion with others of its prompt.

    Returns:
        The number of each completion's group, and the size of each group.

    Raises:
        ValueError: naming the prompts.
    """
    _, member_of, size = group.unique(return_inverse=True, return_counts=True)
    if (size == 1).any():
        alone = group[size[member_of] == 1].tolist()
        raise ValueError(f"`group` must have two completions or more of each prompt for a baseline, got one of {alone}")
    return member_of, size
