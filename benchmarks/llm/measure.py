"""Pairs of measurements that take turns step by step, kept in a CSV file."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.llm.contenders import CONTENDERS, GRPO, SPLIT
from benchmarks.llm.entropies import NAIVE_HIDDEN, NAIVE_LOGITS, WAYS
from benchmarks.llm.turns import WARM_UP
from benchmarks.rows import read_rows, write_rows

TRAINING, ENTROPY = "training", "entropy"
PARTS = (TRAINING, ENTROPY)
_KEY = 5  # fields that say what a step was
Values = dict[str, float]


class Step(NamedTuple):
    """One measured step.

    Attributes:
        part: which of :data:`PARTS`.
        name: of the contender, or the way to compute entropies.
        round: of everything.
        slot: which pair: what is compared, and what with.
        step: of the pair's.
        seconds: wall time, ``own`` of which went into what GRPO does not do.
        cpu: seconds, of all threads.
        memory: the process's largest so far, MiB; of entropies, what they add.
    """

    part: str
    name: str
    round: int
    slot: int
    step: int
    seconds: float = 0.0
    own: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0


class Pair(NamedTuple):
    """Two that are compared: first what the second is compared with."""

    part: str
    names: tuple[str, str]
    round: int
    slot: int

    def steps(self, count: int) -> list[Step]:
        """Return what is to be measured."""
        part, names, *rest = self
        return [Step(part, name, *rest, step) for step in range(count) for name in names]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shape: name of the shape of model and batch.
        layers: of the model.
        contenders: names.
        rounds: of everything.
        steps: of a pair in a round.
        rows: tokens whose entropies are computed.
        threads: of a process.
        parts: some of :data:`PARTS`.
    """

    shape: str
    layers: int
    contenders: tuple[str, ...]
    rounds: int
    steps: int
    rows: int
    threads: int
    parts: tuple[str, ...] = PARTS


def pairs_of(plan: Plan) -> Iterator[Pair]:
    """Yield what is to be measured, in order; every second round goes backwards."""
    chosen = [name for name in plan.contenders if name not in (GRPO, SPLIT)]
    places = list(CONTENDERS)
    for number in range(plan.rounds):
        turn = 1 if number % 2 == 0 else -1
        for name in chosen[::turn] if TRAINING in plan.parts else ():
            yield Pair(TRAINING, (CONTENDERS[name].baseline, name), number, places.index(name))
        for slot, way in list(enumerate(WAYS))[::turn] if ENTROPY in plan.parts else ():
            naive = NAIVE_HIDDEN if "hidden" in way else NAIVE_LOGITS
            if way != naive:
                yield Pair(ENTROPY, (naive, way), number, slot)


def read(path: Path) -> list[Step]:
    """Return what was measured; nothing if there is no file."""
    if not path.is_file():
        return []
    rows = read_rows(path)
    return [Step(*row[:2], *map(int, row[2:_KEY]), *map(float, row[_KEY:])) for row in rows]


def measure(plan: Plan, path: Path) -> None:
    """Measure the pairs that are not in the file yet, and add them there.

    Raises:
        RuntimeError: if a process fails; what was measured before is kept.
    """
    found = {step[:_KEY]: step for step in read(path)}
    wanted = list(pairs_of(plan))
    for place, pair in enumerate(wanted):
        steps = pair.steps(plan.steps)
        if all(step[:_KEY] in found for step in steps):
            continue
        measured = alternate(plan, pair)
        for step in steps:
            found[step[:_KEY]] = step._replace(**measured[step.name][step.step])
        rows = ([*each[:_KEY], *(f"{value:.6g}" for value in each[_KEY:])] for each in found.values())
        write_rows(path, Step._fields, rows)
        print(f"[{place + 1}/{len(wanted)}] {_in_words(pair, measured)}", flush=True)


def alternate(plan: Plan, pair: Pair) -> dict[str, list[Values]]:
    """Let two processes take turns: a step of one, a step of the other, the same order backwards, and so on.

    What disturbs a machine for longer than a step disturbs both alike. The first steps do not count.

    Raises:
        RuntimeError: if a process fails.
    """
    job = {"part": pair.part, "layers": plan.layers, "shape": plan.shape}
    job |= {"steps": plan.steps + WARM_UP, "rows": plan.rows, "threads": plan.threads}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.llm", "serve"]
    found: dict[str, list[Values]] = {name: [] for name in pair.names}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        processes = {
            name: subprocess.Popen(
                [*command, json.dumps(job | {"name": name})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            for name in pair.names
        }
        try:
            for step in range(plan.steps + WARM_UP):
                for name in pair.names[:: 1 if step % 2 == 0 else -1]:
                    found[name].append(_one_step(processes[name]))
        except (OSError, ValueError) as error:
            errors.seek(0)
            raise RuntimeError(f"{pair.names[0]} or {pair.names[1]} failed:\n{errors.read()}") from error
        finally:
            for process in processes.values():
                process.kill()
                process.communicate()
    return {name: values[WARM_UP:] for name, values in found.items()}


def _one_step(process: subprocess.Popen[str]) -> Values:
    """Let a process make a step and return what it says of it.

    Raises:
        OSError, ValueError: if it has ended instead.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    values: Values = json.loads(process.stdout.readline())
    return values


def _in_words(pair: Pair, measured: dict[str, list[Values]]) -> str:
    base, other = (measured[name] for name in pair.names)
    ratio = median(one["seconds"] / two["seconds"] for one, two in zip(other, base, strict=True))
    spent = f"{median(each['seconds'] for each in other):.3g} s, {other[-1]['memory']:,.0f} MiB"
    return f"round {pair.round + 1}, {pair.part}, {pair.names[1]}: {spent}, {ratio:.3f} times {pair.names[0]}"
