"""Exact state of vectorised environments, so that training can stop and go on bit by bit the same.

:func:`get_env_state` reads everything that determines the future of a ``VecEnv``:
its wrappers, its buffers, and of each environment all layers down to the simulator
and the random generator. :func:`set_env_state` writes it into a new ``VecEnv`` made
by the same code.

Not kept, because no environment can tell us about it: state outside of the
environment's objects (class attributes, module globals, closures, numpy's global
generator) and MuJoCo's list of contacts between two steps, which ``mj_step``
computes again before it uses it.
"""

import io
import json
import zipfile
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import PassiveEnvChecker
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from maxent_onpolicy.envs.capture import Layer, StateNotRestorableError, capture
from maxent_onpolicy.envs.restore import restore

__all__ = [
    "StateNotRestorableError",
    "StatefulVecEnv",
    "get_dummy_state",
    "get_env_state",
    "set_dummy_state",
    "set_env_state",
    "state_from_bytes",
    "state_to_bytes",
]

_FORMAT = 1
_ARRAY = "__array__"


@runtime_checkable
class StatefulVecEnv(Protocol):
    """A ``VecEnv`` without wrappers that can save and restore its own state."""

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future, as numpy arrays and JSON values."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        ...


def get_env_state(vec_env: VecEnv) -> dict[str, Any]:
    """Return the state of ``vec_env``, its wrappers and its environments.

    Args:
        vec_env: a ``VecEnv`` whose innermost one has ``get_state()``, or is SB3's
            ``DummyVecEnv``; in any number of ``VecEnvWrapper``.

    Returns:
        A dict of numpy arrays and JSON values; :func:`state_to_bytes` turns it into a file.

    Raises:
        StateNotRestorableError: naming the layer and the attribute that cannot be read.
    """
    wrappers, base = _split(vec_env)
    return {
        "format": _FORMAT,
        "wrappers": [capture([_wrapper_layer(wrapper)]) for wrapper in wrappers],
        "base": base.get_state() if isinstance(base, StatefulVecEnv) else get_dummy_state(_restorable(base)),
    }


def set_env_state(vec_env: VecEnv, state: dict[str, Any]) -> None:
    """Put ``vec_env`` into a state that :func:`get_env_state` returned.

    It must have been built as the saved one: same environments, wrappers and
    number of environments. It need not have been reset.

    Raises:
        StateNotRestorableError: if it was built differently.
    """
    if state.get("format") != _FORMAT:
        raise StateNotRestorableError(f"the state has format {state.get('format')!r}; this version reads {_FORMAT}")
    wrappers, base = _split(vec_env)
    if len(wrappers) != len(state["wrappers"]):
        saved = [layer["layer"] for layers in state["wrappers"] for layer in layers]
        raise StateNotRestorableError(
            f"the state was saved with the VecEnv wrappers {saved}, "
            f"but the environment has {[type(wrapper).__name__ for wrapper in wrappers]}"
        )
    if isinstance(base, StatefulVecEnv):
        base.set_state(state["base"])
    else:
        set_dummy_state(_restorable(base), state["base"])
    for wrapper, layers in zip(wrappers, state["wrappers"], strict=True):
        restore([_wrapper_layer(wrapper)], layers)


def get_dummy_state(vec_env: DummyVecEnv) -> dict[str, Any]:
    """Return the state of an in-process ``VecEnv`` without wrappers; see :func:`get_env_state`."""
    return {"num_envs": vec_env.num_envs, "layers": capture(_dummy_layers(vec_env))}


def set_dummy_state(vec_env: DummyVecEnv, state: dict[str, Any]) -> None:
    """Restore an in-process ``VecEnv`` without wrappers; see :func:`set_env_state`."""
    if "layers" not in state:
        raise StateNotRestorableError(
            f"the state was saved by a {state.get('kind', 'VecEnv of another kind')}, not by environments in a "
            f"{type(vec_env).__name__}; make this one with the backend of the saved one to continue it"
        )
    if state["num_envs"] != vec_env.num_envs:
        raise StateNotRestorableError(
            f"the state was saved from {state['num_envs']} environments, but there are {vec_env.num_envs} now"
        )
    for env in vec_env.envs:
        # Many environments build their objects only in reset(); everything it sets is overwritten below.
        if env.unwrapped._np_random is None:
            env.reset()
    restore(_dummy_layers(vec_env), state["layers"])


def state_to_bytes(state: dict[str, Any]) -> bytes:
    """Return ``state`` as the bytes of a compressed ``.npz`` file without pickle.

    Equal arrays, such as the models of identical environments, are stored once.
    """
    arrays: dict[str, np.ndarray] = {}
    names: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def pack(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = names.setdefault((value.dtype.str, value.shape, value.tobytes()), f"a{len(names)}")
            arrays[name] = value
            return {_ARRAY: name}
        if isinstance(value, dict):
            return {key: pack(item) for key, item in value.items()}
        return [pack(item) for item in value] if isinstance(value, list | tuple) else value

    buffer = io.BytesIO()
    structure = np.array(json.dumps(pack(state)))
    np.savez_compressed(buffer, structure=structure, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def state_from_bytes(data: bytes) -> dict[str, Any]:
    """Return the state that :func:`state_to_bytes` wrote.

    Raises:
        ValueError: if ``data`` is something else, or damaged.
    """

    def unpack(value: Any) -> Any:
        if isinstance(value, dict):
            return arrays[value[_ARRAY]] if _ARRAY in value else {key: unpack(item) for key, item in value.items()}
        return [unpack(item) for item in value] if isinstance(value, list) else value

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state: dict[str, Any] = unpack(json.loads(str(arrays["structure"])))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"not an environment state, or a damaged one: {error}") from error
    return state


def _split(vec_env: VecEnv) -> tuple[list[VecEnvWrapper], VecEnv]:
    wrappers = []
    while isinstance(vec_env, VecEnvWrapper):
        wrappers.append(vec_env)
        vec_env = vec_env.venv
    return wrappers, vec_env


def _restorable(base: VecEnv) -> DummyVecEnv:
    if not isinstance(base, DummyVecEnv):
        raise StateNotRestorableError(
            f"{type(base).__name__} has no `get_state` and `set_state`; "
            "environments made by `make_vec_env` and SB3's DummyVecEnv can be restored"
        )
    return base


def _wrapper_layer(wrapper: VecEnvWrapper) -> Layer:
    return Layer(type(wrapper).__name__, wrapper, frozenset({"venv"}))


def _dummy_layers(vec_env: DummyVecEnv) -> list[Layer]:
    """List the VecEnv itself and every layer of its environments, outermost first."""
    # The infos and actions of the last step play no part in the next.
    layers = [Layer("VecEnv", vec_env, frozenset({"envs", "buf_infos", "actions"}))]
    for index, env in enumerate(vec_env.envs):
        layer: gym.Env = env
        while isinstance(layer, gym.Wrapper):
            # It only warns about the first calls of its own environment.
            if not isinstance(layer, PassiveEnvChecker):
                layers.append(Layer(f"envs[{index}].{type(layer).__name__}", layer, frozenset({"env"})))
            layer = layer.env
        layers.append(Layer(f"envs[{index}].{type(layer).__name__}", layer))
    return layers
