"""SB3's PPO or ours on Procgen, with the same environments and the same network."""

import measure  # first: starts the clock

# isort: split
from typing import Any

import plain_impala
import sb3_api
import stable_baselines3
import torch

import maxent_onpolicy

PACKAGES = ("maxent-onpolicy", "stable_baselines3", "torch", "procgen-mirror", "procgen-gym", "numpy")

workload = measure.read_workload()
options = workload["options"]
torch.set_num_threads(workload["threads"])
env = maxent_onpolicy.make_vec_env(
    workload["env_id"], workload["n_envs"], workload["seed"], distribution_mode="easy", num_levels=200
)
ours, impala = options["package"] == "ours", options["network"] == "impala"
keywords: dict[str, Any] = {"policy": "CnnPolicy", "policy_kwargs": {}}
if impala and ours:
    keywords["policy"] = "ImpalaPolicy"
elif impala:
    keywords["policy_kwargs"] = {"features_extractor_class": plain_impala.PlainImpala}
algorithm = getattr(maxent_onpolicy if ours else stable_baselines3, options["algorithm"])
sb3_api.train(workload, algorithm, env, PACKAGES, **keywords, **options["keywords"])
