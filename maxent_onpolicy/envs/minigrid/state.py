"""The state of a MiniGrid environment as plain data, and back.

A grid holds objects that come and go: at the moment of restoring, a new
environment has others, in other places. So they are written down with the names
of their classes and made again. A class is only looked up among MiniGrid's own
that are imported already, and its constructor is not called.
"""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium import Space

from maxent_onpolicy.envs.capture import PLAIN, StateNotRestorableError, spaces_in, type_name

_PACKAGE = "minigrid"
_CLASS = "__class__"
_CONFIGURATION = frozenset({"spec", "window", "clock", "actions"})


def own_state(env: Any) -> dict[str, Any]:
    """Return what determines the future of ``env``, as containers, numbers, arrays and random generators.

    Raises:
        StateNotRestorableError: naming the attribute that cannot be kept.
    """
    pack = _Pack(env)
    attributes = {name: value for name, value in vars(env).items() if not _is_configuration(name, value)}
    return {
        "attributes": {name: pack(value, name) for name, value in attributes.items()},
        "generators": [space._np_random for space in _spaces(env)],
    }


def set_own_state(env: Any, state: dict[str, Any]) -> None:
    """Write what :func:`own_state` returned into ``env``, which was built as the saved one.

    Raises:
        StateNotRestorableError: if it was not, or the state names an unknown class.
    """
    spaces = _spaces(env)
    if len(spaces) != len(state["generators"]):
        raise StateNotRestorableError(f"cannot restore the state of {type(env).__name__}: its spaces are others")
    for space, generator in zip(spaces, state["generators"], strict=True):
        space._np_random = generator
    unpack = _Unpack(env)
    vars(env).update({name: unpack(value) for name, value in state["attributes"].items()})


def _is_configuration(name: str, value: Any) -> bool:
    return name in _CONFIGURATION or isinstance(value, Space | type) or callable(value)


def _spaces(env: Any) -> list[Space]:
    found = [value for value in vars(env).values() if isinstance(value, Space)]
    return [inner for space in found for inner in spaces_in(space)]


def _is_minigrids(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == _PACKAGE


class _Pack:
    """Objects to dictionaries; the same object becomes the same dictionary, so that it is one object again."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.packed: dict[int, Any] = {}
        self.alive: list[Any] = []  # so that no id is used twice

    def __call__(self, value: Any, path: str) -> Any:
        if (
            type(value) in PLAIN
            or value is self.env
            or isinstance(value, np.ndarray | np.generic | np.random.Generator)
        ):
            return value
        if type(value) is tuple:
            return tuple(self.items(value, path))
        if id(value) in self.packed:
            return self.packed[id(value)]
        self.alive.append(value)
        if type(value) is list:
            items: list[Any] = self.remember(value, [])
            items.extend(self.items(value, path))
            return items
        if type(value) is dict:
            return self.fill(self.remember(value, {}), value, path)
        if _is_minigrids(value) and hasattr(value, "__dict__"):
            packed = self.remember(value, {_CLASS: f"{type(value).__module__}:{type(value).__qualname__}"})
            return self.fill(packed, vars(value), path)
        raise StateNotRestorableError(
            f"cannot capture the state of {type(self.env).__name__}: attribute `{path}` is a {type_name(value)}, "
            "which cannot be read"
        )

    def remember(self, value: Any, packed: Any) -> Any:
        self.packed[id(value)] = packed
        return packed

    def items(self, values: Iterable[Any], path: str) -> list[Any]:
        return [self(item, f"{path}[{index}]") for index, item in enumerate(values)]

    def fill(self, packed: dict[Any, Any], values: dict[Any, Any], path: str) -> dict[Any, Any]:
        packed.update({key: self(item, f"{path}.{key}") for key, item in values.items()})
        return packed


class _Unpack:
    """Dictionaries to objects; the same dictionary becomes the same object."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.unpacked: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if type(value) is tuple:
            return tuple(self(item) for item in value)
        if type(value) not in (list, dict):
            return value
        if id(value) not in self.unpacked:
            self.make(value)
        return self.unpacked[id(value)]

    def make(self, value: Any) -> None:
        if type(value) is list:
            items: list[Any] = []
            self.unpacked[id(value)] = items
            items.extend(self(item) for item in value)
        elif _CLASS in value:
            cls = _find_class(value[_CLASS])
            made: Any = object.__new__(cls)
            self.unpacked[id(value)] = made
            vars(made).update({name: self(item) for name, item in value.items() if name != _CLASS})
        else:
            mapping: dict[Any, Any] = {}
            self.unpacked[id(value)] = mapping
            mapping.update({key: self(item) for key, item in value.items()})


def _find_class(name: str) -> type:
    """Return a class of MiniGrid's by ``module:name``, if it is imported."""
    module, _, qualname = name.partition(":")
    cls = vars(sys.modules[module]).get(qualname) if module in sys.modules else None
    if module.partition(".")[0] != _PACKAGE or not isinstance(cls, type):
        raise StateNotRestorableError(f"the saved state names {name!r}, which is no class of this version of MiniGrid")
    return cls
