"""An advantage that grows with the entropy of its token."""

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.validation import check_range


@dataclass
class EntropyShaped(EntropyControl):
    """Adds to each advantage a part of the token's entropy, at most a share of its size (entropy-shaped advantage).

    ``A + min(coef·H, |A|/limit)`` with the entropy held constant (arXiv:2506.14758, released code; the paper itself
    uses other limits for other algorithms).

    Attributes:
        coef: advantage per nat.
        limit: κ; with more than 1 no advantage changes its sign.
    """

    coef: float = 0.4
    limit: float = 1.0

    name = "entropy_shaped"
    source = "arXiv:2506.14758"
    verified = "code"
    released = "Linn3a/siren"
    kind = "advantage"
    stage = "update"

    def __post_init__(self) -> None:
        self._check(coef=(0, inf))
        check_range("limit", self.limit, 0, low_open=True)

    @torch.no_grad()
    def shape(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        return batch.advantage + torch.minimum(self.coef * batch.entropy, batch.advantage.abs() / self.limit)
