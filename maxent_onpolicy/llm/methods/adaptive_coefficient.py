"""An entropy bonus whose weight follows a target."""

from dataclasses import dataclass, field
from math import inf

from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.controllers.formulas import additive_step
from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.validation import check_pair, check_range


@dataclass
class AdaptiveCoefficient(EntropyControl):
    """Entropy bonus whose weight rises while entropy is below its target and falls above it (Skywork-OR1).

    The weight moves once a batch, before its update; it counts only where the batch's entropy was not above the target
    (arXiv:2505.22312, read in TRL; see :func:`~maxent_onpolicy.controllers.formulas.additive_step`).

    Attributes:
        target: nats a token.
        delta: step of the weight.
        initial: weight before the first batch.
        limits: lowest and highest weight.
        coef: the weight.
        active: whether it is in force.
    """

    target: float = 0.2
    delta: float = 0.005
    initial: float = 0.0
    limits: tuple[float, float] = (0.0, 1.0)
    coef: float = field(default=0.0, init=False)
    active: bool = field(default=False, init=False)

    name = "adaptive_coefficient"
    source = "arXiv:2505.22312"
    verified = "third"
    released = "huggingface/trl"
    kind = "coefficient"
    owns = frozenset({"entropy_coefficient", "entropy_target"})

    def __post_init__(self) -> None:
        self._check(target=(0, inf), delta=(0, inf))
        low, high = check_pair("limits", self.limits)
        check_range("limits[0]", low, 0)
        check_range("limits[1]", high, low)
        self.coef = check_range("initial", self.initial, low, high)

    def observe(self, batch: TokenBatch) -> None:
        """See :class:`EntropyControl`."""
        entropy = batch.old_entropy[batch.mask].mean().item()
        self.active = entropy <= self.target
        self.coef = additive_step(self.coef, entropy, self.target, self.delta, self.limits)

    def penalty(self, batch: TokenBatch) -> Float[Tensor, ""]:
        """See :class:`EntropyControl`."""
        return -(self.coef if self.active else 0.0) * batch.entropy[batch.mask].mean()
