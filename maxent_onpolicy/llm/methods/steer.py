"""STEER: tokens that would change the entropy much weigh less."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.validation import check_range


@dataclass
class STEER(EntropyControl):
    """Weighs tokens down by how much they would change the entropy (STEER).

    ``Ω = |A·r·(1 − π)(l + H)|`` and ``w = clamp(e^{−kΩ}, lowest, 1)`` with ``k = −ln lowest/max(Ω_max, floor)``, over
    the minibatch (arXiv:2510.10150, the authors' code; the paper's fourth version says 0.7).

    Attributes:
        lowest: weight of the token with the largest Ω.
        floor: of the largest Ω, so that small changes stay as they are.
    """

    lowest: float = 0.8
    floor: float = 0.02

    name = "steer"
    source = "arXiv:2510.10150"
    verified = "code"
    released = "zz-haooo/STEER"
    kind = "weight"

    def __post_init__(self) -> None:
        check_range("lowest", self.lowest, 0, 1, low_open=True)
        check_range("floor", self.floor, 0, low_open=True)

    @torch.no_grad()
    def weight(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        change = batch.advantage * batch.ratio * (1 - batch.log_prob.exp()) * (batch.log_prob + batch.entropy)
        change = change.abs()
        scale = -math.log(self.lowest) / change[batch.mask].max().clamp(min=self.floor)
        return (-scale * change).exp().clamp(self.lowest, 1)
