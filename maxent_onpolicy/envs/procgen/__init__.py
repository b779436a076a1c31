"""Procgen's sixteen games (Cobbe et al. 2020), on the C library in their wheels and without their Python code."""

import re
from typing import TYPE_CHECKING

from stable_baselines3.common.vec_env import VecEnv

from maxent_onpolicy.envs.procgen.games import GAMES

if TYPE_CHECKING:
    from maxent_onpolicy.envs.make import EnvRequest

PREFIX = "procgen:"

__all__ = ["GAMES", "PREFIX", "id_hint", "make_procgen_vec_env", "serves_procgen"]


def serves_procgen(request: "EnvRequest") -> bool:
    """Return whether the id begins with ``procgen:``; whatever follows is for this backend only."""
    return isinstance(request.env_id, str) and request.env_id.startswith(PREFIX)


def id_hint(env_id: str) -> str:
    """Return what a game is called here that an unknown id like ``"procgen-coinrun-v0"`` may mean, or ``""``."""
    words = re.split("[^a-z]+", env_id.lower())
    games = [word for word in words if word in GAMES]
    if not games and "procgen" not in words:
        return ""
    example = f"{PREFIX}{games[0] if games else 'NAME'}"
    return f"; Procgen's games are called like {example!r}, with one of {', '.join(GAMES)}"


def make_procgen_vec_env(request: "EnvRequest") -> VecEnv:
    """Make the requested environments; keywords are those of ``ProcgenVecEnv``.

    Raises:
        ImportError: if Procgen or a library of the system is not installed.
        ValueError: for an unknown game, keyword or value, a ``wrapper`` or ``discretize_bins``.
    """
    from maxent_onpolicy.envs.procgen.vec_env import ProcgenVecEnv

    assert isinstance(request.env_id, str)
    if request.wrapper is not None:
        raise ValueError(
            "`wrapper`: Procgen's environments are no objects that could be wrapped one by one; put a VecEnvWrapper "
            "around what make_vec_env returns"
        )
    if request.discretize_bins is not None:
        raise ValueError(
            f"`discretize_bins`: Procgen's 15 actions are discrete already, got {request.discretize_bins!r}"
        )
    game = request.env_id.removeprefix(PREFIX)
    if "game" in request.env_kwargs:
        raise ValueError(f"`game`: `env_id` {request.env_id!r} names it already, got {request.env_kwargs['game']!r}")
    vec_env = ProcgenVecEnv(game, request.n_envs, monitor=request.monitor, **request.env_kwargs)
    vec_env.action_space.seed(request.seed)
    vec_env.seed(request.seed)
    return vec_env
