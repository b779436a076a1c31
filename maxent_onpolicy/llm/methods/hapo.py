"""HAPO: advantages and clip ranges that follow the entropy of each token."""

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import Bound, EntropyControl
from maxent_onpolicy.llm.methods.formulas import fill, signed_entropy


@dataclass
class HAPO(EntropyControl):
    """Spreads advantages and clip ranges over tokens by their entropy (heterogeneous adaptive policy optimisation).

    With ĥ of :func:`~maxent_onpolicy.llm.methods.formulas.signed_entropy`: uncertain tokens (ĥ > 0) have the upper clip
    range ``high·(1 + ĥ)``, and the advantage ``A·(1 + ĥ)`` where the ratio has left the inner half of its range; the
    others the lower clip range ``low·(1 − ĥ)``, and ``A·(1 + ĥ)`` while the ratio is in that half (arXiv:2509.16591,
    the authors' code, but for the sign of ĥ). Left out: the baseline over a group's tokens, each token's temperature.

    Attributes:
        low: clip range below 1, in place of the trainer's; ``high`` is that above.
        pivot: quantile of the entropy at which ĥ is 0; its runs' value.
    """

    low: float = 0.2
    high: float = 0.2
    pivot: float = 0.8

    name = "hapo"
    source = "arXiv:2509.16591"
    verified = "code"
    released = "starriver030515/HAPO"
    kind = "advantage"
    stage = "update"
    owns = frozenset({"entropy_scale", "clip_range"})

    def __post_init__(self) -> None:
        self._check(low=(0, 0.5), high=(0, inf), pivot=(0, 1))

    def _signed_entropy(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        entropy = signed_entropy(batch.entropy[batch.mask], self.pivot)
        return fill(batch.mask, entropy, torch.zeros_like(batch.advantage))

    @torch.no_grad()
    def shape(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        entropy = self._signed_entropy(batch)
        low, high = self.bounds(batch, self.low, self.high)
        inner = (batch.ratio > 1 - low / 2) & (batch.ratio < 1 + high / 2)
        return torch.where(inner == (entropy > 0), batch.advantage, batch.advantage * (1 + entropy))

    @torch.no_grad()
    def bounds(self, batch: TokenBatch, low: Bound, high: Bound) -> tuple[Bound, Bound]:
        """See :class:`EntropyControl`."""
        entropy = self._signed_entropy(batch)
        return self.low * (1 - entropy.clamp(max=0)), self.high * (1 + entropy.clamp(min=0))
