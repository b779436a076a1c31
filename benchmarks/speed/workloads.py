"""What is measured: workloads, and who runs them. Data only; nothing here measures.

Every workload is PPO on 2,048 steps a rollout, 10 epochs, two 64×64 tanh networks, no normalisation, unless it says
otherwise; an off-policy algorithm makes one update a step, and its iterations are so many steps with their updates. A
contender is one library in one setting. All contenders of a workload run in turn, round after round, each in a process
of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

ROLLOUT = 2048
OFF_POLICY_STEPS = 512
GPU_HORIZON = 32


@dataclass(frozen=True)
class Contender:
    """A library in one setting.

    Attributes:
        name: identifies it in ``runs.csv``.
        label: what tables call it.
        script: the file in ``peers/`` that runs it.
        home: the Python environment it runs in; a key of ``homes.HOMES``.
        warmup: iterations that are not timed: compilation, caches, the first statistics.
        iterations: iterations that are timed.
        threads: of PyTorch (``OMP_NUM_THREADS``). JAX chooses its own, and so do our environments.
        options: what only its script understands.
        cold: whether compilers' caches are empty at the start of its process.
    """

    name: str
    label: str
    script: str
    home: str
    warmup: int
    iterations: int
    threads: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    cold: bool = False


def ours(
    name: str, label: str, algorithm: str = "PPO", threads: int = 1, cold: bool = False, **options: Any
) -> Contender:
    """This package in one setting; ``options`` are those of ``peers/run_ours.py``."""
    chosen = {"algorithm": algorithm} | options
    return Contender(name, label, "run_ours.py", "ours", 4, 16, threads, chosen, cold)


OURS = ours("ours", "ours")
OURS_2T = ours("ours-2t", "ours, two threads", threads=2)
OURS_DUMMY = ours("ours-dummy", "ours on SB3's DummyVecEnv", environments="sb3")
EAGER = replace(ours("ours-eager", "ours, engine='eager'", keywords={"engine": "eager"}), warmup=1, iterations=4)
COMPILED = ours("ours-compiled", "ours, engine='compiled'", keywords={"engine": "compiled"})
COMPILED_COLD = replace(COMPILED, name="ours-compiled-cold", label="ours, engine='compiled', no cache", cold=True)
NO_COMPILER = ours("ours-no-compiler", "ours, compile=False", keywords={"compile": False})
MAXENT = ours(
    "maxent",
    "MaxEntPPO, shared trunk",
    "MaxEntPPO",
    keywords={"tau": 0.02, "policy_kwargs": {"entropy_net_arch": None}},
)
MAXENT_OWN = ours(
    "maxent-own",
    "MaxEntPPO, own trunk",
    "MaxEntPPO",
    keywords={"tau": 0.02, "policy_kwargs": {"entropy_net_arch": [64, 64]}},
)
SB3 = Contender("sb3", "SB3", "run_sb3.py", "sb3", 1, 4)
SB3_2T = replace(SB3, name="sb3-2t", label="SB3, two threads", threads=2)
# SBX compiles once more when the first episodes are cut off, after 1,000 steps of each environment.
SBX = Contender("sbx", "SBX", "run_sbx.py", "sbx", 4, 4)
SBX_1_ENV = replace(SBX, warmup=2)
SBX_16_ENVS = replace(SBX, warmup=8)
TIANSHOU = Contender("tianshou", "Tianshou", "run_tianshou.py", "tianshou", 1, 3)
CLEANRL = Contender("cleanrl", "CleanRL", "run_script.py", "scripts", 1, 4, options={"library": "cleanrl"})
LEANRL = Contender("leanrl", "LeanRL", "run_script.py", "scripts", 2, 4, options={"library": "leanrl"})
LEANRL_COMPILED = replace(
    LEANRL,
    name="leanrl-compiled",
    label="LeanRL, compiled",
    options={"library": "leanrl", "arguments": ["--compile"]},
)
SB3_TRPO = replace(SB3, name="sb3-trpo", label="sb3-contrib's TRPO", options={"algorithm": "TRPO"})
OURS_TRPO = ours("ours-trpo", "our TRPO", "TRPO")
OURS_TRPO_EAGER = replace(
    ours("ours-trpo-eager", "our TRPO, engine='eager'", "TRPO", keywords={"engine": "eager"}), warmup=1, iterations=4
)
MAXENT_TRPO = ours("maxent-trpo", "MaxEntTRPO", "MaxEntTRPO")
# An iteration of SAC is 512 updates: one is warm-up enough for compilers and caches.
SB3_SAC = replace(SB3, name="sb3-sac", label="SB3's SAC", options={"algorithm": "SAC"})
SB3_SAC_2T = replace(SB3_SAC, name="sb3-sac-2t", label="SB3's SAC, two threads", threads=2)
SBX_SAC = replace(SBX, name="sbx-sac", label="SBX's SAC", warmup=1, options={"algorithm": "SAC"})
OURS_SAC = replace(ours("ours-sac", "our SAC", "SAC"), warmup=1, iterations=4)
OURS_SAC_2T = replace(OURS_SAC, name="ours-sac-2t", label="our SAC, two threads", threads=2)
OURS_SAC_EAGER = replace(
    OURS_SAC,
    name="ours-sac-eager",
    label="our SAC, engine='eager'",
    options={"algorithm": "SAC", "keywords": {"engine": "eager"}},
)
ENVIRONMENTS = Contender("environments", "environments alone", "run_environments.py", "ours", 4, 16)
PRODUCTS = Contender("products", "matrix products alone", "run_products.py", "ours", 4, 16)


@dataclass(frozen=True)
class Workload:
    """One thing to measure.

    Attributes:
        name: identifies it in ``runs.csv``.
        title: what tables call it.
        section: what part of the report it belongs to.
        contenders: who runs it, in this order within a round.
        env_id: Gymnasium id.
        n_envs: environments stepped together.
        batch_size: of a minibatch.
        n_steps: a rollout, per environment; off-policy: what counts as one.
        n_epochs: passes over a rollout.
        width: units in each of the two hidden layers.
        device: ``"cpu"`` or ``"cuda"``.
        breakdown: whether the parts of an iteration are timed, which costs a little.
        rounds: at most so many rounds; what no target depends on needs fewer.
    """

    name: str
    title: str
    section: str
    contenders: tuple[Contender, ...]
    env_id: str = "HalfCheetah-v5"
    n_envs: int = 8
    batch_size: int = 64
    n_steps: int = 256
    n_epochs: int = 10
    width: int = 64
    device: str = "cpu"
    breakdown: bool = False
    rounds: int = 100

    @property
    def rollout(self) -> int:
        """Environment steps in one iteration."""
        return self.n_steps * self.n_envs

    def message(self, contender: Contender, seed: int, checkouts: dict[str, str]) -> dict[str, Any]:
        """Return what the contender's script is told."""
        options = dict(contender.options)
        if "library" in options:
            options["checkout"] = checkouts[options["library"]]
        keys = ("env_id", "n_envs", "n_steps", "batch_size", "n_epochs", "width", "device", "breakdown")
        return {key: getattr(self, key) for key in keys} | {
            "warmup": contender.warmup,
            "iterations": contender.iterations,
            "threads": contender.threads,
            "seed": seed,
            "options": options,
        }


def soft_workload(name: str, title: str, contenders: Iterable[Contender], **settings: Any) -> Workload:
    """A workload of SAC with one update a step."""
    sizes = {"n_envs": 1, "n_steps": OFF_POLICY_STEPS, "batch_size": 256, "n_epochs": 1, "width": 256, "rounds": 3}
    return Workload(name, title, "sac", tuple(contenders), **(sizes | settings))


@dataclass(frozen=True)
class Job:
    """One process: a contender on a workload in one round."""

    workload: Workload
    contender: Contender
    round: int

    @property
    def key(self) -> tuple[str, str, int]:
        """Identifies it among the rows of ``runs.csv``."""
        return self.workload.name, self.contender.name, self.round


def cpu_workload(name: str, title: str, contenders: Iterable[Contender], **settings: Any) -> Workload:
    """A workload of 2,048 steps a rollout on the CPU."""
    section = settings.pop("section", "peers")
    n_envs = settings.pop("n_envs", 8)
    return Workload(name, title, section, tuple(contenders), n_envs=n_envs, n_steps=ROLLOUT // n_envs, **settings)


def _scaling() -> list[Workload]:
    others = (2, 4, 32, 64)  # 1, 8 and 16 are among the comparisons with the peers
    return [
        cpu_workload(f"envs-{n}", f"{n} environments", (SB3, OURS), section="scaling", n_envs=n, rounds=2)
        for n in others
    ]


def _widths() -> list[Workload]:
    return [
        cpu_workload(f"width-{width}", f"{width}×{width}", (SB3, OURS), section="width", width=width, rounds=2)
        for width in (128, 256)
    ]


CPU_WORKLOADS: tuple[Workload, ...] = (
    cpu_workload(
        "envs-8",
        "8 environments, minibatch 64",
        (
            *(SB3, SBX, TIANSHOU, CLEANRL, LEANRL, LEANRL_COMPILED),
            *(OURS, OURS_DUMMY, EAGER, COMPILED, NO_COMPILER, MAXENT, MAXENT_OWN, ENVIRONMENTS, PRODUCTS),
        ),
    ),
    cpu_workload("envs-1", "1 environment, minibatch 64", (SB3, SBX_1_ENV, OURS), n_envs=1),
    cpu_workload("envs-16", "16 environments, minibatch 64", (SB3, SBX_16_ENVS, OURS), n_envs=16),
    cpu_workload(
        "batch-512",
        "8 environments, minibatch 512",
        (SB3, SB3_2T, SBX, OURS, OURS_2T, ENVIRONMENTS, PRODUCTS),
        batch_size=512,
    ),
    cpu_workload(
        "cartpole", "CartPole-v1, 8 environments, minibatch 64", (SB3, SBX, CLEANRL, OURS), env_id="CartPole-v1"
    ),
    cpu_workload(
        "trpo",
        "TRPO, 8 environments, the critic's minibatch 128",
        (SB3_TRPO, OURS_TRPO, OURS_TRPO_EAGER, MAXENT_TRPO),
        section="trpo",
        batch_size=128,
    ),
    soft_workload(
        "sac",
        "SAC, 1 environment, batch 256, 256×256",
        (SB3_SAC, SB3_SAC_2T, SBX_SAC, OURS_SAC, OURS_SAC_2T, OURS_SAC_EAGER),
    ),
    cpu_workload("start-up", "first start of the compiled engine", (COMPILED_COLD,), section="start-up", rounds=2),
    cpu_workload("breakdown", "parts of an iteration", (SB3, OURS), section="breakdown", breakdown=True, rounds=2),
    *_scaling(),
    *_widths(),
)


def _gpu(env_id: str, n_envs: int, contenders: tuple[Contender, ...]) -> Workload:
    return Workload(
        f"gpu-{env_id}-{n_envs}",
        f"{env_id}, {n_envs:,} environments",
        "gpu",
        tuple(
            replace(contender, warmup=3, iterations=5 if contender.home == "ours" else 2) for contender in contenders
        ),
        env_id=env_id,
        n_envs=n_envs,
        n_steps=GPU_HORIZON,
        batch_size=n_envs * GPU_HORIZON // 4,
        n_epochs=5,
        device="cuda",
        rounds=2,
    )


def _on(backend: str) -> tuple[Contender, ...]:
    """Us, default and eager, and the environments alone, on environments that live on the GPU."""
    chosen = {"environment": {"backend": backend, "device": "cuda"}}
    return (
        ours(f"ours-{backend}", f"ours, backend={backend!r}", **chosen),
        ours(
            f"ours-{backend}-eager",
            f"ours, backend={backend!r}, engine='eager'",
            keywords={"engine": "eager"},
            **chosen,
        ),
        replace(
            ENVIRONMENTS,
            name=f"environments-{backend}",
            label=f"environments alone, backend={backend!r}",
            options=chosen,
        ),
    )


_GPU_SIZES = (64, 512, 4096, 16384)
_SB3_LIMIT = 512  # SB3 needs a Python object and a numpy copy for every environment
#: Networks and replay buffer on the GPU, the environment on the CPU.
GPU_SAC = soft_workload(
    "gpu-sac",
    "SAC on a GPU, 1 environment, batch 256, 256×256",
    (SB3_SAC, SBX_SAC, OURS_SAC, OURS_SAC_EAGER),
    device="cuda",
)
GPU_WORKLOADS: tuple[Workload, ...] = (
    *(
        _gpu(env_id, n, ((SB3, OURS) if n <= _SB3_LIMIT else ()) + _on(backend))
        for env_id, backend in (("CartPole-v1", "torch"), ("HalfCheetah-v5", "mjx"))
        for n in _GPU_SIZES
    ),
    GPU_SAC,
)


def quick(workload: Workload) -> Workload:
    """The same with as few iterations as show that it works."""
    few = tuple(replace(contender, warmup=1, iterations=2) for contender in workload.contenders)
    return replace(workload, contenders=few, rounds=1)


def jobs(workloads: Iterable[Workload], rounds: int, absent: Iterable[str] = ()) -> list[Job]:
    """Return every process to run, in order.

    Within a workload the contenders take turns: A B C, A B C, ... so that what the machine does besides falls on all.

    Args:
        workloads: what to run.
        rounds: how often; a workload may limit it.
        absent: names of contenders to leave out.
    """
    left_out = set(absent)
    return [
        Job(workload, contender, number)
        for workload in workloads
        for number in range(min(rounds, workload.rounds))
        for contender in workload.contenders
        if contender.name not in left_out
    ]
