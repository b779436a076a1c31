"""What a controller is: it sees how a rollout and an update went, and sets what the next update uses."""

from typing import Any, ClassVar, NamedTuple


class ModelFacts(NamedTuple):
    """What controllers may ask of the model that they control, once, when it is set up.

    Attributes:
        learning_rate: the keyword's value; ``None`` if it is a schedule.
        max_entropy: nats: of the uniform policy; for unbounded continuous actions, which have no such, of the unit
            Gaussian.
        default_target_entropy: nats; what ``MaxEntPPO(tau="auto")`` would take, ``None`` if there is none.
        entropy_is_exact: whether the action distribution's entropy has a closed form.
        discrete: whether its entropy is that of discrete actions.
    """

    learning_rate: float | None
    max_entropy: float
    default_target_entropy: float | None
    entropy_is_exact: bool
    discrete: bool


class RolloutStatistics(NamedTuple):
    """How a rollout went; the same on all processes that train a model.

    Attributes:
        entropy: nats; mean of ``−log π`` over its samples.
        episode_return: mean over the last episodes (``stats_window_size``); ``None`` if none has ended yet.
        progress_remaining: 1 at the beginning of training, 0 at its end.
    """

    entropy: float
    episode_return: float | None
    progress_remaining: float


class Balance(NamedTuple):
    """Clip bounds that are chosen anew in every minibatch.

    See :func:`~maxent_onpolicy.estimators.control.balanced_bounds`.

    Attributes:
        lows: candidates of the lower bound of the ratio.
        highs: candidates of the upper bound.
        target: share of positive advantages.
    """

    lows: tuple[float, ...]
    highs: tuple[float, ...]
    target: float


class EntropyBounds(NamedTuple):
    """Samples outside have no policy gradient; see :func:`maxent_onpolicy.estimators.control.entropy_ratio`.

    Attributes:
        low: lowest entropy ratio.
        high: highest entropy ratio.
        discrete: which form of the ratio.
    """

    low: float
    high: float
    discrete: bool


class UpdateSettings(NamedTuple):
    """What an update uses.

    Attributes:
        learning_rate: Adam's.
        clip_range: ε below 1, and above it unless that has its own.
        clip_range_high: ε above 1, or ``None``.
        ent_coef: weight of the entropy bonus.
        balance: bounds chosen in every minibatch in place of the clip range, or ``None``.
        entropy_bounds: which samples keep their policy gradient; ``None``: all.
    """

    learning_rate: float
    clip_range: float
    clip_range_high: float | None
    ent_coef: float
    balance: Balance | None = None
    entropy_bounds: EntropyBounds | None = None


class Controller:
    """Base class; a subclass is a dataclass whose ``init=False`` fields are its state, saved with the model.

    A model keeps copies of the controllers it is given: those of two models never share state.

    Attributes:
        quantity: what it sets. Two controllers of one quantity contradict each other.
        splits: whether several processes may each compute a part of a minibatch with it.
        in_loss: whether it acts through the loss of a minibatch, so that an algorithm's own loss would ignore it.
        within_updates: whether :meth:`after_epoch` is to be called.
    """

    quantity: ClassVar[str]
    splits: ClassVar[bool] = True
    in_loss: ClassVar[bool] = False
    within_updates: bool = False

    def start(self, model: ModelFacts) -> None:
        """Fill in what depends on the model; keep what has been learnt already.

        Raises:
            ValueError: if it cannot control this model.
        """

    def contradiction(self, arguments: dict[str, Any]) -> str | None:
        """Return the keyword of the algorithm that this would overrule, as ``name=value``, or ``None``.

        Args:
            arguments: ``learning_rate``, ``clip_range``, ``ent_coef``, ``target_kl`` and ``tau``: each a number, a
                text, ``None`` or, where it is no constant, a schedule.
        """
        return None

    def before_update(self, rollout: RolloutStatistics, settings: UpdateSettings) -> UpdateSettings:
        """Return the settings of the update to come."""
        return settings

    def after_epoch(self, approx_kl: float) -> float | None:
        """Take in how far the policy has moved; return the next epoch's learning rate, ``None`` to leave it."""
        return None

    def after_update(self, approx_kl: float) -> None:
        """Take in how far the update has moved the policy, in nats: the last epoch's mean."""

    def to_log(self) -> dict[str, float]:
        """Return what is logged under ``train/``, as of the update that was made last."""
        return {}
