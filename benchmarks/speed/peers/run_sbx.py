"""SBX's PPO or SAC: JAX, jitted as it always is, on SB3's DummyVecEnv. XLA chooses its own threads."""

import measure  # first: starts the clock

# isort: split
import sb3_api
import torch
from sbx import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env

workload = measure.read_workload()
torch.set_num_threads(workload["threads"])
env = make_vec_env(workload["env_id"], workload["n_envs"], workload["seed"])
packages = ("sbx-rl", "stable_baselines3", "jax", "jaxlib", "flax", "optax", "gymnasium", "mujoco", "numpy")
algorithm = SAC if workload["options"].get("algorithm") == "SAC" else PPO
sb3_api.train(workload, algorithm, env, packages)
