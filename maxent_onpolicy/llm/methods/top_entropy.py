"""Only the most uncertain tokens learn."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.validation import check_range


@dataclass
class TopEntropy(EntropyControl):
    """Leaves their gradient to the tokens of the highest entropy only (top-quantile mask).

    Those at or above the ``1 − share`` quantile of the minibatch's entropies (arXiv:2506.01939, read in TRL).

    Attributes:
        share: of the tokens that learn.
    """

    share: float = 0.2

    name = "top_entropy"
    source = "arXiv:2506.01939"
    verified = "third"
    released = "huggingface/trl"
    kind = "weight"
    owns = frozenset({"token_share"})

    def __post_init__(self) -> None:
        check_range("share", self.share, 0, 1, low_open=True)

    @torch.no_grad()
    def weight(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        threshold = torch.quantile(batch.entropy[batch.mask], 1 - self.share)
        return (batch.entropy >= threshold).to(batch.advantage.dtype)
