"""The speeds this package aims at, and whether they are reached."""

from typing import NamedTuple

from benchmarks.speed.summary import Measurements, Summary


class Target(NamedTuple):
    """A ratio with a limit.

    Of several contenders on one side the fastest counts: everybody is compared in the best setting.

    Attributes:
        text: what is compared.
        workload: where.
        upper: contenders of the numerator.
        lower: contenders of the denominator.
        limit: of the ratio of medians.
        at_least: whether the ratio must reach the limit (else: must not exceed it).
        column: what is compared.
    """

    text: str
    workload: str
    upper: tuple[str, ...]
    lower: tuple[str, ...]
    limit: float
    at_least: bool = True
    column: str = "steps_per_second"


#: Steps a second of our TRPO over sb3-contrib's.
TRPO_LIMIT = 3.0
#: Steps a second of our SAC over SB3's and over SBX's, everybody with as many threads as serve it best.
SAC_LIMITS = {"SB3": 2.0, "SBX": 1.0}
OURS = ("ours",)
TARGETS = (
    Target("8 environments, minibatch 64: times SB3", "envs-8", OURS, ("sb3",), 8),
    Target("8 environments, minibatch 64: times SBX", "envs-8", OURS, ("sbx",), 5.5),
    Target("8 environments, minibatch 64: times LeanRL, compiled", "envs-8", OURS, ("leanrl-compiled",), 6),
    Target("the same, everybody on SB3's DummyVecEnv: times SB3", "envs-8", ("ours-dummy",), ("sb3",), 5.5),
    Target("the update alone: SB3's time over ours", "envs-8", ("sb3",), OURS, 11, column="update_ms"),
    Target("1 environment, minibatch 64: times SB3", "envs-1", OURS, ("sb3",), 9),
    Target("8 environments, minibatch 512: times SB3", "batch-512", ("ours", "ours-2t"), ("sb3", "sb3-2t"), 4.5),
    Target("CartPole-v1, 8 environments, minibatch 64: times SB3", "cartpole", OURS, ("sb3",), 9),
    Target("MaxEntPPO with the shared trunk: its time over our PPO's", "envs-8", OURS, ("maxent",), 1.05, False),
    Target("MaxEntPPO with its own trunk: its time over our PPO's", "envs-8", OURS, ("maxent-own",), 1.15, False),
    Target(
        "minibatch 512: environments alone on all cores over ours, end to end",
        "batch-512",
        ("environments",),
        ("ours", "ours-2t"),
        2.5,
        False,
    ),
    Target(
        "from the first import to the end of the first iteration: our time over SB3's",
        "envs-8",
        OURS,
        ("sb3",),
        1,
        False,
        "startup_s",
    ),
)


def evaluate(target: Target, measured: Measurements) -> Summary | None:
    """Return the ratio that ``target`` limits; ``None`` where a side was not measured."""
    upper = measured.fastest(target.workload, target.upper)
    lower = measured.fastest(target.workload, target.lower)
    if upper is None or lower is None:
        return None
    return measured.ratio(target.workload, upper, lower, target.column)


def is_met(target: Target, value: float) -> bool:
    """Return whether ``value`` keeps to the limit."""
    return value >= target.limit if target.at_least else value <= target.limit
