"""What the ``VecEnv``s share that step all their environments in one library call."""

import os
from collections.abc import Callable
from typing import Any


def available_cores() -> int:
    """Return how many cores this process may use: its part, where ``torchrun`` started several."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def remake(make: Callable[[], Any], state: dict[str, Any], reset_infos: list[Any]) -> Any:
    """Return a pickled ``VecEnv``: made again by ``make``, with the state and the infos it had."""
    vec_env = make()
    vec_env.set_state(state)
    vec_env.reset_infos = reset_infos
    return vec_env
