"""Clip-Cov: some of the tokens that lower entropy most lose their gradient."""

from dataclasses import dataclass, field
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.llm.methods.formulas import covariance, draw, fill
from maxent_onpolicy.validation import check_integer, check_pair, check_range


@dataclass
class ClipCov(EntropyControl):
    """Takes the gradient from random tokens of high covariance between advantage and log-probability (Clip-Cov).

    Of the tokens with ``low < (A − Ā)(l − l̄) < high`` that the ratio's clip range has not caught, ``max(1, share·N)``
    lose their gradient (arXiv:2505.22617, the authors' code). ``A`` and ``l`` are centred over the minibatch.

    Attributes:
        share: of all tokens; ``low`` and ``high`` are the ends of the covariance.
        clip: the clip range in force, below and above 1; needed to know which tokens it has caught.
        seed: of the choice; with ``draws``, the number of choices made, it fixes the next one.
    """

    share: float = 2e-4
    low: float = 1.0
    high: float = 5.0
    clip: tuple[float, float] = (0.2, 0.2)
    seed: int = 0
    draws: int = field(default=0, init=False)

    name = "clip_cov"
    source = "arXiv:2505.22617"
    verified = "code"
    released = "PRIME-RL/Entropy-Mechanism-of-RL"
    kind = "weight"
    owns = frozenset({"covariance"})

    def __post_init__(self) -> None:
        self._check(share=(0, 1), low=(-inf, inf), high=(self.low, inf))
        for end, value in zip((1, inf), check_pair("clip", self.clip), strict=True):
            check_range("clip", value, 0, end)
        check_integer("seed", self.seed, 0)

    @torch.no_grad()
    def weight(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        advantage, log_prob, ratio = (each[batch.mask] for each in (batch.advantage, batch.log_prob, batch.ratio))
        caught = torch.where(advantage > 0, ratio > 1 + self.clip[1], (advantage < 0) & (ratio < 1 - self.clip[0]))
        value = covariance(advantage, log_prob)
        eligible = (value > self.low) & (value < self.high) & ~caught
        chosen = draw(eligible, max(1, int(self.share * len(advantage))), 1_000_003 * self.seed + self.draws)
        self.draws += 1
        return fill(batch.mask, 1.0 - chosen.to(advantage.dtype), torch.ones_like(batch.advantage))
