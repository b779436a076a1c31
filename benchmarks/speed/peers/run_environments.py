"""The floor of a rollout: our environments stepped with random actions and nothing else, on all cores."""

import measure  # first: starts the clock

# isort: split
import numpy as np
import torch

from maxent_onpolicy import make_vec_env

workload = measure.read_workload()
n_envs, n_steps = workload["n_envs"], workload["n_steps"]
env = make_vec_env(workload["env_id"], n_envs, workload["seed"], **workload["options"].get("environment", {}))
env.action_space.seed(workload["seed"])
actions = np.stack([[env.action_space.sample() for _ in range(n_envs)] for _ in range(n_steps)])
step = env.step
if hasattr(type(env), "step_tensor"):
    step, actions = env.step_tensor, torch.as_tensor(actions, device=workload["device"])
synchronise = torch.cuda.synchronize if workload["device"] == "cuda" else lambda: None

env.reset()
watch = measure.Stopwatch(workload["warmup"])
for _ in range(workload["warmup"] + workload["iterations"]):
    for action in actions:
        step(action)
    synchronise()
    watch.end_iteration()
watch.report(n_steps * n_envs, ("maxent-onpolicy", "torch", "gymnasium", "mujoco", "mujoco-mjx", "jax", "numpy"))
