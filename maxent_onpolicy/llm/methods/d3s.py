"""D3S: only the completions and tokens that teach most are trained on."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.llm.methods.formulas import fill, largest, rising_share, row_means, widest
from maxent_onpolicy.validation import check_range


@dataclass
class D3S(EntropyControl):
    """Trains on the completions whose advantages vary most, and their tokens of largest ``|A|·H`` (D3S down-sampling).

    arXiv:2509.22115, from the abstract: no exact reproduction. The shares and their linear schedule are ours.

    Attributes:
        completions: share that is kept at first; ``tokens`` is that of tokens.
        horizon: batches, of which ``seen`` are over, until everything is kept; ``None``: the shares stay.
    """

    completions: float = 0.5
    tokens: float = 0.2
    horizon: int | None = None
    seen: int = field(default=0, init=False)

    name = "d3s"
    source = "arXiv:2509.22115"
    verified = "abstract"
    kind = "sampling"
    owns = frozenset({"token_share"})

    def __post_init__(self) -> None:
        for each in ("completions", "tokens"):
            check_range(each, getattr(self, each), 0, 1, low_open=True)
        self._check_horizon(self.horizon)

    def _count(self, start: float, size: int) -> int:
        return max(1, round(rising_share(start, self.seen, self.horizon) * size))

    def observe(self, batch: TokenBatch) -> None:
        """See :class:`EntropyControl`."""
        self.seen += 1

    @torch.no_grad()
    def keep(self, batch: TokenBatch) -> Bool[Tensor, " B"]:
        """See :class:`EntropyControl`."""
        advantage = row_means(batch.advantage, batch.mask)
        return widest(advantage, self._count(self.completions, len(advantage)))

    @torch.no_grad()
    def weight(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        signal = (batch.advantage.abs() * batch.entropy)[batch.mask]
        kept = largest(signal, self._count(self.tokens, len(signal)))
        return fill(batch.mask, kept.to(signal.dtype), torch.zeros_like(batch.advantage))
