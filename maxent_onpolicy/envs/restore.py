"""Write captured state back into live objects; the counterpart of :mod:`maxent_onpolicy.envs.capture`.

The data name no class that would be imported from there: objects are filled in
place, so restoring runs no foreign code.
"""

import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space

from maxent_onpolicy.envs.capture import (
    PLAIN,
    Layer,
    StateNotRestorableError,
    fixed_name,
    mujoco_type,
    spaces_in,
    type_name,
)

_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_MISSING = object()


def restore(layers: Sequence[Layer], state: Sequence[dict[str, Any]]) -> None:
    """Write what :func:`capture` returned into ``layers``, which must be built as the captured ones were.

    Raises:
        StateNotRestorableError: if the layers differ, or an attribute cannot take its value.
    """
    saved, present = [entry["layer"] for entry in state], [layer.name for layer in layers]
    if saved != present:
        raise StateNotRestorableError(f"the state was saved from {saved}, but the environment is {present}")
    _Restore(layers).run(state)


class _Restore:
    """One writing of all layers; visits values in the order in which ``_Capture`` did."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers
        self.layer = ""
        self.seen: list[Any] = [layer.target for layer in layers]

    def run(self, state: Sequence[dict[str, Any]]) -> None:
        for layer, entry in zip(self.layers, state, strict=True):
            self.layer = layer.name
            if "own" in entry:
                layer.target.set_env_state(self.value(entry["own"], _MISSING, "set_env_state()"))
            else:
                self.attributes(layer.target, entry["attributes"], "")

    def fail(self, path: str, why: str) -> StateNotRestorableError:
        return StateNotRestorableError(f"cannot restore the state of {self.layer}: attribute `{path}` {why}")

    def attributes(self, target: Any, state: dict[str, Any], path: str) -> None:
        for name, value in state.items():
            current = vars(target).get(name, _MISSING)
            # Not setattr: the attribute was read from __dict__, behind properties and frozen dataclasses.
            vars(target)[name] = self.value(value, current, f"{path}.{name}" if path else name)

    def value(self, saved: Any, current: Any, path: str) -> Any:
        if type(saved) in PLAIN:
            return saved
        if isinstance(saved, np.ndarray):
            return self.remember(saved.copy())
        if isinstance(saved, list):
            return self.fill(self.remember([]), saved, current, path)
        handler = getattr(self, f"_{saved['kind']}", None)
        if handler is None:
            raise self.fail(path, f"was saved as {saved['kind']!r}, which this version does not know")
        return handler(saved, current, path)

    def remember(self, value: Any) -> Any:
        self.seen.append(value)
        return value

    def items(self, saved: Sequence[Any], current: Any, path: str) -> list[Any]:
        known = list(current) if isinstance(current, list | tuple | deque) else []
        known += [_MISSING] * (len(saved) - len(known))
        return [self.value(item, known[index], f"{path}[{index}]") for index, item in enumerate(saved)]

    def fill(self, target: list[Any], saved: Sequence[Any], current: Any, path: str) -> list[Any]:
        target.extend(self.items(saved, current, path))
        return target

    def same_type(self, saved: dict[str, Any], current: Any, path: str) -> None:
        if current is _MISSING or type_name(current) != saved["type"]:
            found = "is missing" if current is _MISSING else f"is a {type_name(current)}"
            raise self.fail(path, f"{found}, but was a {saved['type']}")

    def _alias(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        return self.seen[saved["index"]]

    def _enum(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        self.same_type(saved, current, path)
        return type(current)[saved["name"]]

    def _rendering(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        return None if current is _MISSING else current

    def _fixed(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        if current is _MISSING or fixed_name(current) != saved["name"]:
            raise self.fail(path, f"was {saved['name']} and cannot be made again")
        return current

    def _scalar(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        return saved["value"][()]

    def _bytes(self, saved: dict[str, Any], current: Any, path: str) -> bytes:
        return saved["value"].tobytes()

    def _tuple(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        items = self.items(saved["items"], current, path)
        if "type" not in saved:
            return tuple(items)
        self.same_type(saved, current, path)
        return type(current)._make(items)

    def _numbers(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        return self.remember(saved["value"].tolist())

    def _view(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        value = saved["value"]
        if not isinstance(current, np.ndarray) or (current.shape, current.dtype) != (value.shape, value.dtype):
            raise self.fail(path, "was a view of another library's memory and is none now")
        current[...] = value
        return self.remember(current)

    def _mapping(self, target: Any, saved: dict[str, Any], current: Any, path: str) -> Any:
        self.remember(target)
        known = current if isinstance(current, dict) else {}
        for saved_key, item in saved["items"]:
            key = self.value(saved_key, _MISSING, path)
            target[key] = self.value(item, known.get(key, _MISSING), f"{path}[{key!r}]")
        return target

    def _dict(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        return self._mapping({}, saved, current, path)

    def _OrderedDict(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        return self._mapping(OrderedDict(), saved, current, path)

    def _defaultdict(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        if not isinstance(current, defaultdict):
            raise self.fail(path, "was a defaultdict, whose default is not known now")
        return self._mapping(defaultdict(current.default_factory), saved, current, path)

    def _set(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        target = self.remember(set())
        target.update(self.items(saved["items"], _MISSING, path))
        return target

    def _frozenset(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        position = len(self.seen)
        self.seen.append(None)
        self.seen[position] = frozenset(self.items(saved["items"], _MISSING, path))
        return self.seen[position]

    def _deque(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        target = self.remember(deque(maxlen=saved["maxlen"]))
        target.extend(self.items(saved["items"], current, path))
        return target

    def _tensor(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        value = torch.from_numpy(saved["value"].copy())
        if isinstance(current, torch.nn.Parameter) and current.shape == value.shape:
            current.data.copy_(value)  # its module and its optimiser hold this very object
            return self.remember(current)
        return self.remember(value.to(current.device) if isinstance(current, torch.Tensor) else value)

    def _space(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        self.remember(current)
        spaces = list(spaces_in(current)) if isinstance(current, Space) else []
        if len(spaces) != len(saved["generators"]):
            raise self.fail(path, "is another space than the saved one")
        for space, generator in zip(spaces, saved["generators"], strict=True):
            space._np_random = self.value(generator, space._np_random, path)
        return current

    def _object(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        self.same_type(saved, current, path)
        self.remember(current)
        self.attributes(current, saved["attributes"], path)
        return current

    def _generator(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        position = len(self.seen)
        self.seen.append(current)
        state = self.value(saved["state"], _MISSING, path)
        self.seen[position] = _numpy_generator(current, state)
        return self.seen[position]

    def _other_generator(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        self.same_type(saved, current, path)
        self.remember(current)
        state = self.value(saved["state"], _MISSING, path)
        if isinstance(current, random.Random):
            current.setstate(state)
        else:
            current.set_state(torch.from_numpy(state) if isinstance(current, torch.Generator) else state)
        return current

    def _mujoco(self, name: str, saved: dict[str, Any], current: Any, path: str) -> Any:
        from maxent_onpolicy.envs import mujoco_state

        if mujoco_type(current) != name:
            raise self.fail(path, f"is no {name} now")
        write = mujoco_state.set_data_state if name == "MjData" else mujoco_state.set_model_state
        try:
            write(current, saved["state"])
        except ValueError as error:
            raise self.fail(path, f"cannot be written: {error}") from error
        return self.remember(current)

    def _MjData(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        return self._mujoco("MjData", saved, current, path)

    def _MjModel(self, saved: dict[str, Any], current: Any, path: str) -> Any:
        return self._mujoco("MjModel", saved, current, path)


def _numpy_generator(current: Any, state: dict[str, Any]) -> np.random.Generator:
    name = state["bit_generator"]
    if not isinstance(current, np.random.Generator) or type(current.bit_generator).__name__ != name:
        if name not in _BIT_GENERATORS:
            raise StateNotRestorableError(f"unknown bit generator {name!r}; known are {', '.join(_BIT_GENERATORS)}")
        current = np.random.Generator(getattr(np.random, name)())
    current.bit_generator.state = state
    return current
