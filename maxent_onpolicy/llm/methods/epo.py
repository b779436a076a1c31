"""EPO: an entropy bonus, and a penalty for leaving the past entropy of the same turn."""

from dataclasses import dataclass, field
from math import inf

from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.llm.methods.formulas import add_turn_means, epo_phase_weight, history_means, turn_range_excess


@dataclass
class EPO(EntropyControl):
    """Entropy bonus with smoothing towards the past entropy of each turn (EPO).

    ``−c·(mean H − s·w·mean P)``: P of a token is ``amount`` where its entropy leaves ``(low·h, high·h)``, h the mean
    over all batches so far of its turn's mean entropy (arXiv:2509.22576, the authors' code: P is a constant, so only
    the bonus has a gradient). A turn never seen has P = 0. Left out: the code waits for an episode's second half.

    Attributes:
        coef: c; ``smoothing`` is s, and ``horizon`` the batches over which w falls; ``None``: w = 1.
        differentiable: our extension: P is ``amount`` times the distance to the range in nats.
        sums: of each turn's mean entropies in ``counts`` batches; the first turn is in all of them.
    """

    coef: float = 1e-3
    smoothing: float = 1.0
    low: float = 0.8
    high: float = 1.2
    amount: float = 0.1
    horizon: int | None = 150
    differentiable: bool = False
    sums: list[float] = field(default_factory=list, init=False)
    counts: list[int] = field(default_factory=list, init=False)

    name = "epo"
    source = "arXiv:2509.22576"
    verified = "code"
    released = "WujiangXu/EPO"
    kind = "regulariser"
    owns = frozenset({"entropy_coefficient"})

    def __post_init__(self) -> None:
        self._check(coef=(0, inf), smoothing=(0, inf), amount=(0, inf), low=(0, 1), high=(1, inf))
        self._check_horizon(self.horizon)
        self._check_choices(differentiable=(True, False))

    def observe(self, batch: TokenBatch) -> None:
        """See :class:`EntropyControl`."""
        self.sums, self.counts = add_turn_means(self.sums, self.counts, batch.old_entropy, batch.mask, batch.turn)

    def penalty(self, batch: TokenBatch) -> Float[Tensor, ""]:
        """See :class:`EntropyControl`."""
        entropy, past = batch.entropy[batch.mask], history_means(self.sums, self.counts)
        excess = turn_range_excess(entropy, batch.turn[batch.mask], past, self.low, self.high)
        outside = excess if self.differentiable else (excess > 0).to(entropy.dtype)
        weight = self.smoothing * epo_phase_weight(max(self.counts, default=0), self.horizon)
        return -self.coef * (entropy.mean() - weight * self.amount * outside.mean())
