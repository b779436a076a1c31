"""What the ``VecEnv``s share that step all their environments in one library call."""

from collections.abc import Callable
from typing import Any


def remake(make: Callable[[], Any], state: dict[str, Any], reset_infos: list[Any]) -> Any:
    """Return a pickled ``VecEnv``: made again by ``make``, with the state and the infos it had."""
    vec_env = make()
    vec_env.set_state(state)
    vec_env.reset_infos = reset_infos
    return vec_env
