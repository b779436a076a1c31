"""KL-Cov: the tokens that lower entropy most are held near the policy that sampled them."""

from dataclasses import dataclass
from math import inf

from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import Bound, EntropyControl
from maxent_onpolicy.llm.methods.formulas import covariance, largest


@dataclass
class KLCov(EntropyControl):
    """Holds back the tokens of the highest covariance between advantage and log-probability (KL-Cov).

    ``coef·|l − l_old|`` for the ``max(1, share·N)`` tokens of largest ``(A − Ā)(l − l̄)``, as a mean over all N tokens;
    no token's ratio is clipped (arXiv:2505.22617, the authors' code; verl's defaults are 2e-4 and 0.1).

    Attributes:
        share: of all tokens.
        coef: of the penalty.
    """

    share: float = 2e-3
    coef: float = 1.0

    name = "kl_cov"
    source = "arXiv:2505.22617"
    verified = "code"
    released = "PRIME-RL/Entropy-Mechanism-of-RL"
    kind = "regulariser"
    owns = frozenset({"covariance", "clip_range"})

    def __post_init__(self) -> None:
        self._check(share=(0, 1), coef=(0, inf))

    def penalty(self, batch: TokenBatch) -> Float[Tensor, ""]:
        """See :class:`EntropyControl`."""
        log_prob, old = batch.log_prob[batch.mask], batch.old_log_prob[batch.mask]
        value = covariance(batch.advantage[batch.mask], log_prob.detach())
        held = largest(value, max(1, int(self.share * len(value))))
        return self.coef * (log_prob - old)[held].abs().sum() / len(value)

    def bounds(self, batch: TokenBatch, low: Bound, high: Bound) -> tuple[Bound, Bound]:
        """See :class:`EntropyControl`."""
        return 1.0, inf
