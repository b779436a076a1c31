"""Stable-Baselines3's PPO or SAC, or sb3-contrib's TRPO, on SB3's DummyVecEnv; SB3 advises the CPU for MLPs."""

import measure  # first: starts the clock

# isort: split
import sb3_api
import torch
from stable_baselines3.common.env_util import make_vec_env

workload = measure.read_workload()
torch.set_num_threads(workload["threads"])
if workload["options"].get("algorithm") == "TRPO":
    from sb3_contrib import TRPO as Algorithm
elif workload["options"].get("algorithm") == "SAC":
    from stable_baselines3 import SAC as Algorithm
else:
    from stable_baselines3 import PPO as Algorithm
env = make_vec_env(workload["env_id"], workload["n_envs"], workload["seed"])
packages = ("stable_baselines3", "sb3-contrib", "torch", "gymnasium", "mujoco", "numpy")
sb3_api.train(workload, Algorithm, env, packages)
