"""EMPG: confident turns learn more, and turns that lead to confident ones earn a bonus."""

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.llm.methods.formulas import turn_means


@dataclass
class EMPG(EntropyControl):
    """Scales each turn's advantage down with its entropy, and pays for a certain next turn (EMPG).

    ``A·g(H_t) + bonus·e^{−k'·H_{t+1}}`` minus the mean over turns, ``g = e^{−k·H}`` over its mean over turns, H the
    mean entropy of a turn, brought to [0, 1] by the batch's smallest and largest; the last turn earns no bonus
    (arXiv:2509.09265, read in an implementation that is not the authors').

    Attributes:
        scale: k.
        bonus_scale: k'.
        bonus: ζ.
    """

    scale: float = 1.0
    bonus_scale: float = 1.0
    bonus: float = 0.05

    name = "empg"
    source = "arXiv:2509.09265"
    verified = "third"
    released = "WillDreamer/ARLArena"
    kind = "advantage"
    owns = frozenset({"entropy_scale"})

    def __post_init__(self) -> None:
        self._check(scale=(0, inf), bonus_scale=(0, inf), bonus=(0, inf))

    @torch.no_grad()
    def shape(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        entropy, present = turn_means(batch.old_entropy, batch.mask, batch.turn)
        lowest, highest = entropy[present].min(), entropy[present].max()
        level = (entropy - lowest) / (highest - lowest + 1e-8)
        gain = (-self.scale * level).exp()
        gain = gain / gain[present].mean()
        clear = torch.where(present, (-self.bonus_scale * level).exp(), 0.0)
        clear = torch.cat([clear[:, 1:], torch.zeros_like(clear[:, :1])], 1)
        turn = torch.where(batch.mask, batch.turn, 0)
        shaped = batch.advantage * gain.gather(1, turn) + self.bonus * clear.gather(1, turn)
        turns, _ = turn_means(shaped, batch.mask, batch.turn)
        return shaped - turns[present].mean()
