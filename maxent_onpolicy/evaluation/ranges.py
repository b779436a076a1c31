"""Normalisation constants: which returns become score 0 and score 1."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maxent_onpolicy.validation import check_choice, check_range


class ScoreRange(NamedTuple):
    """The returns that become score 0 and score 1, and where they come from."""

    low: float
    high: float
    low_source: str
    high_source: str


class KeywordRanges(NamedTuple):
    """Ranges of an environment whose rewards depend on a keyword.

    Attributes:
        keyword: of the environment's constructor.
        default: its value where it is not given.
        ranges: by its value.
    """

    keyword: str
    default: str
    ranges: dict[str, ScoreRange]


def load_score_ranges(extra: Path | None = None) -> dict[str, ScoreRange | KeywordRanges]:
    """Return the packaged normalisation constants by environment, and those of the file ``extra`` if it exists.

    Raises:
        ValueError: if ``extra`` is not in the format of the packaged file or an entry has ``high <= low``.
    """
    entries: dict[str, ScoreRange | KeywordRanges] = {}
    packaged = files("maxent_onpolicy.evaluation") / "data" / "score_ranges.json"
    texts = [packaged.read_text(encoding="utf-8")]
    if extra is not None and extra.exists():
        texts.append(extra.read_text(encoding="utf-8"))
    for text in texts:
        try:
            content = json.loads(text)
            sources: dict[str, str] = content.get("sources", {})
            for env_id, entry in content["environments"].items():
                entries[env_id] = _score_range(env_id, entry, sources)
            for env_id, entry in content.get("by_keyword", {}).items():
                entries[env_id] = _keyword_ranges(env_id, entry, sources)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"score_ranges.json must hold environments with low and high, got {type(error).__name__}: {error}"
            ) from None
    return entries


def resolve_ranges(
    entries: Mapping[str, ScoreRange | KeywordRanges], used: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[dict[str, ScoreRange], list[str]]:
    """Return the one range of each environment, and a note on each one whose runs would need several.

    Args:
        entries: see :func:`load_score_ranges`.
        used: for each environment, the keywords of every distribution that its runs are trained or evaluated on.
    """
    ranges: dict[str, ScoreRange] = {}
    notes = []
    for env_id, entry in entries.items():
        if isinstance(entry, ScoreRange):
            ranges[env_id] = entry
            continue
        values = sorted({str(kwargs.get(entry.keyword, entry.default)) for kwargs in used.get(env_id, ())})
        if len(values) > 1:
            listed = " and ".join(values)
            notes.append(
                f"Runs on {env_id} have {entry.keyword} {listed}, whose returns have different ranges: no scores."
            )
        elif values and values[0] in entry.ranges:
            ranges[env_id] = entry.ranges[values[0]]
    return ranges, notes


def normalise(returns: NDArray[Any], env_id: str, ranges: dict[str, ScoreRange]) -> NDArray[np.float64]:
    """Return ``(returns - low) / (high - low)`` of ``env_id``; any shape.

    Raises:
        ValueError: if ``env_id`` has no range.
    """
    check_choice("env_id", env_id, ranges)
    low, high, *_ = ranges[env_id]
    return np.asarray((np.asarray(returns, dtype=np.float64) - low) / (high - low))


def _score_range(env_id: str, entry: dict[str, Any], sources: dict[str, str]) -> ScoreRange:
    low = check_range(f"{env_id}.low", entry["low"])
    high = check_range(f"{env_id}.high", entry["high"], low, low_open=True)
    names = [str(entry.get(f"{end}_source", "not stated")) for end in ("low", "high")]
    return ScoreRange(low, high, sources.get(names[0], names[0]), sources.get(names[1], names[1]))


def _keyword_ranges(env_id: str, entry: dict[str, Any], sources: dict[str, str]) -> KeywordRanges:
    """Read ranges by the value of a keyword; sources stand beside the keyword, once for all values."""
    shared = {name: value for name, value in entry.items() if name.endswith("_source")}
    keyword = str(entry["keyword"])
    ranges = {}
    for value, numbers in entry["ranges"].items():
        found = _score_range(f"{env_id}.{value}", {**shared, **numbers}, sources)
        where = f" ({keyword} {value})"
        ranges[str(value)] = found._replace(low_source=found.low_source + where, high_source=found.high_source + where)
    return KeywordRanges(keyword, str(entry["default"]), ranges)
