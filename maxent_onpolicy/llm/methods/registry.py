"""Methods by name."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from maxent_onpolicy.llm.methods.adaptive_coefficient import AdaptiveCoefficient
from maxent_onpolicy.llm.methods.aepo_agentic import AgenticAEPO
from maxent_onpolicy.llm.methods.aepo_arbitrary import ArbitraryAEPO
from maxent_onpolicy.llm.methods.bapo import BAPO
from maxent_onpolicy.llm.methods.base import EntropyControl, Kind, Verified
from maxent_onpolicy.llm.methods.clip_cov import ClipCov
from maxent_onpolicy.llm.methods.compose import Compose
from maxent_onpolicy.llm.methods.d3s import D3S
from maxent_onpolicy.llm.methods.empg import EMPG
from maxent_onpolicy.llm.methods.entropy_advantage import EntropyAdvantage
from maxent_onpolicy.llm.methods.entropy_shaped import EntropyShaped
from maxent_onpolicy.llm.methods.entropy_to_go import EntropyToGo
from maxent_onpolicy.llm.methods.epo import EPO
from maxent_onpolicy.llm.methods.erc import EntropyRatioClipping
from maxent_onpolicy.llm.methods.hapo import HAPO
from maxent_onpolicy.llm.methods.kl_cov import KLCov
from maxent_onpolicy.llm.methods.opo import OPO
from maxent_onpolicy.llm.methods.ppo_br import PPOBR
from maxent_onpolicy.llm.methods.riskpo import RiskPO
from maxent_onpolicy.llm.methods.siren import SIREN
from maxent_onpolicy.llm.methods.steer import STEER
from maxent_onpolicy.llm.methods.top_entropy import TopEntropy
from maxent_onpolicy.validation import check_choice, did_you_mean

_CLASSES: tuple[type[EntropyControl], ...] = (
    EPO,
    ClipCov,
    KLCov,
    EMPG,
    EntropyRatioClipping,
    SIREN,
    EntropyShaped,
    STEER,
    BAPO,
    OPO,
    HAPO,
    AgenticAEPO,
    ArbitraryAEPO,
    RiskPO,
    AdaptiveCoefficient,
    D3S,
    PPOBR,
    TopEntropy,
    EntropyAdvantage,
    EntropyToGo,
)
#: Where a formula was read, in words.
READ_IN: dict[Verified, str] = {"code": "the authors' code", "third": "others' code", "abstract": "the abstract"}
METHODS: dict[str, type[EntropyControl]] = {each.name: each for each in _CLASSES}


class MethodInfo(NamedTuple):
    """What there is to know about a method before it is made; see :class:`EntropyControl`."""

    name: str
    kind: Kind
    source: str
    verified: Verified
    summary: str
    released: str | None


def list_methods() -> list[MethodInfo]:
    """Return every method's name, kind, source, what was verified, one line about it, and whose code it equals."""
    found = []
    for name, each in METHODS.items():
        summary = inspect.cleandoc(each.__doc__ or "").splitlines()[0]
        found.append(MethodInfo(name, each.kind, each.source, each.verified, summary, each.released))
    return found


def make_method(name: str, **settings: Any) -> EntropyControl:
    """Return a new method.

    Args:
        name: one of :data:`METHODS`.
        settings: of the method; the published defaults otherwise.

    Raises:
        ValueError: for a name or a setting that there is not, a setting that is missing, or a value out of range.
    """
    kind = METHODS[check_choice("name", name, METHODS)]
    known = {each.name: each for each in fields(kind) if each.init}  # type: ignore[arg-type]
    for setting in settings:
        if setting not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ValueError(f"{name} takes no {setting!r}{did_you_mean(setting, known)}; {takes}")
    for setting, each in known.items():
        if setting not in settings and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{name} needs `{setting}`, which has no default")
    try:
        return kind(**settings)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def compose(methods: Sequence[Any]) -> Compose:
    """Return methods as one, from how a configuration writes them.

    Args:
        methods: names, mappings with ``name`` and the method's settings, or methods.

    Raises:
        ValueError: as :func:`make_method` and :class:`Compose`.
    """
    return Compose([_made(each) for each in methods])


def _made(given: Any) -> Any:
    if isinstance(given, str):
        return make_method(given)
    if isinstance(given, Mapping) and "name" in given:
        return make_method(given["name"], **{key: value for key, value in given.items() if key != "name"})
    return given
