"""Measure how fast MuJoCo environments step: the raw limit, our batch, SB3's DummyVecEnv, our VecEnv for any id.

The raw limit is mj_step alone on as many processes as cores. All take turns, round after round, through the very same
trajectories of random actions: what a step costs depends on the contacts of the moment. The table shows medians. Run it
on a machine that does nothing else; the column "load" says what else ran.
"""

import argparse
import csv
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from maxent_onpolicy.cores import available_cores
from maxent_onpolicy.envs.make import MUJOCO_TASKS

CONTENDERS = ("mujoco_batch", "gymnasium", "sb3_dummy")
COLUMNS = (
    *("task", "n_envs", "raw_limit", *CONTENDERS, "batch_over_raw", "batch_over_sb3", "batch_over_gymnasium"),
    *("cores", "load", "mujoco", "gymnasium_version", "sb3", "numpy", "python"),
)


class Stretch(NamedTuple):
    """A part of one environment's trajectory without resets."""

    state: Any  # [nstate], mjSTATE_INTEGRATION
    actions: Any  # [T, nu]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.environments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--tasks", nargs="+", metavar="TASK", choices=MUJOCO_TASKS, default=MUJOCO_TASKS, help="which tasks (all)")
    add("--n-envs", nargs="+", type=int, metavar="N", default=[1, 2, 4, 8, 16, 64], help="1 2 4 8 16 64")
    add("--seconds", type=float, default=0.3, help="length of one window (0.3)")
    add("--rounds", type=int, default=5, help="windows of each contender (5)")
    add("--output", type=Path, default=Path("results/speed/environments.csv"), help="results/speed/environments.csv")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0 or min(options.n_envs) < 1:
        parser.error("--rounds, --seconds and --n-envs must be positive")
    return options


def record(vec_env: Any, actions: Any) -> list[Stretch]:
    """Step our batch with ``actions`` ``[T, B, nu]``; return what its environments go through."""
    states, starts = vec_env.simulation.get_state(), [0] * vec_env.num_envs
    stretches = []
    for step in range(len(actions)):
        done = vec_env.step(actions[step])[2]
        for index in done.nonzero()[0]:
            stretches.append(Stretch(states[index].copy(), actions[starts[index] : step + 1, index]))
            states[index], starts[index] = vec_env.simulation.get_state()[index], step + 1
    rest = (Stretch(states[index], actions[start:, index]) for index, start in enumerate(starts))
    return stretches + [stretch for stretch in rest if len(stretch.actions)]


def replay(task: str, requests: Any, results: Any) -> None:
    """Step through the stretches of each request; return steps a second."""
    import gymnasium as gym
    import mujoco

    env: Any = gym.make(f"{task}-v5").unwrapped
    model, data, frame_skip = env.model, env.data, env.frame_skip
    while stretches := requests.get():
        steps, seconds = 0, 0.0
        for stretch in stretches:
            mujoco.mj_setState(model, data, stretch.state, mujoco.mjtState.mjSTATE_INTEGRATION.value)
            started = time.perf_counter()
            for action in stretch.actions:
                data.ctrl[:] = action
                mujoco.mj_step(model, data, frame_skip)
            seconds += time.perf_counter() - started
            steps += len(stretch.actions)
        results.put(steps / seconds)


class RawLimit:
    """``mj_step`` × ``frame_skip`` on one process a core."""

    def __init__(self, task: str, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._results = context.Queue()
        self._requests = [context.Queue() for _ in range(cores)]
        self._processes = [
            context.Process(target=replay, args=(task, requests, self._results), daemon=True)
            for requests in self._requests
        ]
        for process in self._processes:
            process.start()

    def measure(self, stretches: list[Stretch]) -> float:
        """Return environment steps a second, of all processes together."""
        for requests in self._requests:
            requests.put(stretches)
        return sum(self._results.get() for _ in self._processes)

    def close(self) -> None:
        for requests in self._requests:
            requests.put([])
        for process in self._processes:
            process.join()


def make_contender(name: str, task: str, n_envs: int) -> Any:
    """Return a VecEnv, seeded and reset."""
    from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env

    from maxent_onpolicy.envs import make_vec_env

    if name == "sb3_dummy":
        vec_env = sb3_make_vec_env(f"{task}-v5", n_envs, seed=0)
    else:
        vec_env = make_vec_env(f"{task}-v5", n_envs, seed=0, backend=name)
    vec_env.reset()
    return vec_env


def steps_per_second(vec_env: Any, actions: Any) -> float:
    """Step ``vec_env`` with ``actions`` ``[T, B, nu]``; return environment steps a second."""
    started = time.perf_counter()
    for action in actions:
        vec_env.step(action)
    return len(actions) * vec_env.num_envs / (time.perf_counter() - started)


def measure_task(task: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield one row for each number of environments."""
    cores = available_cores()
    raw = RawLimit(task, cores)
    for n_envs in options.n_envs:
        median = measure_contenders(task, n_envs, raw, options)
        batch = median["mujoco_batch"]
        row = {"task": f"{task}-v5", "n_envs": n_envs} | {name: round(value) for name, value in median.items()}
        row |= {
            "batch_over_raw": round(batch / median["raw_limit"], 3),
            "batch_over_sb3": round(batch / median["sb3_dummy"], 2),
            "batch_over_gymnasium": round(batch / median["gymnasium"], 2),
        }
        yield row | {"cores": cores, "load": round(os.getloadavg()[0], 2)} | versions()
    raw.close()


def measure_contenders(task: str, n_envs: int, raw: RawLimit, options: argparse.Namespace) -> dict[str, float]:
    """Return the median steps a second of each contender and of the raw limit."""
    import numpy as np

    vec_envs = {name: make_contender(name, task, n_envs) for name in CONTENDERS}
    recorder = make_contender("mujoco_batch", task, n_envs)
    space, rng = recorder.action_space, np.random.default_rng(0)

    def draw(steps: int) -> Any:
        return rng.uniform(space.low, space.high, size=(steps, n_envs, *space.shape)).astype(np.float32)

    actions = draw(100)
    raw.measure(record(recorder, actions))  # starts the processes
    pace = [steps_per_second(vec_env, actions) for vec_env in vec_envs.values()]
    steps = max(10, int(options.seconds * statistics.median(pace) / n_envs))
    speeds: dict[str, list[float]] = {"raw_limit": [], **{name: [] for name in CONTENDERS}}
    for _ in range(options.rounds):
        actions = draw(steps)
        speeds["raw_limit"].append(raw.measure(record(recorder, actions)))
        for name, vec_env in vec_envs.items():
            speeds[name].append(steps_per_second(vec_env, actions))
    for vec_env in (recorder, *vec_envs.values()):
        vec_env.close()
    return {name: statistics.median(values) for name, values in speeds.items()}


def versions() -> dict[str, str]:
    from importlib.metadata import version

    names = {"mujoco": "mujoco", "gymnasium_version": "gymnasium", "sb3": "stable-baselines3", "numpy": "numpy"}
    return {column: version(name) for column, name in names.items()} | {"python": sys.version.split()[0]}


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for task in options.tasks:
            for row in measure_task(task, options):
                writer.writerow(row)
                file.flush()
                print("  ".join(f"{name} {row[name]}" for name in COLUMNS[:9]), flush=True)
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
