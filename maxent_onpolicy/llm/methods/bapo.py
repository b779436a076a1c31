"""BAPO: clip bounds that give positive advantages their share."""

from dataclasses import dataclass

import torch

from maxent_onpolicy.controllers.formulas import candidates
from maxent_onpolicy.estimators.control import balanced_bounds
from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import Bound, EntropyControl
from maxent_onpolicy.validation import check_pair, check_range


@dataclass
class BAPO(EntropyControl):
    """Clip bounds that give positive advantages their share of every minibatch (BAPO).

    While the share is below ``target``, first the lower bound rises, then the upper one; they take the place of the
    trainer's clip range (arXiv:2510.18927, the authors' code). See
    :func:`~maxent_onpolicy.estimators.control.balanced_bounds`.

    Attributes:
        low: lower bound of the ratio: where it starts, and its highest value.
        high: upper bound of the ratio: where it starts, and its highest value.
        step: by which they move.
        target: share of positive advantages in the sum of all absolute contributions.
    """

    low: tuple[float, float] = (0.6, 0.9)
    high: tuple[float, float] = (1.2, 3.0)
    step: float = 0.05
    target: float = 0.5

    name = "bapo"
    source = "arXiv:2510.18927"
    verified = "code"
    released = "WooooDyy/BAPO"
    kind = "clip"
    owns = frozenset({"clip_range"})

    def __post_init__(self) -> None:
        low, high = check_pair("low", self.low), check_pair("high", self.high)
        check_range("low[0]", low[0], 0, 1)
        check_range("low[1]", low[1], low[0], 1)
        check_range("high[0]", high[0], 1)
        check_range("high[1]", high[1], high[0])
        check_range("step", self.step, 0, low_open=True)
        check_range("target", self.target, 0, 1, high_open=True)

    @torch.no_grad()
    def bounds(self, batch: TokenBatch, low: Bound, high: Bound) -> tuple[Bound, Bound]:
        """See :class:`EntropyControl`."""
        ratio, advantage = batch.ratio[batch.mask], batch.advantage[batch.mask]
        lows, highs = (ratio.new_tensor(candidates(*each, self.step)) for each in (self.low, self.high))
        lower, upper = balanced_bounds(ratio, advantage, lows, highs, self.target)
        return 1 - lower, upper - 1
