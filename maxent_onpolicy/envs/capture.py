"""Turn the state of live Python objects into plain data.

:func:`capture` reads the attributes of objects ("layers", such as an environment
and its wrappers) into numpy arrays and JSON values, and
:func:`maxent_onpolicy.envs.restore.restore` writes them into layers that were
built by the same code.

Kept: numbers, strings, containers, arrays, tensors, random generators, enums, the
generators inside spaces, MuJoCo models and data, and objects made of those. Two
attributes that hold the same object still do so afterwards. Functions, classes and
rendering are taken to be configuration, which the constructor makes again.
Anything else raises :class:`StateNotRestorableError`.
"""

import random
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import partial
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space
from gymnasium.envs.registration import EnvSpec

PLAIN = (type(None), bool, int, float, str)
_FIXED = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    type,
    partial,
    np.ufunc,
    np.dtype,
    torch.dtype,
    torch.device,
    EnvSpec,
    PurePath,
    range,
    slice,
)
_RENDERING_MODULES = ("pygame", "moviepy", "cv2", "glfw", "OpenGL", "mujoco.renderer", "gymnasium.envs.mujoco.mujoco_r")
# What the constructor was called with, caches of it, and open log files.
_CONFIGURATION = frozenset(
    {"spec", "_cached_spec", "_saved_kwargs", "_ezpickle_args", "_ezpickle_kwargs", "metadata", "_metadata"}
    | {"class_attributes", "results_writer"}
)
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not set for types that are static in C
_NO_MORE_THAN = object.__basicsize__ + 16  # bytes of an object with a dictionary and weak references
_LONG = 16  # lists of at least so many equal-typed numbers become arrays


class StateNotRestorableError(RuntimeError):
    """Some state of an environment cannot be read, or cannot be put back."""


class Layer(NamedTuple):
    """One object whose attributes are state.

    Attributes:
        name: how messages call it.
        target: the object.
        skip: attributes that are not its own state, such as the layer below.
    """

    name: str
    target: Any
    skip: frozenset[str] = frozenset()


def capture(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Return the state of ``layers`` as dicts of numpy arrays and JSON values.

    A layer whose class defines ``get_env_state()`` and ``set_env_state(state)``
    speaks for itself: what the former returns is stored.

    Raises:
        StateNotRestorableError: naming the layer and the attribute that cannot be captured.
    """
    return _Capture(layers).run()


def _has_hooks(target: Any) -> bool:
    return hasattr(type(target), "get_env_state") and hasattr(type(target), "set_env_state")


def type_name(value: Any) -> str:
    """Return the full name of the type of ``value``."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def fixed_name(value: Any) -> str:
    """Return the name by which a function, class or other configuration is recognised again."""
    return str(getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or type_name(value))


def _is_rendering(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
    return any(type(item).__module__.startswith(_RENDERING_MODULES) for item in items)


def _is_python_object(value: Any) -> bool:
    """Whether all state of ``value`` is in its ``__dict__``: no base class keeps any in C or in slots."""
    bases = type(value).__mro__[:-1]
    return (
        hasattr(value, "__dict__")
        and type(value).__basicsize__ <= _NO_MORE_THAN
        and all(cls.__flags__ & _HEAP_TYPE and not vars(cls).get("__slots__") for cls in bases)
    )


def mujoco_type(value: Any) -> str | None:
    """Return ``"MjData"``, ``"MjModel"`` or ``None``, without importing MuJoCo."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is not None:
        for name in ("MjData", "MjModel"):
            if isinstance(value, getattr(mujoco, name)):
                return name
    return None


def _memory_owner(array: np.ndarray) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array if array.base is None else array.base


def spaces_in(space: Space) -> Iterator[Space]:
    """Yield ``space`` and the spaces inside it: each has a random generator."""
    yield space
    for child in vars(space).values():
        children = child.values() if isinstance(child, dict) else child if isinstance(child, tuple | list) else (child,)
        for item in children:
            if isinstance(item, Space):
                yield from spaces_in(item)


class _Capture:
    """One reading of all layers; ``capture`` describes the result."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers
        self.layer = ""
        self.index = {id(layer.target): index for index, layer in enumerate(layers)}
        self.owners: dict[int, str] = {}
        self.alive: list[Any] = []  # so that no id is used twice

    def run(self) -> list[dict[str, Any]]:
        state = []
        for layer in self.layers:
            self.layer = layer.name
            if _has_hooks(layer.target):
                entry = {"own": self.value(layer.target.get_env_state(), "get_env_state()")}
            else:
                entry = {"attributes": self.attributes(layer.target, "", layer.skip)}
            state.append({"layer": layer.name, **entry})
        return state

    def fail(self, path: str, why: str) -> StateNotRestorableError:
        return StateNotRestorableError(f"cannot capture the state of {self.layer}: attribute `{path}` {why}")

    def attributes(self, target: Any, path: str, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
        return {
            name: self.value(value, f"{path}.{name}" if path else name)
            for name, value in vars(target).items()
            if name not in skip and name not in _CONFIGURATION and not _is_rendering(value)
        }

    def claim_memory(self, owner: int, path: str) -> None:
        if owner in self.owners:
            raise self.fail(path, f"shares its memory with `{self.owners[owner]}`, which restoring would undo")
        self.owners[owner] = path

    def value(self, value: Any, path: str) -> Any:
        if type(value) in PLAIN:
            return value
        if id(value) in self.index:
            return {"kind": "alias", "index": self.index[id(value)]}
        if isinstance(value, Enum):
            return {"kind": "enum", "type": type_name(value), "name": value.name}
        if _is_rendering(value):
            return {"kind": "rendering"}
        if isinstance(value, _FIXED):
            return {"kind": "fixed", "name": fixed_name(value)}
        if isinstance(value, np.generic):
            return {"kind": "scalar", "value": self.checked(np.asarray(value), path)}
        if isinstance(value, bytes):
            return {"kind": "bytes", "value": np.frombuffer(value, dtype=np.uint8).copy()}
        if isinstance(value, tuple):
            fields = {"type": type_name(value)} if hasattr(value, "_fields") else {}
            return {"kind": "tuple", "items": self.items(value, path), **fields}
        self.index[id(value)] = len(self.index)
        self.alive.append(value)
        return self.identified(value, path)

    def identified(self, value: Any, path: str) -> Any:
        """Encode a value whose identity matters."""
        if isinstance(value, np.ndarray):
            return self.array(value, path)
        if type(value) is list:
            return self.list(value, path)
        if type(value) in (dict, OrderedDict, defaultdict):
            pairs = [[self.value(key, path), self.value(item, f"{path}[{key!r}]")] for key, item in value.items()]
            return {"kind": type(value).__name__, "items": pairs}
        if type(value) in (set, frozenset):
            return {"kind": type(value).__name__, "items": self.items(value, path)}
        if type(value) is deque:
            return {"kind": "deque", "items": self.items(value, path), "maxlen": value.maxlen}
        if isinstance(value, torch.Tensor):
            self.claim_memory(value.untyped_storage().data_ptr() or id(value), path)
            return {"kind": "tensor", "value": value.detach().cpu().numpy().copy()}
        if mujoco_type(value) is not None:
            return self.mujoco(value, path)
        state = _generator_state(value)
        if state is not None:
            kind = "generator" if isinstance(value, np.random.Generator) else "other_generator"
            return {"kind": kind, "type": type_name(value), "state": self.value(state, path)}
        if isinstance(value, Space):
            generators = [self.value(inner._np_random, path) for inner in spaces_in(value)]
            return {"kind": "space", "generators": generators}
        if _is_python_object(value):
            return {"kind": "object", "type": type_name(value), "attributes": self.attributes(value, path)}
        raise self.fail(path, f"is a {type_name(value)}, which cannot be read")

    def items(self, values: Any, path: str) -> list[Any]:
        return [self.value(item, f"{path}[{index}]") for index, item in enumerate(values)]

    def list(self, value: list[Any], path: str) -> Any:
        kinds = {type(item) for item in value}
        fits = kinds == {float} or (kinds == {int} and all(-(2**63) <= item < 2**63 for item in value))
        if len(value) >= _LONG and fits:
            return {"kind": "numbers", "value": np.array(value)}
        return self.items(value, path)

    def checked(self, array: np.ndarray, path: str) -> np.ndarray:
        if array.dtype.hasobject:
            raise self.fail(path, "is an array of Python objects")
        return array.copy()

    def array(self, value: np.ndarray, path: str) -> Any:
        owner = _memory_owner(value)
        copy = self.checked(value, path)
        if not isinstance(owner, np.ndarray | bytes) and value.flags.writeable:
            return {"kind": "view", "value": copy}  # of memory that another library owns
        self.claim_memory(id(owner), path)
        self.alive.append(owner)
        return copy

    def mujoco(self, value: Any, path: str) -> dict[str, Any]:
        from maxent_onpolicy.envs import mujoco_state

        name = mujoco_type(value)
        read = mujoco_state.get_data_state if name == "MjData" else mujoco_state.get_model_state
        try:
            return {"kind": name, "state": read(value)}
        except ValueError as error:
            raise self.fail(path, f"cannot be read: {error}") from error


def _generator_state(value: Any) -> Any:
    """Return the plain state of a random generator, or ``None`` if ``value`` is none."""
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return value.getstate()
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().copy()
    return None
