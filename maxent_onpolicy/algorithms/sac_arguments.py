"""What the arguments of soft actor-critic may be."""

from typing import TYPE_CHECKING, Any

from stable_baselines3.common.type_aliases import TrainFrequencyUnit

from maxent_onpolicy.validation import SB3ArgumentError, check_integer, check_range

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.sac import SAC


def check_arguments(algorithm: "SAC") -> None:
    """Check the arguments that SB3's constructor has stored.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    if not callable(algorithm.learning_rate):
        check_range("learning_rate", algorithm.learning_rate, 0)
    for name, low in (
        ("buffer_size", 1),
        ("learning_starts", 0),
        ("batch_size", 1),
        ("gradient_steps", -1),
        ("n_steps", 1),
        ("target_update_interval", 1),
    ):
        check_integer(name, getattr(algorithm, name), low)
    check_range("tau", algorithm.tau, 0, 1)
    check_range("gamma", algorithm.gamma, 0, 1)
    _check_train_freq(algorithm)
    _check_temperature(algorithm.ent_coef)
    if algorithm.target_entropy != "auto":
        _check_target_entropy(algorithm.target_entropy)


def _check_train_freq(algorithm: "SAC") -> None:
    freq: Any = algorithm.train_freq
    number, unit = freq if isinstance(freq, tuple) and len(freq) == 2 else (freq, "step")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"`train_freq` must be an integer of at least 1, or (integer, unit); got {freq!r}")
    unit = unit.value if isinstance(unit, TrainFrequencyUnit) else unit
    if unit not in ("step", "episode"):
        raise ValueError(f"The unit of the `train_freq` must be either 'step' or 'episode' not '{unit}'!")
    if unit == "episode" and algorithm.env is not None and algorithm.n_envs > 1:
        raise SB3ArgumentError(
            f"`train_freq={freq!r}` counts episodes, which needs a single environment, not {algorithm.n_envs}: "
            "you must use only one env when doing episodic training"
        )


def _check_temperature(value: Any) -> None:
    text = value.partition("_") if isinstance(value, str) else ("", "", "")
    try:
        if text[0] == "auto" and (text[1] == "" or float(text[2]) > 0):
            pass
        elif text[0] == "auto":
            raise SB3ArgumentError(f"`ent_coef`: the initial value of ent_coef must be greater than 0, got {value!r}")
        else:
            check_range("ent_coef", float(value))
    except (TypeError, ValueError) as error:
        if isinstance(error, SB3ArgumentError):
            raise
        raise ValueError(
            f"`ent_coef` must be a number, 'auto' or 'auto_' with a positive start value such as 'auto_0.1'; "
            f"got {value!r}"
        ) from None


def _check_target_entropy(value: Any) -> None:
    try:
        check_range("target_entropy", float(value))
    except (TypeError, ValueError):
        raise ValueError(f"`target_entropy` must be a finite number or 'auto', got {value!r}") from None
