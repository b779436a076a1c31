"""The interface that all methods of entropy control share."""

from copy import deepcopy
from dataclasses import fields
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.validation import check_choice, check_integer, check_range

Kind = Literal["advantage", "weight", "regulariser", "clip", "sampling", "coefficient"]
Verified = Literal["code", "third", "abstract"]
Stage = Literal["batch", "update"]
Bound = float | Tensor


class EntropyValues(NamedTuple):
    """Of an entropy critic; see :func:`~maxent_onpolicy.llm.advantages.token_entropy_advantage`."""

    value: Tensor
    truncated: Tensor | None = None
    last_value: Tensor | None = None


class EntropyControl:
    """Base class; a subclass is a dataclass whose ``init=False`` fields are its state.

    A trainer calls the hooks in this order. For each generated batch: :meth:`temperature` before it, :meth:`observe`,
    :meth:`shape` of methods of the stage ``"batch"``, and :meth:`keep`. For each minibatch of the update:
    :meth:`shape` of methods of the stage ``"update"``, then :meth:`weight`, :meth:`bounds` and :meth:`penalty` on the
    batch with the new advantage. The loss of a token is ``weight·max(−r·A, −clip(r, 1 − low, 1 + high)·A)``. What
    hooks return outside of ``mask`` is of no use.

    Attributes:
        name: in the registry.
        source: where the method was published.
        verified: where the formula was read: the authors' ``"code"``, somebody else's (``"third"``), or only the
            ``"abstract"``, in which case no exact reproduction is claimed.
        released: the repository whose code gave numbers that its tests compare with; ``None`` if there is none.
        kind: what it acts on.
        stage: when :meth:`shape` is to be called.
        owns: what may have one owner only; keys of ``compose.QUANTITIES``.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    verified: ClassVar[Verified]
    released: ClassVar[str | None] = None
    kind: ClassVar[Kind]
    stage: ClassVar[Stage] = "batch"
    owns: ClassVar[frozenset[str]] = frozenset()

    def shape(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """Return the new advantage, without a gradient."""
        return batch.advantage

    def weight(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """Return what multiplies each token's policy-gradient loss, without a gradient; 0 leaves the token out."""
        return torch.ones_like(batch.advantage)

    def penalty(self, batch: TokenBatch) -> Float[Tensor, ""]:
        """Return what is added to the loss; its gradient goes through ``batch.log_prob`` or ``batch.entropy``."""
        return batch.advantage.new_zeros(())

    def bounds(self, batch: TokenBatch, low: Bound, high: Bound) -> tuple[Bound, Bound]:
        """Return the clip range of the ratio: it may lie between ``1 − low`` and ``1 + high``.

        Args:
            batch: the minibatch.
            low: what would hold without this method.
            high: the same above 1.

        Returns:
            Numbers, or tensors that broadcast to ``[B, T]``; without a gradient.
        """
        return low, high

    def observe(self, batch: TokenBatch) -> None:
        """Take in a generated batch, once."""

    def temperature(self) -> float | None:
        """Return the temperature to sample the next batch with; ``None`` leaves it to the trainer."""
        return None

    def keep(self, batch: TokenBatch) -> Bool[Tensor, " B"]:
        """Return which completions are trained on."""
        return torch.ones(len(batch.reward), dtype=torch.bool, device=batch.reward.device)

    def state_dict(self) -> dict[str, Any]:
        """Return the state: numbers, and lists of numbers."""
        return {each: deepcopy(getattr(self, each)) for each in self._state_names()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that :meth:`state_dict` returned.

        Raises:
            ValueError: if it belongs to another method.
        """
        names = self._state_names()
        if set(state) != set(names):
            raise ValueError(f"`state` of {self.name} must have the keys {names}, got {sorted(state)}")
        for each in names:
            setattr(self, each, deepcopy(state[each]))

    def _check(self, **intervals: tuple[float, float]) -> None:
        """Check that settings are numbers in their closed intervals."""
        for each, (low, high) in intervals.items():
            check_range(each, getattr(self, each), low, high)

    def _check_choices(self, **choices: tuple[Any, ...]) -> None:
        """Check that settings are among what is allowed."""
        for each, allowed in choices.items():
            check_choice(each, getattr(self, each), allowed)

    def _check_horizon(self, horizon: int | None) -> None:
        """Check that there is no horizon, or one of a batch or more."""
        check_integer("horizon", 1 if horizon is None else horizon, 1)

    def _state_names(self) -> list[str]:
        return [each.name for each in fields(self) if not each.init]  # type: ignore[arg-type]
