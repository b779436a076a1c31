"""The state of MuJoCo's ``MjData`` and ``MjModel`` as dictionaries of arrays.

``mj_getState(mjSTATE_INTEGRATION)`` determines the physics, but not what a task
reads before it steps: Ant and Humanoid take the body's ``xpos`` first, and after
a step ``xpos`` still belongs to the position before the last integration. So every
array of ``MjData`` is kept, except those that MuJoCo allocates anew in each step.
"""

from typing import Any

import mujoco
import numpy as np

# Allocated in MjData's arena: their size depends on the contacts of the moment, and mj_step computes them before it
# reads them.
_ARENA_PREFIXES = ("efc_", "iefc_", "efm_", "island_", "map_", "iacc", "ifrc_")
_ARENA_NAMES = frozenset({"contact", "tendon_efcadr", "dof_island", "tree_island"})
# Addresses of this process's memory.
_POINTERS = frozenset({"plugin_data"})


def array_names(struct: mujoco.MjData | mujoco.MjModel | mujoco.MjOption) -> list[str]:
    """Return the attributes of ``struct`` that are arrays of a size that never changes."""
    hidden = ("_", *_ARENA_PREFIXES) if isinstance(struct, mujoco.MjData) else ("_",)
    return [
        name
        for name in dir(struct)
        if not name.startswith(hidden)
        and name not in _ARENA_NAMES | _POINTERS
        and isinstance(getattr(struct, name), np.ndarray)
    ]


def get_data_state(data: mujoco.MjData) -> dict[str, Any]:
    """Return time and all fixed-size arrays of ``data``, as copies.

    Raises:
        ValueError: if the model uses engine plugins, whose memory cannot be read.
    """
    if data.nplugin:
        raise ValueError("the model uses MuJoCo engine plugins, whose state cannot be read")
    return {
        "mujoco": mujoco.mj_versionString(),
        "time": data.time,
        "arrays": {name: getattr(data, name).copy() for name in array_names(data)},
    }


def set_data_state(data: mujoco.MjData, state: dict[str, Any]) -> None:
    """Write what :func:`get_data_state` returned into ``data``, in place.

    Raises:
        ValueError: if the state comes from another model or another MuJoCo version.
    """
    if state["mujoco"] != mujoco.mj_versionString():
        raise ValueError(
            f"the state was saved with MuJoCo {state['mujoco']}, this is {mujoco.mj_versionString()}: "
            "the same state would continue differently"
        )
    mujoco.mj_resetData(data.model, data)
    data.time = state["time"]
    _write_arrays(data, state["arrays"])


def get_model_state(model: mujoco.MjModel) -> dict[str, Any]:
    """Return all arrays and physics options of ``model``: tasks may randomise them."""
    options = {name: getattr(model.opt, name) for name in dir(model.opt) if not name.startswith("_")}
    return {
        "arrays": {name: getattr(model, name).copy() for name in array_names(model)},
        "option_arrays": {name: getattr(model.opt, name).copy() for name in array_names(model.opt)},
        "option_numbers": {name: value for name, value in options.items() if isinstance(value, int | float)},
    }


def set_model_state(model: mujoco.MjModel, state: dict[str, Any]) -> None:
    """Write what :func:`get_model_state` returned into ``model``, in place.

    Raises:
        ValueError: if the state comes from a model of another size.
    """
    _write_arrays(model, state["arrays"])
    _write_arrays(model.opt, state["option_arrays"])
    for name, value in state["option_numbers"].items():
        setattr(model.opt, name, value)


def _write_arrays(struct: Any, arrays: dict[str, np.ndarray]) -> None:
    for name, value in arrays.items():
        current = getattr(struct, name, None)
        if not isinstance(current, np.ndarray) or current.shape != value.shape:
            raise ValueError(f"the state comes from another model: `{name}` has shape {value.shape} there")
        # Most of a model never changes, and some of it is read-only.
        if current.tobytes() != value.tobytes():
            current[...] = value
