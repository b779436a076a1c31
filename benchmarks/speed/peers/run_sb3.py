"""Stable-Baselines3's PPO on its own DummyVecEnv; its documentation advises the CPU for MLP policies."""

import measure  # first: starts the clock

# isort: split
import sb3_api
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

workload = measure.read_workload()
torch.set_num_threads(workload["threads"])
env = make_vec_env(workload["env_id"], workload["n_envs"], workload["seed"])
packages = ("stable_baselines3", "sb3-contrib", "torch", "gymnasium", "mujoco", "numpy")
sb3_api.train(workload, PPO, env, packages)
