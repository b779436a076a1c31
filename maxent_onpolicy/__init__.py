"""Maximum-entropy on-policy reinforcement learning for Stable-Baselines3 users.

Public names are imported on first use, so that tools which only read results
(``maxent-onpolicy report``) start without loading PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.maxent_ppo import MaxEntPPO
    from maxent_onpolicy.algorithms.maxent_trpo import MaxEntTRPO
    from maxent_onpolicy.algorithms.ppo import PPO
    from maxent_onpolicy.algorithms.rpo import RPO
    from maxent_onpolicy.algorithms.sac import SAC
    from maxent_onpolicy.algorithms.train_seeds import train_seeds
    from maxent_onpolicy.algorithms.trpo import TRPO
    from maxent_onpolicy.envs.make import make_vec_env
    from maxent_onpolicy.games.solvers.omwu import OMWU

__version__ = "0.1.0"

__all__ = ["OMWU", "PPO", "RPO", "SAC", "TRPO", "MaxEntPPO", "MaxEntTRPO", "__version__", "make_vec_env", "train_seeds"]

_HOME = {
    "OMWU": "maxent_onpolicy.games.solvers.omwu",
    "PPO": "maxent_onpolicy.algorithms.ppo",
    "RPO": "maxent_onpolicy.algorithms.rpo",
    "TRPO": "maxent_onpolicy.algorithms.trpo",
    "MaxEntPPO": "maxent_onpolicy.algorithms.maxent_ppo",
    "MaxEntTRPO": "maxent_onpolicy.algorithms.maxent_trpo",
    "SAC": "maxent_onpolicy.algorithms.sac",
    "make_vec_env": "maxent_onpolicy.envs.make",
    "train_seeds": "maxent_onpolicy.algorithms.train_seeds",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
