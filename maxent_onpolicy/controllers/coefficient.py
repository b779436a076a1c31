"""The weight of the entropy bonus, on a schedule or steered towards a target."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from maxent_onpolicy.controllers.base import Controller, ModelFacts, RolloutStatistics, UpdateSettings
from maxent_onpolicy.controllers.formulas import additive_step, log_space_step, schedule_value
from maxent_onpolicy.validation import check_choice, check_pair, check_range

KINDS = ("constant", "linear", "cosine", "exponential")


class _EntropyCoef(Controller):
    quantity: ClassVar[str] = "ent_coef"

    def contradiction(self, arguments: dict[str, Any]) -> str | None:
        """See :class:`Controller`; only the default may stand in ``ent_coef``."""
        given = arguments["ent_coef"]
        return None if given == 0 else f"`ent_coef={given!r}`"


@dataclass
class EntropyCoefSchedule(_EntropyCoef):
    """Weight of the entropy bonus on a schedule over the training, as SB3 has it for learning rates.

    Attributes:
        initial: at the beginning.
        final: at the end.
        kind: ``"constant"`` (``initial``), ``"linear"``, ``"cosine"`` or ``"exponential"`` (both ends positive).
        end_fraction: share of the training at which ``final`` is reached; it stays there.
        coef: the weight in force.
    """

    initial: float = 0.01
    final: float = 0.0
    kind: Literal["constant", "linear", "cosine", "exponential"] = "linear"
    end_fraction: float = 1.0
    coef: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        exponential = self.kind == "exponential"
        check_range("initial", self.initial, 0, low_open=exponential)
        check_range("final", self.final, 0, low_open=exponential)
        check_range("end_fraction", self.end_fraction, 0, 1, low_open=True)

    def before_update(self, rollout: RolloutStatistics, settings: UpdateSettings) -> UpdateSettings:
        """See :class:`Controller`."""
        progress = rollout.progress_remaining
        self.coef = schedule_value(self.kind, self.initial, self.final, progress, self.end_fraction)
        return settings._replace(ent_coef=self.coef)

    def to_log(self) -> dict[str, float]:
        """See :class:`Controller`."""
        return {} if self.coef is None else {"ent_coef": self.coef}


@dataclass
class TargetEntropy(_EntropyCoef):
    """Weight of the entropy bonus that moves until the policy's entropy meets a target; one step an update.

    ``"dual"`` is a gradient step on the logarithm, as SAC's temperature (Haarnoja et al. 2018, arXiv:1812.05905,
    eq. 18; plain gradient ascent in place of Adam). ``"additive"`` is Skywork-OR1's (He et al. 2025,
    arXiv:2505.22312), which adds or subtracts ``delta``; its published settings are ``target=0.2, initial=0,
    bounds=(0, 1)``, in nats a token.

    Attributes:
        target: nats. ``None``: −A for continuous actions, half the maximum for discrete.
        initial: weight of the first update; it moves after that.
        step: which rule.
        learning_rate: of ``"dual"``.
        delta: of ``"additive"``.
        bounds: lowest and highest weight; ``None``: (1e-6, 1) for ``"dual"``, (0, 1) for ``"additive"``.
        coef: the weight in force.
        gap: entropy minus target, of the last rollout.
    """

    target: float | None = None
    initial: float = 0.01
    step: Literal["dual", "additive"] = "dual"
    learning_rate: float = 0.02
    delta: float = 0.005
    bounds: tuple[float, float] | None = None
    coef: float | None = field(default=None, init=False)
    gap: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.target is not None:
            check_range("target", self.target)
        dual = check_choice("step", self.step, ("dual", "additive")) == "dual"
        low, high = check_pair("bounds", ((1e-6, 1.0) if dual else (0.0, 1.0)) if self.bounds is None else self.bounds)
        check_range("bounds[0]", low, 0, low_open=dual)
        check_range("bounds[1]", high, low)
        self.bounds = (low, high)
        check_range("initial", self.initial, low, high)
        check_range("learning_rate", self.learning_rate, 0, low_open=True)
        check_range("delta", self.delta, 0, low_open=True)

    def contradiction(self, arguments: dict[str, Any]) -> str | None:
        """See :class:`Controller`; nor may a temperature steer the same entropy."""
        return "`tau='auto'`" if isinstance(arguments["tau"], str) else super().contradiction(arguments)

    def start(self, model: ModelFacts) -> None:
        """See :class:`Controller`."""
        if self.target is None:
            if model.default_target_entropy is None:
                raise ValueError("`controllers`: TargetEntropy has no default `target` for these actions; pass it")
            self.target = model.default_target_entropy

    def before_update(self, rollout: RolloutStatistics, settings: UpdateSettings) -> UpdateSettings:
        """See :class:`Controller`."""
        assert self.target is not None
        assert self.bounds is not None
        if self.coef is None:
            self.coef = self.initial
        elif self.step == "additive":
            self.coef = additive_step(self.coef, rollout.entropy, self.target, self.delta, self.bounds)
        else:
            step = log_space_step(math.log(self.coef), rollout.entropy, self.target, self.learning_rate, self.bounds)
            self.coef = math.exp(step)
        self.gap = rollout.entropy - self.target
        return settings._replace(ent_coef=self.coef)

    def to_log(self) -> dict[str, float]:
        """See :class:`Controller`."""
        if self.coef is None or self.gap is None:
            return {}
        return {"ent_coef": self.coef, "ent_coef_gap": self.gap}
