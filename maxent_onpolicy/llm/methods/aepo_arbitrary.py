"""AEPO: the sampling temperature steers entropy to any target."""

from dataclasses import dataclass, field
from math import inf

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.validation import check_range


@dataclass
class ArbitraryAEPO(EntropyControl):
    """Samples hot while entropy is at most its target, cool above (arbitrary entropy policy optimisation, AEPO).

    The controller of arXiv:2510.08141, from the authors' code. Its loss is REINFORCE on the rewarded completions of
    such batches, which is for the trainer to take.

    Attributes:
        target: nats a token; the paper's runs choose it by task, so there is no default.
        hot: temperature while ``H ≤ target``.
        cool: temperature above.
        entropy: mean of the last batch, in nats a token.
    """

    target: float
    hot: float = 1.2
    cool: float = 0.8
    entropy: float | None = field(default=None, init=False)

    name = "aepo_arbitrary"
    source = "arXiv:2510.08141"
    verified = "code"
    released = "597358816/AEPO"
    kind = "sampling"
    owns = frozenset({"temperature", "entropy_target"})

    def __post_init__(self) -> None:
        check_range("cool", self.cool, 0, low_open=True)
        self._check(target=(0, inf), hot=(self.cool, inf))

    def observe(self, batch: TokenBatch) -> None:
        """See :class:`EntropyControl`."""
        self.entropy = batch.old_entropy[batch.mask].mean().item()

    def temperature(self) -> float | None:
        """See :class:`EntropyControl`."""
        if self.entropy is None:
            return None
        return self.hot if self.entropy <= self.target else self.cool
