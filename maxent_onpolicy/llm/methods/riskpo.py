"""RiskPO: bundles of prompts that went badly count more."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.llm.methods.formulas import mixed_value_at_risk
from maxent_onpolicy.validation import check_integer, check_range


@dataclass
class RiskPO(EntropyControl):
    """Advantage of a mixed value at risk of bundles of prompts, which weighs failures more (RiskPO).

    Prompts in the order of their numbers make bundles; the j-th completions of its prompts share the sum of their
    rewards as score, and :func:`~maxent_onpolicy.llm.methods.formulas.mixed_value_at_risk` of it as advantage, in place
    of the batch's (arXiv:2510.00911, the authors' code with equal credit; its tracked quantiles are left out).

    Attributes:
        low: quantile α; ``high`` is β.
        tail: weight of the tail below α.
        bundle: prompts in one; the last may have fewer.
    """

    low: float = 0.2
    high: float = 0.9
    tail: float = 1.5
    bundle: int = 5

    name = "riskpo"
    source = "arXiv:2510.00911"
    verified = "code"
    released = "RTkenny/RiskPO"
    kind = "advantage"
    owns = frozenset({"baseline"})

    def __post_init__(self) -> None:
        check_range("low", self.low, 0, 1, low_open=True, high_open=True)
        check_range("high", self.high, self.low, 1, low_open=True)
        self._check(tail=(0, float("inf")))
        check_integer("bundle", self.bundle, 1)

    @torch.no_grad()
    def shape(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        advantage = torch.empty_like(batch.reward)
        for bundle in batch.group.unique().split(self.bundle):
            rows = [(batch.group == prompt).nonzero().flatten() for prompt in bundle]
            if len({len(each) for each in rows}) > 1:
                raise ValueError(f"`group`: prompts {bundle.tolist()} have unequal numbers of completions")
            papers = torch.stack(rows)
            score = batch.reward[papers].sum(0)
            advantage[papers] = mixed_value_at_risk(score, self.low, self.high, self.tail).expand_as(papers)
        return advantage.unsqueeze(1).expand_as(batch.advantage).to(batch.advantage.dtype)
