"""PPO-BR: a clip range that is wide while the policy is uncertain."""

from dataclasses import dataclass, field

from maxent_onpolicy.controllers.formulas import adaptive_clip_range, entropy_share, reward_plateau
from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import Bound, EntropyControl
from maxent_onpolicy.validation import check_choice, check_integer, check_range


@dataclass
class PPOBR(EntropyControl):
    """Clip range that widens with the policy's entropy and narrows once rewards stand still (PPO-BR).

    ``ε·(1 + λ₁·tanh φ − λ₂·tanh ψ)`` of the trainer's own ε on either side (arXiv:2505.17714, read in
    descriptions that are not the authors'; see :func:`~maxent_onpolicy.controllers.formulas.adaptive_clip_range` and
    the choices named there).

    Attributes:
        max_entropy: of the uniform policy: the logarithm of the vocabulary's size.
        entropy_weight: λ₁.
        reward_weight: λ₂.
        window: batches over which the mean reward is compared; before that ψ is 0.
        squash: whether φ and ψ go through tanh.
        rewards: means of the last batches.
        factor: of the clip range, in force.
    """

    max_entropy: float
    entropy_weight: float = 0.5
    reward_weight: float = 0.3
    window: int = 10
    squash: bool = True
    rewards: list[float] = field(default_factory=list, init=False)
    factor: float = field(default=1.0, init=False)

    name = "ppo_br"
    source = "arXiv:2505.17714"
    verified = "third"
    kind = "clip"
    owns = frozenset({"clip_range"})

    def __post_init__(self) -> None:
        check_range("max_entropy", self.max_entropy, 0, low_open=True)
        check_range("entropy_weight", self.entropy_weight, 0)
        check_range("reward_weight", self.reward_weight, 0, 1, high_open=True)
        check_integer("window", self.window, 1)
        check_choice("squash", self.squash, (True, False))

    def observe(self, batch: TokenBatch) -> None:
        """See :class:`EntropyControl`."""
        self.rewards = [*self.rewards[-self.window :], batch.reward.mean().item()]
        full = len(self.rewards) == self.window + 1
        plateau = reward_plateau(self.rewards[0], self.rewards[-1]) if full else 0.0
        share = entropy_share(batch.old_entropy[batch.mask].mean().item(), self.max_entropy)
        self.factor = adaptive_clip_range(1.0, share, plateau, self.entropy_weight, self.reward_weight, self.squash)

    def bounds(self, batch: TokenBatch, low: Bound, high: Bound) -> tuple[Bound, Bound]:
        """See :class:`EntropyControl`."""
        return low * self.factor, high * self.factor
