"""CleanRL's and LeanRL's scripts, as they are in the checkout at ``workload["options"]["checkout"]``.

Around the script: its normalisation wrappers do nothing (no library normalises here, and Gymnasium 1 changed the
signature of one), ``wandb`` takes no logs, and the clock is read where the script itself begins an iteration
(LeanRL's progress bar) or ends one (CleanRL's "SPS:" line).
"""

import measure  # first: starts the clock

# isort: split
import runpy
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import gymnasium as gym
import torch

SCRIPTS = {
    ("cleanrl", False): "cleanrl/ppo_continuous_action.py",
    ("cleanrl", True): "cleanrl/ppo.py",
    ("leanrl", False): "leanrl/ppo_continuous_action_torchcompile.py",
}
workload = measure.read_workload()
options = workload["options"]
watch = measure.Stopwatch(workload["warmup"])


class Marks:
    """Stands for ``sys.stdout``: every line that begins with "SPS:" ends an iteration."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if text.startswith("SPS:"):
            watch.end_iteration()
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


class ProgressBar:
    """Stands for ``tqdm.tqdm``: taking the next item ends an iteration."""

    def __init__(self, items: range) -> None:
        self.items = items

    def __iter__(self) -> Iterator[int]:
        watch.begin()
        for item in self.items:
            yield item
            watch.end_iteration()

    def set_description(self, text: str) -> None:
        """Show nothing."""


def unchanged(env: gym.Env, *args: Any, **kwargs: Any) -> gym.Env:
    return env


for wrapper in ("NormalizeObservation", "NormalizeReward", "TransformObservation", "TransformReward"):
    setattr(gym.wrappers, wrapper, unchanged)
wandb = types.ModuleType("wandb")
wandb.init = wandb.log = lambda *args, **kwargs: None  # type: ignore[attr-defined]
sys.modules["wandb"] = wandb
torch.set_num_threads(workload["threads"])

discrete = isinstance(gym.make(workload["env_id"]).action_space, gym.spaces.Discrete)
checkout = Path(options["checkout"])
script = checkout / SCRIPTS[options["library"], discrete]
steps = workload["n_steps"] * workload["n_envs"]
sys.argv = [
    str(script),
    f"--env-id={workload['env_id']}",
    f"--seed={workload['seed']}",
    f"--total-timesteps={steps * (workload['warmup'] + workload['iterations'])}",
    f"--num-envs={workload['n_envs']}",
    f"--num-steps={workload['n_steps']}",
    f"--num-minibatches={steps // workload['batch_size']}",
    f"--update-epochs={workload['n_epochs']}",
    "--ent-coef=0.0",
    "--no-cuda",
    *options.get("arguments", ()),
]
stdout = sys.stdout
if options["library"] == "cleanrl":
    sys.stdout = Marks(stdout)
    watch.begin()
else:
    import tqdm

    tqdm.tqdm = ProgressBar
runpy.run_path(str(script), run_name="__main__")
sys.stdout = stdout
packages = ("torch", "tensordict", "gymnasium", "mujoco", "numpy")
watch.report(steps, packages)
