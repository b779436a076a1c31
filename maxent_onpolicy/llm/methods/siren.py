"""SIREN: entropy is held at its first value, where it is high."""

from dataclasses import dataclass, field
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.llm.methods.formulas import peak_entropy
from maxent_onpolicy.validation import check_range


@dataclass
class SIREN(EntropyControl):
    """Holds the entropy of each completion's most uncertain tokens at its value of the first batch (SIREN).

    ``coef·(H − anchor)²``, H the mean over completions of the mean over tokens above the completion's quantile
    (arXiv:2509.25133, the authors' code). The published method gives
    :func:`~maxent_onpolicy.llm.methods.formulas.nucleus_entropy` as the batch's entropies; with others it is a variant.

    Attributes:
        coef: c.
        quantile: of a completion's own tokens.
        anchor: nats, of the first batch.
    """

    coef: float = 0.005
    quantile: float = 0.8
    anchor: float | None = field(default=None, init=False)

    name = "siren"
    source = "arXiv:2509.25133"
    verified = "code"
    released = "Linn3a/siren"
    kind = "regulariser"
    owns = frozenset({"entropy_coefficient", "entropy_target"})

    def __post_init__(self) -> None:
        self._check(coef=(0, inf))
        check_range("quantile", self.quantile, 0, 1, high_open=True)

    @torch.no_grad()
    def observe(self, batch: TokenBatch) -> None:
        """See :class:`EntropyControl`."""
        if self.anchor is None:
            self.anchor = peak_entropy(batch.old_entropy, batch.mask, self.quantile).item()

    def penalty(self, batch: TokenBatch) -> Float[Tensor, ""]:
        """See :class:`EntropyControl`."""
        if self.anchor is None:
            raise ValueError("siren has no anchor yet: `observe` the first generated batch before its update")
        return self.coef * (peak_entropy(batch.entropy, batch.mask, self.quantile) - self.anchor).square()
