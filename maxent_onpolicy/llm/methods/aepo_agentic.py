"""Agentic AEPO: uncertain tokens have larger advantages."""

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl


@dataclass
class AgenticAEPO(EntropyControl):
    """Scales each advantage with the standardised entropy of its token (agentic AEPO).

    ``A·(1 + scale·z)``, ``z = (H − mean)/deviation`` over the batch's tokens (arXiv:2510.14545, read in an
    implementation that is not the authors'). Its branching of rollouts is left out.

    Attributes:
        scale: share of the advantage per deviation.
    """

    scale: float = 0.2

    name = "aepo_agentic"
    source = "arXiv:2510.14545"
    verified = "third"
    released = "WillDreamer/ARLArena"
    kind = "advantage"
    owns = frozenset({"entropy_scale"})

    def __post_init__(self) -> None:
        self._check(scale=(0, inf))

    @torch.no_grad()
    def shape(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        inside = batch.old_entropy[batch.mask]
        score = (batch.old_entropy - inside.mean()) / (inside.std(correction=int(len(inside) > 1)) + 1e-8)
        return batch.advantage * (1 + self.scale * score)
