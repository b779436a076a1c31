"""Find MiniGrid's environments, and make them ours."""

from copy import copy
from functools import cache
from importlib import import_module

from gymnasium.envs.registration import EnvSpec, load_env_creator

from maxent_onpolicy.envs.minigrid.task import FastView, MiniGridTask

_PREFIXES = ("minigrid-", "babyai-")


def is_id(name: str) -> bool:
    """Whether ``name`` looks like the id of one of MiniGrid's environments, registered or not."""
    return name.lower().startswith(_PREFIXES)


def register() -> None:
    """Register MiniGrid's environments with Gymnasium.

    Raises:
        ImportError: if MiniGrid is not installed.
    """
    import_module("minigrid")


def serves(spec: EnvSpec) -> bool:
    """Whether a registered environment is one of MiniGrid's own."""
    return isinstance(spec.entry_point, str) and spec.entry_point.startswith("minigrid.")


def adapted(spec: EnvSpec) -> EnvSpec:
    """Return the specification of the same environment with :class:`MiniGridTask` before it."""
    assert isinstance(spec.entry_point, str)
    result = copy(spec)
    result.entry_point = _adapted_class(load_env_creator(spec.entry_point))  # type: ignore[arg-type,assignment]
    return result


@cache
def _adapted_class(cls: type) -> type:
    from minigrid.minigrid_env import MiniGridEnv

    seen_as_usual = all(getattr(cls, name) is getattr(MiniGridEnv, name) for name in ("gen_obs", "gen_obs_grid"))
    bases = (MiniGridTask, FastView, cls) if seen_as_usual else (MiniGridTask, cls)
    return type(cls.__name__, bases, {"__doc__": cls.__doc__, "__module__": cls.__module__})
