"""Run directories made of plain files, as the run-directory format describes them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd


def write_run(
    results: Path,
    label="PPO",
    env_id="HalfCheetah-v5",
    seed=0,
    *,
    checkpoints=(0, 5_000, 10_000),
    final=1000.0,
    offset=100.0,
    modes=("deterministic", "stochastic"),
    episodes=3,
    length=1000,
    noise=0.1,
    state="completed",
    error=None,
    train=True,
    **config,
) -> Path:
    """Write one run that learns from ``offset`` to ``final``; returns its directory."""
    source = np.random.default_rng([seed, *label.encode(), *env_id.encode()])
    folder = results / "runs" / label.replace("/", "_") / env_id.replace("/", "_") / f"seed_{seed}"
    folder.mkdir(parents=True)
    steps = checkpoints[-1] if len(checkpoints) else 10_000
    settings = {
        "suite": "synthetic",
        "label": label,
        "algorithm": "MaxEntPPO" if "MaxEnt" in label else "PPO",
        "env_id": env_id,
        "seed": seed,
        "total_timesteps": steps,
        "n_envs": 1,
        "backend": "gymnasium",
        "policy": "MlpPolicy",
        "hyperparameters": {"learning_rate": 3e-4} | ({"tau": 0.02} if "MaxEnt" in label else {}),
        "environment": {"normalize_observation": True, "kwargs": {}},
        "evaluation": {"every": 5_000, "episodes": episodes, "seed": 10_000 + seed},
    }
    status = {"state": state, "timesteps": steps, "attempts": 1, "error": error, "started": None, "finished": None}
    provenance = {"git": {"revision": "0" * 40, "dirty": False}, "packages": {"numpy": "2.0"}, "threads": 1}
    contents = {
        "config": {**settings, **config},
        "status": {**status, "wall_seconds": 10.0 + seed},
        "provenance": provenance,
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    rows = []
    for mode in modes:
        for step in checkpoints:
            mean = offset + (final - offset) * (step / steps if steps else 1)
            for episode in range(episodes):
                value = mean * (1 + noise * source.normal()) * (1 if mode == "deterministic" else 0.9)
                rows.append((step, mode, episode, round(value, 6), length))
    pd.DataFrame(rows, columns=["timesteps", "mode", "episode", "return", "length"]).to_csv(
        folder / "eval.csv", index=False
    )
    if train:
        train_frame(source, steps, "MaxEnt" in label).to_csv(folder / "train.csv", index=False)
    return folder


def write_tested_run(results: Path, *args, test_final=500.0, kwargs=None, test_kwargs=None, **options) -> Path:
    """Write one run that was evaluated, stochastically, on its training and on a test distribution."""
    episodes = options.get("episodes", 3)
    evaluation = {"every": 5_000, "episodes": episodes, "seed": 10_000, "modes": ["stochastic"]}
    evaluation["test_kwargs"] = test_kwargs or {"num_levels": 0}
    environment = {"kwargs": {"num_levels": 200} if kwargs is None else kwargs}
    options = {"modes": ("stochastic",), "noise": 0.0, **options}
    folder = write_run(results, *args, evaluation=evaluation, environment=environment, **options)
    frame = pd.read_csv(folder / "eval.csv")
    last = frame["return"].iloc[-1]
    share = (frame["return"] - frame["return"].iloc[0]) / (last - frame["return"].iloc[0])
    test = frame.assign(**{"return": frame["return"].iloc[0] + share * (test_final - frame["return"].iloc[0])})
    both = [frame.assign(split="train"), test.assign(split="test")]
    pd.concat(both).sort_values("timesteps", kind="stable").to_csv(folder / "eval.csv", index=False)
    return folder


def train_frame(source, steps, maxent) -> pd.DataFrame:
    """Return what a run logs while training, with the first row lacking what is known after an update."""
    grid = np.linspace(steps / 30, steps, 30).round()
    progress = grid / grid[-1]
    walk = 1 + 0.05 * np.cumsum(source.normal(size=30)) / 5
    frame = pd.DataFrame(
        {
            "timesteps": grid.astype(int),
            "wall_seconds": grid / 1000,
            "rollout/ep_rew_mean": 900 * progress * walk,
            "rollout/ep_len_mean": 1000 * progress**0.5,
            "train/entropy": (8 - 4 * progress) * walk,
            "train/std": np.exp(-progress) * walk,
            "train/clipped_actions": 0.3 * (1 - 0.7 * progress),
            "train/approx_kl": 0.01 * walk,
            "train/explained_variance": 1 - np.exp(-4 * progress),
        }
    )
    if maxent:
        frame["train/tau"] = 0.02
        frame["train/entropy_advantage_share"] = 0.2 * (1 - 0.5 * progress) * walk
    trained = [column for column in frame if column.startswith("train/")]
    frame.loc[0, trained] = np.nan
    return frame
