"""ERC: a token learns only where the entropy has changed little."""

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.estimators.control import entropy_ratio, within
from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl


@dataclass
class EntropyRatioClipping(EntropyControl):
    """Keeps a token's gradient only while ``low < H/H_old < high`` (entropy ratio clipping, ERC).

    arXiv:2512.05591, the authors' code; its runs use 0.95 and 1.05. See
    :func:`~maxent_onpolicy.estimators.control.entropy_ratio`.

    Attributes:
        low: the ratio must be above this.
        high: the ratio must be below this.
    """

    low: float = 0.8
    high: float = 1.2

    name = "erc"
    source = "arXiv:2512.05591"
    verified = "code"
    released = "Kwai-Klear/ERC"
    kind = "weight"

    def __post_init__(self) -> None:
        self._check(low=(0, 1), high=(1, inf))

    @torch.no_grad()
    def weight(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        ratio = entropy_ratio(batch.entropy, batch.old_entropy, discrete=True)
        return within(ratio, self.low, self.high).to(batch.advantage.dtype)
