"""Settings of the trainer."""

from dataclasses import dataclass, field
from typing import Any

from maxent_onpolicy.llm.advantages import EntropyScale
from maxent_onpolicy.llm.trl.host import check_trl
from maxent_onpolicy.validation import check_choice, check_integer, check_range

check_trl()
from trl import GRPOConfig  # noqa: E402 - after the check, which says what to install

#: What the advantage of future entropy is estimated with.
ESTIMATORS = ("critic", "to_go")
#: What is discounted as one step.
DISCOUNTS = ("token", "turn", "action")


@dataclass
class EntropyAdvantageGRPOConfig(GRPOConfig):  # type: ignore[misc, unused-ignore]
    """TRL's ``GRPOConfig``, and what the entropy advantage and methods of entropy control need.

    With ``tau=0`` and no methods the trainer is ``GRPOTrainer``.

    Attributes:
        tau: weight of the advantage of future entropy.
        entropy_gamma: its discount.
        entropy_discount: whether it counts for each ``"token"``, or, with a critic, for each ``"turn"`` and not within;
            with ``"action"``, a whole turn is one action: its tokens share the advantage of their summed surprise, and
            the critic is asked at the first of them only.
        entropy_gae_lambda: its trace decay, with a critic.
        entropy_estimator: ``"critic"`` learns a value head for the future entropy; ``"to_go"`` needs none.
        entropy_reward: ``"sampled"``, the surprise of the chosen token; ``"exact"``, the entropy where it was chosen.
        entropy_scale: what the standard deviation of that advantage is brought to: ``"own"`` to 1; ``"task"`` to the
            task advantage's, so that a batch with equal rewards teaches nothing; ``"none"`` leaves it as it is.
        entropy_critic_width: hidden units of the value head.
        entropy_critic_learning_rate: of its own optimiser.
        entropy_critic_epochs: how often it learns each state, in four minibatches, at an optimiser step of the policy.
        methods: of entropy control, in this order: names, or mappings with ``name`` and the method's settings.

    Raises:
        ValueError: if one is out of range.
    """

    tau: float = 0.0
    entropy_gamma: float = 0.99
    entropy_gae_lambda: float = 0.95
    entropy_discount: str = "token"
    entropy_estimator: str = "critic"
    entropy_reward: str = "sampled"
    entropy_scale: EntropyScale = "own"
    entropy_critic_width: int = 256
    entropy_critic_learning_rate: float = 1e-3
    entropy_critic_epochs: int = 4
    methods: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_range("tau", self.tau, 0.0)
        check_range("entropy_gamma", self.entropy_gamma, 0.0, 1.0)
        check_range("entropy_gae_lambda", self.entropy_gae_lambda, 0.0, 1.0)
        check_choice("entropy_estimator", self.entropy_estimator, ESTIMATORS)
        check_choice("entropy_discount", self.entropy_discount, DISCOUNTS)
        if self.entropy_discount != "token" and self.entropy_estimator == "to_go":
            raise ValueError(
                f"`entropy_discount={self.entropy_discount!r}` needs entropy_estimator='critic', got 'to_go'"
            )
        check_choice("entropy_reward", self.entropy_reward, ("sampled", "exact"))
        check_choice("entropy_scale", self.entropy_scale, ("none", "own", "task"))
        check_integer("entropy_critic_width", self.entropy_critic_width, 1)
        check_integer("entropy_critic_epochs", self.entropy_critic_epochs, 1)
        check_range("entropy_critic_learning_rate", self.entropy_critic_learning_rate, 0.0, low_open=True)
        super().__post_init__()
