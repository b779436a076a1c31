"""Clip ranges that adapt, and the entropy ratio as a second clip."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from maxent_onpolicy.controllers.base import (
    Balance,
    Controller,
    EntropyBounds,
    ModelFacts,
    RolloutStatistics,
    UpdateSettings,
)
from maxent_onpolicy.controllers.formulas import adaptive_clip_range, candidates, entropy_share, reward_plateau
from maxent_onpolicy.validation import check_choice, check_integer, check_pair, check_range


@dataclass
class PPOBR(Controller):
    """Clip range that is wide while the policy is random and narrow once returns stand still (PPO-BR).

    ``ε = ε₀·[1 + λ₁·tanh φ(H) − λ₂·tanh ψ(ΔR)]`` (Rahman 2025, arXiv:2505.17714), with ε₀ the model's ``clip_range``,
    which may be a schedule. No code was released. The formula, its weights, the window and φ = H/H_max are what readers
    of the paper report alike; ψ, and the entropy that continuous actions are compared with, are our choices: see
    :func:`~maxent_onpolicy.controllers.formulas.reward_plateau`.

    Attributes:
        entropy_weight: λ₁.
        reward_weight: λ₂, below 1, so that ε stays positive.
        window: updates over which the return is compared; before that ψ is 0.
        max_entropy: H_max in nats; ``None``: the uniform policy's, or for unbounded continuous actions the unit
            Gaussian's.
        squash: whether φ and ψ go through tanh.
        returns: mean episode return at the last updates.
        clip_range: ε in force.
        share: φ in force.
        plateau: ψ in force.
    """

    entropy_weight: float = 0.5
    reward_weight: float = 0.3
    window: int = 10
    max_entropy: float | None = None
    squash: bool = True
    returns: list[float] = field(default_factory=list, init=False)
    clip_range: float | None = field(default=None, init=False)
    share: float = field(default=0.0, init=False)
    plateau: float = field(default=0.0, init=False)

    quantity: ClassVar[str] = "clip_range"

    def __post_init__(self) -> None:
        check_range("entropy_weight", self.entropy_weight, 0)
        check_range("reward_weight", self.reward_weight, 0, 1, high_open=True)
        check_integer("window", self.window, 1)
        if self.max_entropy is not None:
            check_range("max_entropy", self.max_entropy, 0, low_open=True)
        check_choice("squash", self.squash, (True, False))

    def start(self, model: ModelFacts) -> None:
        """See :class:`Controller`."""
        if self.max_entropy is None:
            self.max_entropy = model.max_entropy

    def before_update(self, rollout: RolloutStatistics, settings: UpdateSettings) -> UpdateSettings:
        """See :class:`Controller`."""
        assert self.max_entropy is not None
        if rollout.episode_return is not None:
            self.returns = [*self.returns[-self.window :], rollout.episode_return]
        self.share = entropy_share(rollout.entropy, self.max_entropy)
        full = len(self.returns) == self.window + 1
        self.plateau = reward_plateau(self.returns[0], self.returns[-1]) if full else 0.0
        weights = (self.entropy_weight, self.reward_weight)
        self.clip_range = adaptive_clip_range(settings.clip_range, self.share, self.plateau, *weights, self.squash)
        return settings._replace(clip_range=self.clip_range)

    def to_log(self) -> dict[str, float]:
        """See :class:`Controller`."""
        return {"entropy_share": self.share, "reward_plateau": self.plateau}


@dataclass
class BAPO(Controller):
    """Clip bounds that give positive advantages their share of every minibatch (BAPO).

    Xi et al. 2025, arXiv:2510.18927, with the released code's order of steps and the published bounds; see
    :func:`~maxent_onpolicy.estimators.control.balanced_bounds`. Both bounds start anew in every minibatch. They take
    the place of ``clip_range``. Left out is what the code has beside: a third bound (dual clip) of negative advantages.

    Attributes:
        low: lower bound of the ratio: where it starts, and its highest value.
        high: upper bound of the ratio: where it starts, and its highest value.
        step: by which they move.
        target: share of positive advantages in the sum of all absolute contributions; 0.5 balances them.
    """

    low: tuple[float, float] = (0.6, 0.9)
    high: tuple[float, float] = (1.2, 3.0)
    step: float = 0.05
    target: float = 0.5

    quantity: ClassVar[str] = "clip_range"
    splits: ClassVar[bool] = False
    in_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        low, high = check_pair("low", self.low), check_pair("high", self.high)
        check_range("low[0]", low[0], 0, 1)
        check_range("low[1]", low[1], low[0], 1)
        check_range("high[0]", high[0], 1)
        check_range("high[1]", high[1], high[0])
        self.low, self.high = low, high
        check_range("step", self.step, 0, low_open=True)
        check_range("target", self.target, 0, 1, high_open=True)

    def contradiction(self, arguments: dict[str, Any]) -> str | None:
        """See :class:`Controller`; its bounds take the place of ``clip_range``, so only the default may stand there."""
        given = arguments["clip_range"]
        if callable(given):
            return "a schedule of `clip_range`"
        return None if given == 0.2 else f"`clip_range={given!r}`"

    def before_update(self, rollout: RolloutStatistics, settings: UpdateSettings) -> UpdateSettings:
        """See :class:`Controller`."""
        lows, highs = (tuple(candidates(*bound, self.step)) for bound in (self.low, self.high))
        balance = Balance(lows, highs, self.target)
        return settings._replace(clip_range=1 - lows[0], clip_range_high=highs[0] - 1, balance=balance)


@dataclass
class EntropyRatioClip(Controller):
    """Keeps a sample's policy gradient only where the entropy in its state has changed little (ERC).

    ``low < H/H_old < high`` (Su et al. 2025, arXiv:2512.05591); for continuous actions the ratio is
    ``exp(H − H_old)``, our extension, see :func:`~maxent_onpolicy.estimators.control.entropy_ratio`. Defaults are the
    released code's; its runs use 0.95 and 1.05. The entropy bonus and the critics' losses keep their gradients.

    Attributes:
        low: the ratio must be above this.
        high: the ratio must be below this; may be infinite.
        discrete: which form of the ratio; found out from the model.
    """

    low: float = 0.8
    high: float = 1.2
    discrete: bool | None = field(default=None, init=False)

    quantity: ClassVar[str] = "entropy_ratio"
    in_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.low != float("-inf"):
            check_range("low", self.low, high=1, high_open=True)
        if self.high != float("inf"):
            check_range("high", self.high, 1, low_open=True)

    def start(self, model: ModelFacts) -> None:
        """See :class:`Controller`."""
        if not model.entropy_is_exact:
            raise ValueError(
                "`controllers`: EntropyRatioClip needs a distribution whose entropy has a closed form, unlike a "
                "Gaussian squashed by tanh"
            )
        self.discrete = model.discrete

    def before_update(self, rollout: RolloutStatistics, settings: UpdateSettings) -> UpdateSettings:
        """See :class:`Controller`."""
        assert self.discrete is not None
        return settings._replace(entropy_bounds=EntropyBounds(self.low, self.high, self.discrete))
