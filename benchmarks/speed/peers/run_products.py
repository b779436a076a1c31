"""The floor of an update: only the matrix products and tanh of its minibatches, for actor and critic at once.

Eight batched products a minibatch (three forward, three for the weights' gradients, two for the layers' inputs) and
the tanh of both layers, written into memory that is allocated once. No loss, no optimiser, no shuffling.
"""

import measure  # first: starts the clock

# isort: split
from itertools import pairwise

import gymnasium as gym
import torch
from torch import Tensor

workload = measure.read_workload()
torch.set_num_threads(workload["threads"])
torch.manual_seed(workload["seed"])
env = gym.make(workload["env_id"])
width, batch = workload["width"], workload["batch_size"]
sizes = [
    env.observation_space.shape[0],
    width,
    width,
    int(getattr(env.action_space, "n", 0)) or env.action_space.shape[0],
]
steps = workload["n_steps"] * workload["n_envs"]
minibatches = workload["n_epochs"] * steps // batch
device = workload["device"]

weights = [torch.randn(2, i, o, device=device) for i, o in pairwise(sizes)]
inputs = [torch.randn(2, batch, size, device=device) for size in sizes]
gradients = [torch.empty_like(weight) for weight in weights]
errors = [torch.randn(2, batch, size, device=device) for size in sizes]


def minibatch() -> None:
    for layer, weight in enumerate(weights):
        out: Tensor = inputs[layer + 1]
        torch.bmm(inputs[layer], weight, out=out)
        if layer < 2:
            out.tanh_()
    for layer in (2, 1, 0):
        torch.bmm(inputs[layer].transpose(1, 2), errors[layer + 1], out=gradients[layer])
        if layer:
            torch.bmm(errors[layer + 1], weights[layer].transpose(1, 2), out=errors[layer])


watch = measure.Stopwatch(workload["warmup"])
update = watch.timed(lambda: [minibatch() for _ in range(minibatches)], "update", ends_iteration=True)
with torch.no_grad():
    for _ in range(workload["warmup"] + workload["iterations"]):
        update()
watch.report(steps, ("torch", "numpy"))
