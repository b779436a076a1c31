"""Measure the return of uniformly random actions: the low end of evaluation/data/score_ranges.json.

    python scripts/measure_random_returns.py            # print the measurements
    python scripts/measure_random_returns.py --write    # and store them as the environments' low ends
    python scripts/measure_random_returns.py --only MiniGrid

One hundred episodes an environment, seeds fixed, raw rewards. It takes a few minutes.
"""

import argparse
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from maxent_onpolicy.envs import minigrid

EPISODES = 100
SEED = 20_240_718
RANGES = Path(__file__).parents[1] / "maxent_onpolicy" / "evaluation" / "data" / "score_ranges.json"


def random_returns(env_id: str, **kwargs: Any) -> np.ndarray:
    """Returns of ``EPISODES`` episodes of random actions, ``[episodes]``."""
    spec = gym.spec(env_id)
    env = gym.make(minigrid.adapted(spec) if minigrid.serves(spec) else spec, **kwargs)
    env.action_space.seed(SEED)
    returns = np.zeros(EPISODES)
    for episode in range(EPISODES):
        env.reset(seed=SEED + episode)
        done = False
        while not done:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            returns[episode] += float(reward)
            done = terminated or truncated
    env.close()
    return returns


def entries(ranges: dict[str, Any], only: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each environment to be measured, its keywords, and where its low end is stored."""
    for env_id, entry in ranges["environments"].items():
        if only in env_id:
            yield env_id, {}, entry
    for env_id, entry in ranges["by_keyword"].items():
        if only in env_id and entry["low_source"].startswith("random"):
            for value, numbers in entry["ranges"].items():
                yield env_id, {entry["keyword"]: json.loads(value.lower())}, numbers


def main() -> None:
    """Measure every environment of the file, print, and store on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="store the means in score_ranges.json")
    parser.add_argument("--only", default="", metavar="PART", help="print only those with PART in their ids")
    arguments = parser.parse_args()
    ranges = json.loads(RANGES.read_text())
    minigrid.register()
    if arguments.write and arguments.only:
        parser.error("--write needs all measurements, which name the versions they were made with: leave --only out")
    for source, packages in (("random", ("gymnasium", "mujoco")), ("random_minigrid", ("minigrid",))):
        software = ", ".join(f"{package} {version(package)}" for package in packages)
        ranges["sources"][source] = (
            f"mean return of uniformly random actions over {EPISODES} episodes, measured by "
            f"scripts/measure_random_returns.py with {software}"
        )
    for env_id, kwargs, entry in entries(ranges, arguments.only):
        returns = random_returns(env_id, **kwargs)
        standard_error = returns.std(ddof=1) / np.sqrt(EPISODES)
        name = " ".join([env_id, *(f"{key}={value}" for key, value in kwargs.items())])
        print(f"{name:44} {returns.mean():12.3f} ± {standard_error:.3f} (standard error)", flush=True)
        entry["low"] = float(f"{returns.mean():.5g}")
    if arguments.write:
        RANGES.write_text(json.dumps(ranges, indent=2) + "\n")
        print(f"wrote {RANGES}")


if __name__ == "__main__":
    main()
