"""MuJoCo tasks stepped in one batch, exact against Gymnasium's ``-v5`` tasks."""

from maxent_onpolicy.envs.mujoco_batch.custom import MujocoTask
from maxent_onpolicy.envs.mujoco_batch.vec_env import MujocoBatchVecEnv

__all__ = ["MujocoBatchVecEnv", "MujocoTask"]
