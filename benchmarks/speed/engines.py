"""Microseconds a minibatch of each engine, what compiling costs, and when it has paid for itself.

    python -m benchmarks.speed.engines

Every engine trains in turn on one random rollout, then every engine again. Compilation is timed in
fresh processes: without a cache, and with the cache that the first left.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from maxent_onpolicy import PPO

COLUMNS = (
    *("policy", "batch_size", "engine", "microseconds_median", "microseconds_min", "speedup_over_eager"),
    *("compile_seconds_cold", "compile_seconds_warm", "break_even_minibatches", "threads", "torch"),
)

EPOCHS = 10


class Noise(gym.Env[Any, Any]):
    """Random observations and rewards, of the given spaces."""

    def __init__(self, observation_space: spaces.Box, action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        end = bool(self.np_random.random() < 0.01)
        return self.observation_space.sample(), float(self.np_random.normal()), end, False, {}


# HalfCheetah's sizes, and those of small images.
POLICIES = {
    "MlpPolicy": (spaces.Box(-1, 1, (17,), np.float32), spaces.Box(-1, 1, (6,), np.float32), ("eager", "packed")),
    "CnnPolicy": (spaces.Box(0, 255, (36, 36, 3), np.uint8), spaces.Discrete(15), ("eager",)),
}


def make_model(policy: str, engine: str, batch_size: int, minibatches: int) -> PPO:
    """Return a model with a complete rollout; its first update compiles."""
    observation_space, action_space, _ = POLICIES[policy]
    env = Noise(observation_space, action_space)
    n_steps = batch_size * minibatches
    keywords: dict[str, Any] = {"n_steps": n_steps, "batch_size": batch_size, "n_epochs": EPOCHS, "seed": 0}
    model = PPO(policy, env, device="cpu", engine=engine, **keywords)
    _, callback = model._setup_learn(n_steps)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, n_steps)
    return model


def seconds_of_update(model: PPO) -> float:
    start = time.perf_counter()
    model.train()
    return time.perf_counter() - start


def measure_steps(policy: str, batch_size: int, rounds: int, minibatches: int) -> dict[str, list[float]]:
    """Return microseconds a minibatch, one figure a round, of every engine that fits."""
    engines = (*POLICIES[policy][2], "compiled")
    models = {engine: make_model(policy, engine, batch_size, minibatches) for engine in engines}
    for model in models.values():
        seconds_of_update(model)
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    for _ in range(rounds):
        for engine, model in models.items():
            times[engine].append(1e6 * seconds_of_update(model) / (minibatches * EPOCHS))
    return times


def measure_compilation(policy: str, batch_size: int) -> list[float]:
    """Return the seconds that a fresh process spends on compiling: without a cache, and again with it."""
    code = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[3]))\n"
        "from benchmarks.speed.engines import make_model\n"
        "model = make_model(sys.argv[1], 'compiled', int(sys.argv[2]), 2); model.train()\n"
        "print(model.logger.name_to_value['time/compile_seconds'])"
    )
    command = [sys.executable, "-c", code, policy, str(batch_size), str(torch.get_num_threads())]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder}
        runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    return [float(done.stdout.split()[-1]) for done in runs]


def rows_of(policy: str, batch_size: int, rounds: int, minibatches: int) -> list[dict[str, Any]]:
    """Measure one policy with one size of minibatch; a row for each engine."""
    times = measure_steps(policy, batch_size, rounds, minibatches)
    cold, warm = measure_compilation(policy, batch_size)
    eager = statistics.median(times["eager"])
    rows = []
    for engine, values in times.items():
        median = statistics.median(values)
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {
            "policy": policy,
            "batch_size": batch_size,
            "engine": engine,
            "microseconds_median": round(median, 1),
            "microseconds_min": round(min(values), 1),
            "speedup_over_eager": round(eager / median, 2),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        if engine == "compiled":
            row |= {"compile_seconds_cold": round(cold, 1), "compile_seconds_warm": round(warm, 1)}
            row["break_even_minibatches"] = round(cold / (eager - median) * 1e6) if eager > median else "never"
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64], help="samples a minibatch (default: 64)")
    parser.add_argument("--rounds", type=int, default=9, help="timed updates of every engine (default: 9)")
    parser.add_argument("--minibatches", type=int, default=32, help="in an epoch, of ten in an update (default: 32)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("results/speed/engines.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for policy in arguments.policies:
        for batch_size in arguments.batch_sizes:
            rows += rows_of(policy, batch_size, arguments.rounds, arguments.minibatches)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(arguments.output.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
