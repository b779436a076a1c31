"""YAML as users write it: ``3e-4`` is a number, a key given twice is a mistake, and mistakes name their place."""

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from maxent_onpolicy.validation import did_you_mean


class UsageError(ValueError):
    """Something the user wrote cannot be done; shown without a traceback."""


_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's floats and without silently dropped keys."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._checked: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Before the keys of `<<` are laid under a mapping's own, and they are once only.
        if node not in self._checked:
            self._checked.add(node)
            self._check_keys(node)
        super().flatten_mapping(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        keys: list[Any] = []
        for key_node, _ in node.value:
            key = "<<" if key_node.tag == _MERGE else self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            keys.append(key)


_FLOAT = re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def parse_value(text: str) -> Any:
    """Read one value as it would be read from YAML: ``0.02``, ``3e-4``, ``true``, ``[64, 64]``, ``auto``.

    Raises:
        UsageError: if the text is no YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise UsageError(f"cannot read the value {text!r}; quote it if it is text") from None


def read_yaml(path: Path) -> Any:
    """Read a YAML (or JSON) file.

    Raises:
        UsageError: naming the file, and line and column where it is no YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"{path}{place}: {error.problem}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"{path}: {reason}") from None


def check_mapping(value: Any, place: str, known: Collection[str] | None = None) -> dict[str, Any]:
    """Return ``value`` if it is a mapping whose keys are all known; ``None`` counts as empty.

    Args:
        value: what stands at ``place``.
        place: file and path inside it, for the message.
        known: the keys allowed; ``None`` allows every text.

    Raises:
        UsageError: naming the place, the key and the closest key allowed.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"{place}: expected keys with values, got {value!r}")
    for key in value:
        if known is not None and key not in known:
            allowed = ", ".join(known)
            raise UsageError(f"{place}: unknown key {key!r}{did_you_mean(key, known)}; allowed: {allowed}")
        if not isinstance(key, str):
            raise UsageError(f"{place}: the key {key!r} must be text; quote it")
    return dict(value)


def check_integer(value: Any, place: str, low: int) -> int:
    """Return ``value`` as an integer of at least ``low``.

    Raises:
        UsageError: naming the place, the value and what is allowed.
    """
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < low:
        raise UsageError(f"{place}: expected a whole number of at least {low}, got {value!r}")
    return int(value)


def check_plain(value: Any, place: str) -> None:
    """Check that ``value`` is the same after JSON has written and read it.

    Raises:
        UsageError: naming the place of an infinity, a NaN, a date or another value that JSON does not have.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_plain(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_plain(item, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{place}: expected a finite number, got {value}; config.json cannot hold it")
    elif not isinstance(value, str | int | float | None):
        raise UsageError(f"{place}: expected text, a number, true or false, got {value!r}; quote it if it is text")


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``override`` laid over it; mappings inside are merged, everything else is replaced."""
    result = dict(base)
    for key, value in override.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


def set_path(target: dict[str, Any], path: str, value: Any) -> None:
    """Set ``target["a"]["b"]`` for the path ``"a.b"``.

    Raises:
        UsageError: if something on the way is no mapping.
    """
    *parents, last = path.split(".")
    for name in parents:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise UsageError(f"cannot set {path!r}: {name!r} is a single value")
    target[last] = value


def check_checkpoint_seconds(seconds: float) -> None:
    """Check ``--checkpoint-seconds``.

    Raises:
        UsageError: if it is negative or no number.
    """
    if not seconds >= 0:
        raise UsageError(f"--checkpoint-seconds must be at least 0, got {seconds:g}")
