"""Self-play by id, for ``make_vec_env`` and the commands: ``openspiel:leduc_poker``, ``pettingzoo:connect_four_v3``."""

from typing import TYPE_CHECKING

from stable_baselines3.common.vec_env import VecEnv

from maxent_onpolicy.env_ids import SELF_PLAY

if TYPE_CHECKING:
    from maxent_onpolicy.envs.make import EnvRequest

OPENSPIEL, PETTINGZOO = SELF_PLAY


def make_self_play_vec_env(request: "EnvRequest") -> VecEnv:
    """Make the requested environments.

    Raises:
        ImportError: if what implements the game is not installed.
        ValueError: for an unknown game, a keyword it does not take, a ``wrapper`` or ``discretize_bins``.
    """
    from maxent_onpolicy.games.selfplay import PettingZooVecEnv, SelfPlayVecEnv

    assert isinstance(request.env_id, str)
    if request.wrapper is not None:
        raise ValueError(
            "`wrapper`: games in self-play are stepped together, none can be wrapped by itself; put a VecEnvWrapper "
            "around what make_vec_env returns"
        )
    if request.discretize_bins is not None:
        raise ValueError(f"`discretize_bins`: a game's moves are discrete already, got {request.discretize_bins!r}")
    kind = OPENSPIEL if request.env_id.startswith(OPENSPIEL) else PETTINGZOO
    game, kwargs = request.env_id.removeprefix(kind), request.env_kwargs
    if kind == PETTINGZOO:
        return PettingZooVecEnv(game, request.n_envs, request.seed, monitor=request.monitor, **kwargs)
    if kwargs:
        name = next(iter(kwargs))
        raise ValueError(
            f"`{name}`: a game of OpenSpiel takes its parameters in its name, as in "
            f"{OPENSPIEL + game!r}({name}={kwargs[name]})"
        )
    return SelfPlayVecEnv(game, request.n_envs, request.seed, monitor=request.monitor)
