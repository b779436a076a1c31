r"""Seconds that many seeds take one after the other, and trained together by ``train_seeds``.

    python -m benchmarks.speed.seeds
    python -m benchmarks.speed.seeds --environments CartPole-v1 --backend torch --device cuda \
        --n-envs 4096 --n-steps 32 --batch-size 8192

Both ways train the same models, in turn, round after round, in this process and with one thread. Seconds are the least
of all rounds, since whatever else the machine does only adds to them; `ratio_min` and `ratio_max` are those of single
rounds. `rollout` includes the estimation of advantages; `update` is all the rest: the updates, and what making models
costs.
"""

import argparse
import csv
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

from maxent_onpolicy import PPO, MaxEntPPO, make_vec_env, train_seeds
from maxent_onpolicy.engine.lockstep import Member
from maxent_onpolicy.engine.packed import stacked

ALGORITHMS = {"PPO": PPO, "MaxEntPPO": MaxEntPPO}
WAYS = ("one_by_one", "together")
PARTS = ("seconds", "rollout", "update")
COLUMNS = (
    *("algorithm", "environment", "backend", "device", "seeds", "n_envs", "n_steps", "batch_size", "iterations"),
    *(f"{part}_{what}" for part in PARTS for what in (*WAYS, "ratio", "ratio_min", "ratio_max")),
    *("rounds", "load", "cores", "gpu", "torch"),
)


class RolloutClock(BaseCallback):
    """Adds up the seconds that a model's rollouts take; the rest of a training is its updates.

    Args:
        waiting: seconds that each thread has waited for others, which do not count.
    """

    every_step = False

    def __init__(self, waiting: Counter[int]) -> None:
        super().__init__()
        self.seconds = 0.0
        self._waiting = waiting

    def _now(self) -> float:
        return time.perf_counter() - self._waiting[threading.get_ident()]

    def _on_rollout_start(self) -> None:
        self.seconds -= self._now()

    def _on_rollout_end(self) -> None:
        self.seconds += self._now()

    def _on_step(self) -> bool:
        return True


@contextmanager
def timing(owner: Any, name: str) -> Iterator[Counter[int]]:
    """Add up the seconds that calls of a function take, for each thread that makes them."""
    seconds: Counter[int] = Counter()
    function = getattr(owner, name)

    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args)
        finally:
            seconds[threading.get_ident()] += time.perf_counter() - start

    setattr(owner, name, timed)
    try:
        yield seconds
    finally:
        setattr(owner, name, function)


class Training:
    """Trains the seeds of one setting, one by one or together.

    Args:
        environment: id.
        options: of the command line.
    """

    def __init__(self, environment: str, options: argparse.Namespace) -> None:
        self.environment, self.options = environment, options
        self.algorithm = ALGORITHMS[options.algorithm]
        names = ("n_steps", "batch_size", "device")
        self.keywords: dict[str, Any] = {name: getattr(options, name) for name in names}
        self.timesteps = options.iterations * options.n_steps * options.n_envs

    def _make_env(self, seed: int) -> Any:
        extra = {"device": self.options.device} if self.options.backend in ("torch", "mjx") else {}
        return make_vec_env(self.environment, self.options.n_envs, seed, self.options.backend, **extra)

    def _one_by_one(self) -> tuple[list[Any], float]:
        clock, models = RolloutClock(Counter()), []
        for seed in range(self.options.seeds):
            model = self.algorithm("MlpPolicy", self._make_env(seed), seed=seed, **self.keywords)
            models.append(model.learn(self.timesteps, clock))
        return models, clock.seconds

    def _together(self) -> tuple[list[Any], float]:
        seeds, clocks = range(self.options.seeds), []

        def callback(model: Any) -> RolloutClock:
            clocks.append(RolloutClock(waiting))
            return clocks[-1]

        with timing(Member, "meet") as waiting, timing(stacked, "collect_all") as common:
            models = train_seeds(
                self.algorithm, "MlpPolicy", self._make_env, seeds, self.timesteps, callbacks=callback, **self.keywords
            )
        return models, sum(each.seconds for each in clocks) + sum(common.values())

    def measure(self, way: str) -> dict[str, float]:
        """Return the seconds of a training, and those of its parts."""
        start = time.perf_counter()
        models, rollout = getattr(self, f"_{way}")()
        if self.options.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        for model in models:
            model.env.close()
        return {"seconds": seconds, "rollout": rollout, "update": seconds - rollout}


def row_of(environment: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one environment; a row of the table."""
    training = Training(environment, options)
    load = os.getloadavg()[0]
    for way in WAYS:
        training.measure(way)  # whatever the first time costs
    rounds = [{way: training.measure(way) for way in WAYS} for _ in range(options.rounds)]
    row: dict[str, Any] = {name: getattr(options, name) for name in COLUMNS if hasattr(options, name)}
    for part in PARTS:
        least = {way: min(each[way][part] for each in rounds) for way in WAYS}
        row |= {f"{part}_{way}": round(seconds, 3) for way, seconds in least.items()}
        ratios = [each["one_by_one"][part] / each["together"][part] for each in rounds]
        row |= {f"{part}_ratio": round(least["one_by_one"] / least["together"], 3)}
        row |= {f"{part}_ratio_min": round(min(ratios), 3), f"{part}_ratio_max": round(max(ratios), 3)}
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else ""
    return row | {
        "environment": environment,
        "load": round(load, 2),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--environments", nargs="+", default=["CartPole-v1", "HalfCheetah-v5"], metavar="ID")
    add("--backend", default="auto", help="how environments are stepped (default: auto)")
    add("--algorithm", choices=ALGORITHMS, default="PPO")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--seeds", type=int, default=10, help="how many (default: 10)")
    add("--n-envs", type=int, default=8, help="of each seed (default: 8)")
    add("--n-steps", type=int, default=256, help="of a rollout (default: 256)")
    add("--batch-size", type=int, default=64, help="of a minibatch (default: 64)")
    add("--iterations", type=int, default=3, help="rollouts and updates of a training (default: 3)")
    add("--rounds", type=int, default=5, help="how often both ways take turns (default: 5)")
    add("--output", type=Path, default=Path("results/speed/seeds.csv"), help="rows are added to it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    new = not options.output.exists()
    if not new and options.output.read_text(encoding="utf-8").partition("\n")[0] != ",".join(COLUMNS):
        parser.error(f"{options.output} has other columns: choose another --output, or move it away")
    with options.output.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        for environment in options.environments:
            writer.writerow(row_of(environment, options))
            file.flush()
    print(options.output.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
