"""This package: ``learn()`` on the environments that its own ``make_vec_env`` makes, unless the workload says SB3's."""

import measure  # first: starts the clock

# isort: split
import sb3_api
import torch
from stable_baselines3.common.env_util import make_vec_env as make_sb3_vec_env

import maxent_onpolicy

PACKAGES = ("maxent-onpolicy", "stable_baselines3", "torch", "gymnasium", "mujoco", "mujoco-mjx", "jax", "numpy")

workload = measure.read_workload()
options = workload["options"]
torch.set_num_threads(workload["threads"])
if options.get("environments") == "sb3":
    env = make_sb3_vec_env(workload["env_id"], workload["n_envs"], workload["seed"])
else:
    env = maxent_onpolicy.make_vec_env(
        workload["env_id"], workload["n_envs"], workload["seed"], **options.get("environment", {})
    )
algorithm = getattr(maxent_onpolicy, options.get("algorithm", "PPO"))
sb3_api.train(workload, algorithm, env, PACKAGES, **options.get("keywords", {}))
