"""Vectorised environments: making, normalising, saving and restoring them."""

from maxent_onpolicy.envs.discretize import DiscretizeActions
from maxent_onpolicy.envs.gym_vec_env import GymVecEnv
from maxent_onpolicy.envs.make import make_vec_env
from maxent_onpolicy.envs.normalize import VecNormalize

__all__ = ["DiscretizeActions", "GymVecEnv", "VecNormalize", "make_vec_env"]
