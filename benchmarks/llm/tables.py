"""Tables of what entropy control costs, from the rows of ``cost.csv`` alone."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.llm.contenders import CONTENDERS, GRPO
from benchmarks.llm.entropies import NAIVE_HIDDEN, NAIVE_LOGITS, WAYS
from benchmarks.llm.measure import ENTROPY, TRAINING, Step
from maxent_onpolicy.evaluation.tables import Bootstrap, Table

_NONE = "–"
_RESAMPLES = 2000


class Ratio(NamedTuple):
    """A median with its 95 % interval."""

    value: float
    low: float
    high: float


def own_parts(steps: Sequence[Step], name: str) -> list[float]:
    """Return what a contender adds to its steps, as parts of the rest of the same steps, which is GRPO's."""
    own = [step for step in steps if (step.part, step.name) == (TRAINING, name)]
    return [step.own / (step.seconds - step.own) for step in own]


def ratios(steps: Sequence[Step], part: str, name: str, baseline: str) -> list[float]:
    """Return a contender's seconds as multiples of the baseline's in the same pair, round and step."""
    found: dict[tuple[int, int, int], dict[str, float]] = {}
    for step in steps:
        if step.part == part:
            found.setdefault((step.round, step.slot, step.step), {})[step.name] = step.seconds
    return [each[name] / each[baseline] for each in found.values() if name in each and baseline in each]


def interval(values: Sequence[float], *key: str) -> Ratio:
    """Return the median, and the interval of it over resampled values."""
    data = np.asarray(values, dtype=float)
    drawn = Bootstrap().rng("cost", *key).choice(data, (_RESAMPLES, len(data)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return Ratio(float(np.median(data)), float(low), float(high))


def middle(steps: Sequence[Step], part: str, name: str, value: Callable[[Step], float]) -> float:
    """Return the median of a ``value`` over all steps of a kind."""
    return median(value(step) for step in steps if (step.part, step.name) == (part, name))


def measured(steps: Sequence[Step]) -> list[str]:
    """Return the contenders that were measured, baselines too, in their own order."""
    present = {step.name for step in steps if step.part == TRAINING}
    return [name for name in CONTENDERS if name in present]


def in_percent(ratio: Ratio, decimals: int) -> str:
    """Return for example ``+1.2 % [0.8, 1.5]``."""
    value, low, high = (100 * each for each in ratio)
    return f"{value:+.{decimals}f} % [{low:.{decimals}f}, {high:.{decimals}f}]"


def _own_row(steps: Sequence[Step], name: str) -> tuple[list[object], list[str]]:
    """Numbers and text of a contender's row, from its own time on."""
    each = CONTENDERS[name]
    own = middle(steps, TRAINING, name, lambda step: step.own)
    part = interval(own_parts(steps, name), "own", name)
    found = ratios(steps, TRAINING, name, each.baseline)
    wall = interval([ratio - 1 for ratio in found], "wall", name)
    more = middle(steps, TRAINING, name, lambda step: step.memory) - middle(
        steps, TRAINING, each.baseline, lambda step: step.memory
    )
    aim = met = _NONE
    if each.target is not None:
        aim = f"{100 * each.target:.0f} %"
        met = "yes" if part.high <= each.target else "no" if part.low > each.target else "open"
    shown = [f"{1000 * own:,.1f}", in_percent(part, 2), in_percent(wall, 1), f"{more:+,.0f}", aim, met]
    return [each.baseline, len(found), own, *part, *wall, more, each.target], shown


def training_table(steps: Sequence[Step], layers: int, depth: int) -> Table:
    """What each contender adds to GRPO's step."""
    data, text = [], []
    for name in measured(steps):
        seconds = middle(steps, TRAINING, name, lambda step: step.seconds)
        numbers, shown = [], [_NONE, _NONE, _NONE]
        if CONTENDERS[name].settings is None:
            memory = middle(steps, TRAINING, name, lambda step: step.memory)
            shown += [f"{memory:,.0f}", _NONE, _NONE]
            numbers = ["", 0, *[np.nan] * 7, memory, np.nan]
        else:
            numbers, shown = _own_row(steps, name)
        data.append([name, seconds, *numbers])
        text.append([name, f"{seconds:.2f}", *shown])
    columns = ["contender", "seconds", "baseline", "pairs", "own_seconds", "own_part", "own_low", "own_high"]
    columns += ["wall", "wall_low", "wall_high", "MiB", "target"]
    headings = ["Trainer", "Step, s", "Own, ms", "Own part", "Beside GRPO", "MiB", "Aim", "Met"]
    return Table(
        "training",
        "Time and memory beside GRPO",
        _caption(steps, layers, depth),
        pd.DataFrame(data, columns=columns),
        pd.DataFrame(text, columns=headings),
    )


def _caption(steps: Sequence[Step], layers: int, depth: int) -> str:
    every = [ratio - 1 for name in measured(steps) for ratio in ratios(steps, TRAINING, name, GRPO) if name != GRPO]
    over = f" (over all contenders but that of a split batch {in_percent(interval(every, 'all'), 1)})" if every else ""
    return (
        "Time from the generated batch to the optimiser's step, median over steps. “Own”: time that a trainer spends "
        "on what GRPO does not do, gradients of entropies included, in milliseconds and as a part of the rest of the "
        "same steps. “Beside GRPO”: what is added to the time of GRPO's own trainer, with which it took turns step by "
        "step. The machine's noise is larger than most of what is added, but this column shows that nothing large is "
        f"left out{over}. Both with 95 % intervals over steps. The model has the width and the vocabulary of one with "
        f"{depth} layers, but {layers}; all contenders but that of a split batch, which takes one more forward pass, "
        "add the same to any number of layers, so their parts are smaller in the whole model, and smaller still of a "
        "step with generation. Memory: the process's peak, and how much it is above GRPO's."
    )


def entropy_table(steps: Sequence[Step]) -> Table:
    """Log-probabilities and entropies in chunks, and all at once."""
    own = [step for step in steps if step.part == ENTROPY]
    data, text = [], []
    for way in (way for way in WAYS if any(step.name == way for step in own)):
        naive = NAIVE_HIDDEN if "hidden" in way else NAIVE_LOGITS
        seconds = middle(own, ENTROPY, way, lambda step: step.seconds)
        memory = middle(own, ENTROPY, way, lambda step: step.memory)
        found = ratios(own, ENTROPY, way, naive)
        estimate = interval(found, way)
        data.append([way, len(found), seconds, *estimate, memory])
        shown = _NONE if way == naive else f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
        text.append([way, f"{seconds:.2f}", shown, f"{memory:,.0f}"])
    return Table(
        "entropy",
        "Exact entropies",
        "Log-probabilities and exact entropies of tokens and their gradients, forward and backward: seconds, the "
        "multiple of the naive way's with 95 % intervals over pairs of passes, and the memory that is added at the "
        "peak, which from hidden states includes the gradient of the head.",
        pd.DataFrame(data, columns=["way", "pairs", "seconds", "ratio", "low", "high", "MiB"]),
        pd.DataFrame(text, columns=["Way", "Seconds", "Times naive", "MiB"]),
    )


def load(steps: Sequence[Step], layers: int, depth: int) -> dict[str, Table]:
    """Return the tables of what was measured; none of what was not."""
    parts = {step.part for step in steps}
    found: list[Table] = []
    if TRAINING in parts:
        found.append(training_table(steps, layers, depth))
    if ENTROPY in parts:
        found.append(entropy_table(steps))
    return {table.name: table for table in found}
