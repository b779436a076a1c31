"""Farama's MiniGrid and BabyAI tasks: image observations, an exact state, and a view that is encoded faster.

The package imports ``minigrid`` only when one of its environments is asked for.
"""

from maxent_onpolicy.envs.minigrid.registration import adapted, is_id, register, serves
from maxent_onpolicy.envs.minigrid.task import OBSERVATIONS, MiniGridTask

__all__ = ["OBSERVATIONS", "MiniGridTask", "adapted", "is_id", "register", "serves"]
