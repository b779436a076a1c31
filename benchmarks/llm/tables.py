"""Tables of what entropy control costs, from the rows of ``cost.csv`` alone."""

from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.llm.contenders import CONTENDERS, GRPO, SPLIT
from benchmarks.llm.entropies import NAIVE_HIDDEN, NAIVE_LOGITS, WAYS
from benchmarks.llm.measure import ENTROPY, GENERATED, TRAINING, Step
from maxent_onpolicy.evaluation.tables import Bootstrap, Table

_NONE = "–"
Ratio = tuple[float, float, float]


def whole_seconds(step: Step) -> float:
    """Return the time of a step."""
    return step.seconds


def training_seconds(step: Step) -> float:
    """Return the time of a step from the generated batch to the optimiser's step."""
    return step.seconds - step.generation


def ratios_to(
    steps: Sequence[Step], part: str, name: str, baseline: str, layers: int, value: Callable[[Step], float]
) -> list[float]:
    """Return a ``value`` as multiples of the baseline's of the same pair, round and step."""
    found: dict[tuple[int, ...], dict[str, float]] = {}
    for step in steps:
        if (step.part, step.layers) == (part, layers):
            found.setdefault((step.round, step.slot, step.step), {})[step.name] = value(step)
    return [each[name] / each[baseline] for each in found.values() if name in each and baseline in each]


def ratios(
    steps: Sequence[Step], name: str, layers: int, value: Callable[[Step], float] = training_seconds
) -> list[float]:
    """Return a contender's ``value`` while training as multiples of its baseline's."""
    return ratios_to(steps, TRAINING, name, CONTENDERS[name].baseline, layers, value)


def interval(values: Sequence[float], *key: str, resamples: int = 2000) -> Ratio:
    """Return the median, and the 95 % interval of it over resampled pairs of steps."""
    data = np.asarray(values, dtype=float)
    drawn = Bootstrap().rng("cost", *key).choice(data, (resamples, len(data)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(np.median(data)), float(low), float(high)


def layers_of(runs: Sequence[Step], part: str = TRAINING) -> list[int]:
    """Return the numbers of layers that were measured."""
    return sorted({run.layers for run in runs if run.part == part})


def middle(runs: Sequence[Step], part: str, name: str, layers: int, value: Callable[[Step], float]) -> float:
    """Return the median of a ``value`` over all runs of a kind; NaN if there are none."""
    found = [value(run) for run in runs if (run.part, run.name, run.layers) == (part, name, layers)]
    return median(found) if found else float("nan")


def at_depth(seconds: dict[int, float], depth: int) -> float:
    """Return the time with ``depth`` layers: a straight line through that of the fewest and the most measured."""
    if len(seconds) < 2:
        return float("nan")
    few, many = min(seconds), max(seconds)
    return seconds[few] + (depth - few) * (seconds[many] - seconds[few]) / (many - few)


def ratio_at_depth(runs: Sequence[Step], name: str, depth: int) -> float:
    """Return what a contender's ratio would be with ``depth`` layers.

    What an advantage or a method adds is taken to be the same for every number of layers, the mean of those measured;
    one more forward pass grows with them, as a straight line.
    """
    contender, layers = CONTENDERS[name], layers_of(runs)
    base = {each: middle(runs, TRAINING, contender.baseline, each, training_seconds) for each in layers}
    added = {}
    for each in layers:
        found = ratios(runs, name, each)
        if found:
            added[each] = (median(found) - 1.0) * base[each]
    more = mean(added.values()) if contender.parts == 1 and added else at_depth(added, depth)
    return 1.0 + more / at_depth(base, depth)


def share_of_step(runs: Sequence[Step], name: str) -> float:
    """Return what a contender adds to training as a part of GRPO's step with generation; NaN if unknown.

    With as many layers as were measured both with generation and without.
    """
    both = [each for each in layers_of(runs, GENERATED) if ratios(runs, name, each)]
    if not both or CONTENDERS[name].parts > 1:
        return float("nan")
    layers = both[-1]
    found = ratios(runs, name, layers)
    training = middle(runs, TRAINING, GRPO, layers, training_seconds)
    generation = middle(runs, GENERATED, GRPO, layers, lambda run: run.generation)
    return (median(found) - 1.0) * training / (training + generation)


def percent(value: float) -> str:
    """Return a part as ``+1.2 %``."""
    return _NONE if np.isnan(value) else f"{100 * value:+.1f} %"


def estimate_text(estimate: Ratio) -> str:
    """Return what a ratio adds, with its interval, in per cent."""
    value, low, high = (100 * (each - 1) for each in estimate)
    return _NONE if np.isnan(value) else f"{value:+.1f} % [{low:.1f}, {high:.1f}]"


def with_unit(value: float, form: str, unit: str = "") -> str:
    """Return a number in words, or a dash."""
    return _NONE if np.isnan(value) else f"{value:{form}}{unit}"


def training_table(runs: Sequence[Step], depth: int) -> Table:
    """What each contender adds to the training part of a step."""
    layers = layers_of(runs)
    data, text = [], []
    names = [name for name, each in CONTENDERS.items() if each.settings is not None]
    for name in (name for name in names if any(ratios(runs, name, each) for each in layers)):
        row: list[Any] = [name, CONTENDERS[name].baseline]
        cells = [name]
        processor = float("nan")  # of the most layers there are
        for each in layers:
            found = ratios(runs, name, each)
            value, low, high = interval(found, name, str(each)) if found else (float("nan"),) * 3
            cpu = ratios(runs, name, each, lambda step: step.cpu)
            processor = median(cpu) if cpu else processor
            row += [len(found), value, low, high, median(cpu) if cpu else float("nan")]
            cells.append(estimate_text((value, low, high)))
        deep, share = ratio_at_depth(runs, name, depth), share_of_step(runs, name)
        more = [
            middle(runs, TRAINING, name, each, lambda run: run.memory)
            - middle(runs, TRAINING, CONTENDERS[name].baseline, each, lambda run: run.memory)
            for each in layers
        ]
        target = CONTENDERS[name].target
        met = _NONE if target is None or np.isnan(share) else "yes" if share <= target else "no"
        held = next((each for each in more[::-1] if not np.isnan(each)), float("nan"))
        data.append([*row, deep, share, held, target])
        words = [percent(processor - 1), percent(deep - 1), percent(share), with_unit(held, "+,.0f")]
        text.append([*cells, *words, met])
    columns = ["contender", "baseline"]
    for each in layers:
        columns += [f"{what}, {each} layers" for what in ("pairs", "ratio", "low", "high", "ratio of CPU time")]
    columns += [f"ratio, {depth} layers", "part of a step", "MiB more", "target"]
    few = [f"{each} layers" for each in layers]
    headings = ["Trainer", *few, "CPU time", f"{depth} layers", "Of a step", "MiB more", "Met"]
    return Table(
        "training",
        "Time and memory beside GRPO",
        "What is added to the time from the generated batch to the optimiser's step: median of the ratios to GRPO's "
        "own trainer, with which it took turns step by step, and 95 % intervals over pairs of steps. The models have "
        f"the width and the vocabulary of a larger one with {depth} layers, and few layers. What is added depends on "
        "the width, the vocabulary or the tokens and not on layers, so these parts are larger than with "
        f"{depth} layers, for which they are extrapolated: GRPO's time as a straight line in the number of layers, "
        "what is added as the mean of those measured, methods of entropy control with the fewest only; of a split "
        "batch, which takes one more forward pass, as a straight line too. “CPU time”: the same of all threads' time, "
        "which other processes disturb less, with most layers. “Of a step”: as a part of GRPO's step with the "
        "generation of completions; aimed at are 10 % with a critic and 5 % without. Memory: the process's peak.",
        pd.DataFrame(data, columns=columns),
        pd.DataFrame(text, columns=headings),
    )


def baseline_table(runs: Sequence[Step], depth: int) -> Table:
    """How long GRPO itself takes."""
    data, text = [], []
    layers = layers_of(runs)
    for name in (GRPO, SPLIT):
        seconds = {each: middle(runs, TRAINING, name, each, training_seconds) for each in layers}
        if all(np.isnan(value) for value in seconds.values()):
            continue
        memory = [middle(runs, TRAINING, name, each, lambda run: run.memory) for each in layers]
        deep = at_depth(seconds, depth)
        data.append([name, *seconds.values(), deep, *memory])
        pairs = zip(seconds.values(), memory, strict=True)
        cells = [_NONE if np.isnan(value) else f"{value:.2f} s, {held:,.0f} MiB" for value, held in pairs]
        text.append([name, *cells, with_unit(deep, ".1f", " s")])
    columns = ["trainer", *(f"seconds, {each} layers" for each in layers), f"seconds, {depth} layers"]
    columns += [f"MiB, {each} layers" for each in layers]
    return Table(
        "grpo",
        "GRPO itself",
        "Training part of a step, median over all runs, and the process's peak memory; a straight line beyond.",
        pd.DataFrame(data, columns=columns),
        pd.DataFrame(text, columns=["Trainer", *(f"{each} layers" for each in layers), f"{depth} layers"]),
    )


def generated_table(runs: Sequence[Step]) -> Table:
    """Whole steps, with generation."""
    data, text = [], []
    for layers in layers_of(runs, GENERATED):
        own = [run for run in runs if (run.part, run.layers) == (GENERATED, layers)]
        for name in dict.fromkeys(run.name for run in own):
            whole, generation, training = (
                middle(own, GENERATED, name, layers, value)
                for value in (whole_seconds, lambda run: run.generation, training_seconds)
            )
            found = ratios_to(own, GENERATED, name, GRPO, layers, whole_seconds)
            estimate = interval(found, "whole", name, str(layers))
            data.append([layers, name, len(found), whole, generation, *estimate])
            times = [f"{seconds:.1f}" for seconds in (whole, generation, training)]
            shown = f"{estimate[0]:.3f} [{estimate[1]:.3f}, {estimate[2]:.3f}]"
            text.append([str(layers), name, *times, _NONE if name == GRPO else shown])
    return Table(
        "generated",
        "Whole steps",
        "One step with completions that the model generates, seconds, medians; generation is the same for both, and "
        "its noise is larger than what is added. Times GRPO's: 95 % intervals over pairs of steps.",
        pd.DataFrame(data, columns=["layers", "contender", "pairs", "seconds", "generation", "ratio", "low", "high"]),
        pd.DataFrame(text, columns=["Layers", "Trainer", "Step", "Generation", "Training", "Times GRPO"]),
    )


def entropy_table(runs: Sequence[Step]) -> Table:
    """Log-probabilities and entropies in chunks, and all at once."""
    own = [run for run in runs if run.part == ENTROPY]
    data, text = [], []
    for way in (way for way in WAYS if any(run.name == way for run in own)):
        naive = NAIVE_HIDDEN if "hidden" in way else NAIVE_LOGITS
        seconds, memory = (middle(own, ENTROPY, way, 0, value) for value in (whole_seconds, lambda run: run.memory))
        found = ratios_to(own, ENTROPY, way, naive, 0, whole_seconds)
        estimate = interval(found, way)
        data.append([way, len(found), seconds, *estimate, memory])
        shown = _NONE if way == naive else f"{estimate[0]:.2f} [{estimate[1]:.2f}, {estimate[2]:.2f}]"
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


def load(runs: Sequence[Step], depth: int) -> dict[str, Table]:
    """Return the tables of what was measured; none of what was not."""
    parts = {run.part for run in runs}
    found: list[Table] = []
    if TRAINING in parts:
        found += [training_table(runs, depth), baseline_table(runs, depth)]
    if GENERATED in parts:
        found.append(generated_table(runs))
    if ENTROPY in parts:
        found.append(entropy_table(runs))
    return {table.name: table for table in found}
