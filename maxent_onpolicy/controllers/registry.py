"""Controllers by name, so that files and command lines can ask for them."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from maxent_onpolicy.controllers.base import Controller
from maxent_onpolicy.controllers.clipping import BAPO, PPOBR, EntropyRatioClip
from maxent_onpolicy.controllers.coefficient import EntropyCoefSchedule, TargetEntropy
from maxent_onpolicy.controllers.learning_rate import KLAdaptiveLR
from maxent_onpolicy.validation import did_you_mean

CONTROLLERS: dict[str, type[Controller]] = {
    "ppo_br": PPOBR,
    "bapo": BAPO,
    "entropy_ratio_clip": EntropyRatioClip,
    "kl_adaptive_lr": KLAdaptiveLR,
    "entropy_coef_schedule": EntropyCoefSchedule,
    "target_entropy": TargetEntropy,
}

# One controller, or several: instances, names, or names with keywords.
Controllers = Controller | str | Mapping[str, Any] | Sequence[Any] | None


def make_controllers(given: Controllers) -> list[Controller]:
    """Return controllers that share nothing with what was given.

    Args:
        given: ``None``, an instance, a name such as ``"ppo_br"``, names with keywords such as
            ``{"ppo_br": {"window": 5}}``, or a list of these.

    Raises:
        ValueError: for a name or a keyword that there is not, or two controllers of one quantity.
    """
    if given is None:
        return []
    items = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    made = [controller for item in items for controller in _make(item)]
    owners: dict[str, Controller] = {}
    for controller in made:
        other = owners.setdefault(controller.quantity, controller)
        if other is not controller:
            raise ValueError(
                f"`controllers`: {type(other).__name__} and {type(controller).__name__} both set "
                f"`{controller.quantity}`; leave one out"
            )
    return made


def describe_controllers() -> list[tuple[str, str]]:
    """Return each controller's name, and its summary with its keywords and their defaults."""
    rows = []
    for name, kind in CONTROLLERS.items():
        summary = inspect.cleandoc(kind.__doc__ or "").splitlines()[0]
        defaults = ", ".join(f"{each.name}={_plain(each.default)}" for each in _keywords(kind))
        rows.append((name, f"{summary}\n{defaults}"))
    return rows


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def _keywords(kind: type[Controller]) -> list[Any]:
    return [each for each in fields(kind) if each.init]  # type: ignore[arg-type]


def _make(item: Any) -> list[Controller]:
    if isinstance(item, Controller):
        return [copy.deepcopy(item)]
    if isinstance(item, str):
        item = {item: None}
    if not isinstance(item, Mapping):
        raise ValueError(
            f"`controllers` must be controllers, names or names with keywords, got {item!r}; "
            f"names are {', '.join(CONTROLLERS)}"
        )
    return [_make_named(name, keywords) for name, keywords in item.items()]


def _make_named(name: Any, keywords: Any) -> Controller:
    if name not in CONTROLLERS:
        raise ValueError(
            f"`controllers` must be of {', '.join(CONTROLLERS)}; got {name!r}{did_you_mean(name, CONTROLLERS)}"
        )
    kind = CONTROLLERS[name]
    if keywords is None or keywords is True:
        keywords = {}
    if not isinstance(keywords, Mapping):
        raise ValueError(f"`controllers`: expected keywords with values for {name}, got {keywords!r}")
    known = [each.name for each in _keywords(kind)]
    for keyword in keywords:
        if keyword not in known:
            raise ValueError(
                f"`controllers`: {name} takes no {keyword!r}{did_you_mean(keyword, known)}; it takes {', '.join(known)}"
            )
    try:
        return kind(**keywords)
    except ValueError as error:
        raise ValueError(f"`controllers`: {name}: {error}") from error
