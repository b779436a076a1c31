"""What is measured on images: PPO on Procgen with its published settings. Data only, as ``workloads.py``.

Everybody has the same environments, ours, and the same network: SB3's extractor is written the usual way. Iterations
are shorter than the published 256 steps where the network is IMPALA's, of which SB3 manages dozens of steps a second;
what a step costs does not depend on it.
"""

from dataclasses import replace
from typing import Any

from benchmarks.speed.workloads import Contender, Workload

#: Steps a second of our PPO over SB3's.
LIMIT = 2.0
SECTION = "images"


def _contender(name: str, label: str, package: str, algorithm: str = "PPO", **keywords: Any) -> Contender:
    options = {"package": package, "algorithm": algorithm, "keywords": keywords}
    return Contender(name, label, "run_images.py", "ours", 1, 2, threads=2, options=options)


SB3 = _contender("sb3-images", "SB3", "sb3")
OURS = _contender("ours-images", "our PPO", "ours")
MAXENT = _contender("maxent-images", "MaxEntPPO, PopArt", "ours", "MaxEntPPO", tau=0.02, popart=True)


def _workload(network: str, title: str, n_steps: int, iterations: int) -> Workload:
    contenders = tuple(
        replace(each, iterations=iterations, options=each.options | {"network": network})
        for each in (SB3, OURS, MAXENT)
    )
    return Workload(
        f"procgen-{network}",
        title,
        SECTION,
        contenders,
        env_id="procgen:coinrun",
        n_envs=64,
        batch_size=2048,
        n_steps=n_steps,
        n_epochs=3,
        breakdown=True,
        rounds=3,
    )


IMAGE_WORKLOADS: tuple[Workload, ...] = (
    _workload("impala", "IMPALA, 64 × 64 steps", n_steps=64, iterations=1),
    _workload("nature", "NatureCNN, 64 × 256 steps", n_steps=256, iterations=2),
)
