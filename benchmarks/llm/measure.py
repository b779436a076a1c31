"""Rounds of measurements, each run in a process of its own, kept in a CSV file."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.llm.contenders import CONTENDERS, EVERY_DEPTH, GRPO, SPLIT, WHOLE
from benchmarks.llm.entropies import WAYS
from benchmarks.rows import read_rows, write_rows

TRAINING, GENERATED, ENTROPY = "training", "with generation", "entropy"
PARTS = (TRAINING, GENERATED, ENTROPY)
_TOGETHER = 3  # contenders that share a run of their baseline


class Run(NamedTuple):
    """One measurement.

    Attributes:
        part: which of :data:`PARTS`.
        name: of the contender, or the way to compute entropies.
        layers: of the model; 0 without one.
        round: in which all take turns.
        slot: place in the round: runs of the same slot are compared with each other.
        seconds: of a step, wall time, ``generation`` of which the model spent generating.
        cpu: seconds, of all threads.
        memory: largest, MiB; of entropies, what they add.
    """

    part: str
    name: str
    layers: int
    round: int
    slot: int
    seconds: float = 0.0
    generation: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0

    @property
    def key(self) -> tuple[str | int, ...]:
        """What it is a measurement of."""
        return self[:5]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shape: name of the shape of model and batch.
        layers: two numbers of layers or more, to tell what grows with them; see :data:`EVERY_DEPTH`.
        contenders: names.
        rounds: of everything.
        steps: of training a run.
        rows: tokens whose entropies are computed.
        threads: of a run.
        parts: some of :data:`PARTS`.
    """

    shape: str
    layers: tuple[int, ...]
    contenders: tuple[str, ...]
    rounds: int
    steps: int
    rows: int
    threads: int
    parts: tuple[str, ...] = PARTS


def slots() -> list[tuple[str, ...]]:
    """Return what is run one after another and compared: a baseline, and a few contenders."""
    found: list[tuple[str, ...]] = []
    for baseline in (GRPO, SPLIT):
        rest = [name for name, each in CONTENDERS.items() if each.settings is not None and each.baseline == baseline]
        found += [(baseline, *rest[first : first + _TOGETHER]) for first in range(0, len(rest), _TOGETHER)]
    return found


def runs_of(plan: Plan) -> Iterator[Run]:
    """Yield what is to be run, in order.

    Every second round goes backwards, so that a machine that becomes slower favours nobody.
    """
    for number in range(plan.rounds):
        turn = 1 if number % 2 == 0 else -1
        for layers in plan.layers if TRAINING in plan.parts else ():
            for slot, (baseline, *names) in list(enumerate(slots()))[::turn]:
                here = EVERY_DEPTH if layers > min(plan.layers) else names
                chosen = [name for name in names if name in plan.contenders and name in here]
                for name in [baseline, *chosen][::turn] if chosen else ():
                    yield Run(TRAINING, name, layers, number, slot)
        for layers in plan.layers if GENERATED in plan.parts else ():
            for name in WHOLE[::turn]:
                yield Run(GENERATED, name, layers, number, 0)
        for name in list(WAYS)[::turn] if ENTROPY in plan.parts else ():
            yield Run(ENTROPY, name, 0, number, 0)


def read(path: Path) -> list[Run]:
    """Return what was measured; nothing if there is no file."""
    if not path.is_file():
        return []
    return [Run(*row[:2], *map(int, row[2:5]), *map(float, row[5:])) for row in read_rows(path)]


def measure(plan: Plan, path: Path) -> None:
    """Run what is not in the file yet, and add it there.

    Raises:
        RuntimeError: if a run fails; what was measured before it is kept.
    """
    found = {run.key: run for run in read(path)}
    wanted = list(runs_of(plan))
    for place, run in enumerate(wanted):
        if run.key in found:
            continue
        found[run.key] = done = run._replace(**_in_a_process(plan, run))
        write_rows(path, Run._fields, ([*each[:5], *(f"{x:.6g}" for x in each[5:])] for each in found.values()))
        what = f"{run.part}, {run.layers} layers" if run.layers else run.part
        spent = f"{done.seconds:.3g} s, {done.memory:,.0f} MiB"
        print(f"[{place + 1}/{len(wanted)}] round {run.round + 1}, {what}, {run.name}: {spent}", flush=True)


def _in_a_process(plan: Plan, run: Run) -> dict[str, float]:
    job = {"part": run.part, "name": run.name, "layers": run.layers, "shape": plan.shape}
    job |= {"steps": 1 if run.part == GENERATED else plan.steps, "rows": plan.rows, "threads": plan.threads}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.llm", "serve", json.dumps(job)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"{run.name} failed:\n{finished.stderr}")
    result: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return result
