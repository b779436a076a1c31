"""Several methods at once, as long as they do not contradict each other."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import Bound, EntropyControl, Stage

# What may have one owner only, and how an error says so.
QUANTITIES = {
    "clip_range": "set the clip range of the ratio",
    "entropy_coefficient": "set how strongly the loss rewards entropy",
    "entropy_target": "steer the entropy to a value of their own",
    "covariance": "treat the tokens of high covariance",
    "baseline": "compute the advantage anew from rewards",
    "entropy_scale": "scale the advantage by entropy, each with a shape of its own",
    "entropy_advantage": "add an advantage of future entropy",
    "temperature": "set the sampling temperature",
    "token_share": "choose which share of the tokens learns",
}


class Compose:
    """One or several methods, applied in order; what a trainer talks to.

    Advantages go from method to method, weights multiply, penalties add up, clip ranges go from method to method, and
    a completion stays if all keep it. Outside of ``mask`` advantages stay as they are and weights are 1.

    Args:
        methods: in order; kept, not copied.

    Raises:
        ValueError: if two of them contradict each other; says why.
    """

    def __init__(self, methods: Sequence[EntropyControl]) -> None:
        for each in methods:
            if not isinstance(each, EntropyControl):
                raise ValueError(f"`methods` must be instances of EntropyControl, got {each!r}; see make_method()")
        for first, second in combinations(methods, 2):
            reason = contradiction(first, second)
            if reason:
                raise ValueError(f"`methods`: {reason}")
        self.methods = tuple(methods)

    def only(self, stage: Stage) -> "Compose":
        """Return those whose :meth:`shape` belongs to a stage; they share their state with this one's."""
        return Compose([each for each in self.methods if each.stage == stage])

    def shape(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        for each in self.methods:
            batch = batch.replaced(advantage=torch.where(batch.mask, each.shape(batch), batch.advantage))
        return batch.advantage

    def weight(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        weight = torch.ones_like(batch.advantage)
        for each in self.methods:
            weight = torch.where(batch.mask, weight * each.weight(batch), weight)
        return weight

    def penalty(self, batch: TokenBatch) -> Float[Tensor, ""]:
        """See :class:`EntropyControl`."""
        return sum((each.penalty(batch) for each in self.methods), batch.advantage.new_zeros(()))

    def bounds(self, batch: TokenBatch, low: Bound, high: Bound) -> tuple[Bound, Bound]:
        """See :class:`EntropyControl`."""
        for each in self.methods:
            low, high = each.bounds(batch, low, high)
        return low, high

    def observe(self, batch: TokenBatch) -> None:
        """See :class:`EntropyControl`."""
        for each in self.methods:
            each.observe(batch)

    def temperature(self) -> float | None:
        """See :class:`EntropyControl`."""
        return next((value for each in self.methods if (value := each.temperature()) is not None), None)

    def keep(self, batch: TokenBatch) -> Bool[Tensor, " B"]:
        """See :class:`EntropyControl`."""
        keep = torch.ones_like(batch.reward, dtype=torch.bool)
        for each in self.methods:
            keep = keep & each.keep(batch)
        return keep

    def state_dict(self) -> dict[str, Any]:
        """Return each method's state by its name."""
        return {each.name: each.state_dict() for each in self.methods}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state of the same methods.

        Raises:
            ValueError: if it is of others.
        """
        names = [each.name for each in self.methods]
        if set(state) != set(names):
            raise ValueError(f"`state` must be of the methods {names}, got {sorted(state)}")
        for each in self.methods:
            each.load_state_dict(state[each.name])


def contradiction(first: EntropyControl, second: EntropyControl) -> str | None:
    """Return why two methods do not go together in this order, or ``None``."""
    if first.name == second.name:
        return f"{first.name} is there twice"
    shared = sorted(first.owns & second.owns)
    if shared:
        both = " and ".join(QUANTITIES[each] for each in shared)
        return f"{first.name} and {second.name} both {both}; leave one out"
    if "baseline" in second.owns and first.kind == "advantage":
        return f"{second.name} computes the advantage anew, so it must come before {first.name}, which changes it"
    if second.kind == first.kind == "advantage" and (first.stage, second.stage) == ("update", "batch"):
        return f"{second.name} shapes the advantage before the update, so it must come before {first.name}"
    return None
