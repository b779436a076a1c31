"""The learning rate, steered by how far updates move the policy."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from maxent_onpolicy.controllers.base import Controller, ModelFacts, RolloutStatistics, UpdateSettings
from maxent_onpolicy.controllers.formulas import kl_adaptive_rate
from maxent_onpolicy.validation import check_choice, check_pair, check_range


@dataclass
class KLAdaptiveLR(Controller):
    """Learning rate that follows the KL divergence of updates, as in rsl_rl, RL-Games and SBX.

    Above ``margin·target_kl`` the rate is divided by ``factor``, below ``target_kl/margin`` multiplied by it. It starts
    at the model's ``learning_rate``. Defaults are rsl_rl's, which asks before every minibatch step and computes the
    divergence of Gaussians exactly; here it is the estimate ``approx_kl`` over an epoch, for any policy.

    Attributes:
        target_kl: nats that an update should move the policy.
        margin: how many times more or less is too far.
        factor: by which the rate changes.
        bounds: lowest and highest rate.
        every: ``"update"``, or ``"epoch"``: also between the epochs of an update.
        rate: the rate in force.
    """

    target_kl: float = 0.01
    margin: float = 2.0
    factor: float = 1.5
    bounds: tuple[float, float] = (1e-5, 1e-2)
    every: Literal["update", "epoch"] = "update"
    rate: float | None = field(default=None, init=False)

    quantity: ClassVar[str] = "learning_rate"

    def __post_init__(self) -> None:
        check_range("target_kl", self.target_kl, 0, low_open=True)
        check_range("margin", self.margin, 1)
        check_range("factor", self.factor, 1)
        low, high = check_pair("bounds", self.bounds)
        check_range("bounds[0]", low, 0, low_open=True)
        check_range("bounds[1]", high, low)
        self.bounds = (low, high)
        check_choice("every", self.every, ("update", "epoch"))
        self.within_updates = self.every == "epoch"

    def start(self, model: ModelFacts) -> None:
        """See :class:`Controller`."""
        if self.rate is None:
            self.rate = model.learning_rate

    def contradiction(self, arguments: dict[str, Any]) -> str | None:
        """See :class:`Controller`; early stopping would hide how far an update goes."""
        if callable(arguments["learning_rate"]):
            return "a schedule of `learning_rate`"
        if arguments["target_kl"] is not None:
            return f"`target_kl={arguments['target_kl']!r}`"
        return None

    def before_update(self, rollout: RolloutStatistics, settings: UpdateSettings) -> UpdateSettings:
        """See :class:`Controller`."""
        assert self.rate is not None
        return settings._replace(learning_rate=self.rate)

    def after_epoch(self, approx_kl: float) -> float | None:
        """See :class:`Controller`."""
        self._move(approx_kl)
        return self.rate

    def after_update(self, approx_kl: float) -> None:
        """See :class:`Controller`."""
        if not self.within_updates:
            self._move(approx_kl)

    def _move(self, kl: float) -> None:
        assert self.rate is not None
        self.rate = kl_adaptive_rate(self.rate, kl, self.target_kl, self.margin, self.factor, self.bounds)
