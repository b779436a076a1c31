"""Self-play: neural policies that learn two-player zero-sum games by playing against themselves.

Names are imported on first use: to play needs OpenSpiel or PettingZoo alone, to measure exploitability numba too.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maxent_onpolicy.games.selfplay.callback import ExploitabilityCallback
    from maxent_onpolicy.games.selfplay.information_states import InformationStates, exploitability
    from maxent_onpolicy.games.selfplay.pettingzoo import PettingZooVecEnv
    from maxent_onpolicy.games.selfplay.vec_env import SelfPlayVecEnv

__all__ = ["ExploitabilityCallback", "InformationStates", "PettingZooVecEnv", "SelfPlayVecEnv", "exploitability"]

_HOME = {
    "ExploitabilityCallback": "callback",
    "InformationStates": "information_states",
    "PettingZooVecEnv": "pettingzoo",
    "SelfPlayVecEnv": "vec_env",
    "exploitability": "information_states",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
