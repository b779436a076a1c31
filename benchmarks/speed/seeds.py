r"""Seconds that many seeds take one after the other, and trained together by ``train_seeds``.

    python -m benchmarks.speed.seeds
    python -m benchmarks.speed.seeds --environments CartPole-v1 --backend torch --device cuda \
        --n-envs 4096 --n-steps 32 --batch-size 8192

Both ways train the same models, in turn, round after round, in this process and with one thread. Seconds are the least
of all rounds, since whatever else the machine does only adds to them; `ratio_min` and `ratio_max` are those of single
rounds. `update` is all that is no rollout: the updates, and what making models costs.
"""

import argparse
import csv
import os
import time
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

from maxent_onpolicy import PPO, MaxEntPPO, make_vec_env, train_seeds

ALGORITHMS = {"PPO": PPO, "MaxEntPPO": MaxEntPPO}
WAYS = ("one_by_one", "together")
COLUMNS = (
    *("algorithm", "environment", "backend", "device", "seeds", "n_envs", "n_steps", "batch_size", "iterations"),
    *("seconds_one_by_one", "seconds_together", "seconds_ratio", "seconds_ratio_min", "seconds_ratio_max"),
    *("update_one_by_one", "update_together", "update_ratio", "update_ratio_min", "update_ratio_max"),
    *("rounds", "load", "cores", "gpu", "torch"),
)


class RolloutClock(BaseCallback):
    """Adds up the seconds that rollouts take; the rest of a training is its updates."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._start = 0.0

    def _on_rollout_start(self) -> None:
        self._start = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.seconds += time.perf_counter() - self._start

    def _on_step(self) -> bool:
        return True


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

    def _one_by_one(self, clock: RolloutClock) -> list[Any]:
        models = []
        for seed in range(self.options.seeds):
            model = self.algorithm("MlpPolicy", self._make_env(seed), seed=seed, **self.keywords)
            models.append(model.learn(self.timesteps, clock))
        return models

    def _together(self, clock: RolloutClock) -> list[Any]:
        seeds, clocks = range(self.options.seeds), []

        def callback(model: Any) -> RolloutClock:
            clocks.append(RolloutClock())
            return clocks[-1]

        models = train_seeds(
            self.algorithm, "MlpPolicy", self._make_env, seeds, self.timesteps, callbacks=callback, **self.keywords
        )
        clock.seconds = sum(each.seconds for each in clocks)
        return models

    def measure(self, way: str) -> tuple[float, float]:
        """Return the seconds of a training, and those of all that is not rollout."""
        clock = RolloutClock()
        start = time.perf_counter()
        models = getattr(self, f"_{way}")(clock)
        if self.options.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        for model in models:
            model.env.close()
        return seconds, seconds - clock.seconds


def row_of(environment: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one environment; a row of the table."""
    training = Training(environment, options)
    load = os.getloadavg()[0]
    for way in WAYS:
        training.measure(way)  # whatever the first time costs
    rounds = [{way: training.measure(way) for way in WAYS} for _ in range(options.rounds)]
    row: dict[str, Any] = {name: getattr(options, name) for name in COLUMNS if hasattr(options, name)}
    for part, name in enumerate(("seconds", "update")):
        for way in WAYS:
            row[f"{name}_{way}"] = round(min(each[way][part] for each in rounds), 3)
        ratios = [each["one_by_one"][part] / each["together"][part] for each in rounds]
        row |= {f"{name}_ratio": round(row[f"{name}_one_by_one"] / row[f"{name}_together"], 3)}
        row |= {f"{name}_ratio_min": round(min(ratios), 3), f"{name}_ratio_max": round(max(ratios), 3)}
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
