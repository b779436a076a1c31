"""How much of what was learnt holds on a test distribution: returns in training and in test environments, and the gap.

The gap of a run is its final return on the training distribution less that on the test distribution. Both belong to the
same run, so intervals of the gap draw whole runs with both their returns.
"""

from collections.abc import Iterable, Sequence
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from maxent_onpolicy.evaluation.drawing import (
    INK,
    Plot,
    add_legend,
    band_of,
    draw_band,
    label_axes,
    looks_of,
    make_panels,
    style,
)
from maxent_onpolicy.evaluation.ranges import normalise
from maxent_onpolicy.evaluation.references import Reference, find_references, load_references
from maxent_onpolicy.evaluation.scores import Results
from maxent_onpolicy.evaluation.statistics import Estimate, aggregate, paired_difference
from maxent_onpolicy.evaluation.tables import AGGREGATE_NAMES, Bootstrap, Table, estimate_columns, estimate_text

_STATISTICS = ("iqm", "mean")
_LEGEND = 96  # characters of the legend's width; long entries hold few wide letters
_LINES: dict[str, Any] = {"train": "-", "test": (0, (4, 1.6))}
_DOTS: dict[str, Any] = {"train": (0, (1, 1)), "test": (0, (1, 3))}  # of published returns


def generalisation_table(results: Results, bootstrap: Bootstrap) -> Table | None:
    """Final train return, test return and gap in every environment; ``None`` if nothing has a test distribution."""
    rows: list[tuple[dict[str, Any], list[Estimate]]] = []
    sources: list[str] = []
    for env_id in results.env_ids:
        for mode, test, train in results.tested:
            pairs = {label: _paired(results, label, env_id, (train, test)) for label in results.labels}
            measured = {label: pair for label, pair in pairs.items() if len(pair[0])}
            for label, pair in measured.items():
                keys: dict[str, Any] = {"environment": env_id, "mode": mode, "algorithm": label, "seeds": len(pair[0])}
                rows.append((keys, _returns(pair, (label, env_id, train, test), bootstrap)))
            for reference in _references(results, env_id, mode) if measured else ():
                keys = {"environment": env_id, "mode": mode, "algorithm": _name(reference), "seeds": reference.runs}
                rows.append((keys, _bare(reference.train, reference.test)))
                sources.append(reference.source)
    if not rows:
        return None
    caption = (
        "Final return (raw reward) of the last checkpoint on the training and on the test distribution"
        f"{_test_words(results)}, mean over seeds [{bootstrap.interval_name}]. The gap is train − test; its interval "
        "draws whole runs, each with both returns." + _credit(sources)
    )
    return _table("generalisation", "Generalisation by environment", caption, rows)


def generalisation_scores(results: Results, bootstrap: Bootstrap) -> Table | None:
    """IQM and mean of normalised train and test scores, and the gap; ``None`` where nothing can be aggregated."""
    rows: list[tuple[dict[str, Any], list[Estimate]]] = []
    sources: list[str] = []
    covered: list[str] = []
    for mode, test, train in results.tested:
        env_ids = [
            env_id
            for env_id in results.shared_env_ids(test, normalised=True)
            if all(len(_paired(results, label, env_id, (train, test))[0]) for label in results.labels)
        ]
        covered += [env_id for env_id in env_ids if env_id not in covered]
        for statistic in _STATISTICS if env_ids else ():
            keys = {"statistic": AGGREGATE_NAMES[statistic], "mode": mode}
            for label in results.labels:
                pairs = {env_id: _paired(results, label, env_id, (train, test)) for env_id in env_ids}
                scores = [
                    [normalise(pairs[env_id][split].to_numpy(), env_id, results.ranges) for env_id in env_ids]
                    for split in (0, 1)
                ]
                estimates = _scores(scores, statistic, (label, train, test), bootstrap)
                rows.append((keys | {"algorithm": label, "runs": sum(map(len, scores[1]))}, estimates))
            if statistic == "mean":
                found, used = _published_means(results, env_ids, mode)
                rows += [(keys | more, estimates) for more, estimates in found]
                sources += used
    if not rows:
        return None
    caption = (
        f"Scores of the last checkpoint over {', '.join(covered)} [stratified-bootstrap {bootstrap.interval_name}]. "
        "Scores of both distributions are on the scale of the table of score ranges. The gap is the statistic of the "
        "train scores less that of the test scores, of whole runs drawn with both." + _credit(sources)
    )
    return _table("generalisation_scores", "Generalisation over all environments", caption, rows)


def generalisation_curves(results: Results, bootstrap: Bootstrap) -> Plot | None:
    """Train and test returns against environment steps; ``None`` if nothing has a test distribution."""
    if not results.tested:
        return None
    mode, test, train = results.tested[0]
    env_ids = [env_id for env_id in results.env_ids if any(len(results.final(x, env_id, test)) for x in results.labels)]
    shown: list[Reference] = []
    with style():
        figure, axes = make_panels(len(env_ids))
        for axis, env_id in zip(axes, env_ids, strict=True):
            axis.set_title(env_id)
            _curves(axis, results, env_id, {"train": train, "test": test}, bootstrap)
            shown += _levels(axis, _references(results, env_id, mode))
        label_axes(figure, axes, results.step_name, "Return")
        entries = [(_key(_LINES["train"]), "training distribution"), (_key(_LINES["test"]), "test distribution")]
        for name in dict.fromkeys(map(_published_name, shown)):
            entries += [(_key(line), f"{name}, {split}") for split, line in _DOTS.items()]
        add_legend(figure, results, _LEGEND, entries, styled=False)
    published = " Dotted: published returns, at the number of steps that the legend says." if shown else ""
    caption = (
        f"Return of {mode} evaluation episodes (raw reward) while training, on the training distribution (solid) and "
        f"on the test distribution{_test_words(results)} (dashed): mean over seeds, and pointwise bootstrap "
        f"{bootstrap.interval_name} as a band.{published}"
    )
    return Plot("generalisation_curves", f"Generalisation while training, {mode} policy", caption, figure)


# --- estimates -------------------------------------------------------------------------------------------------------


def _paired(results: Results, label: str, env_id: str, names: tuple[str, str]) -> tuple[pd.Series, pd.Series]:
    """Final train and test returns of the runs that have both, in the same order."""
    train, test = (results.final(label, env_id, name) for name in names)
    seeds = train.index.intersection(test.index, sort=False)
    return train[seeds], test[seeds]


def _returns(pair: tuple[pd.Series, pd.Series], key: tuple[str, str, str, str], bootstrap: Bootstrap) -> list[Estimate]:
    """Train return, test return and gap of one algorithm in one environment."""
    train, test = pair
    label, env_id, *names = key
    gap = paired_difference(
        [train.to_numpy()],
        [test.to_numpy()],
        rng=bootstrap.rng("gap", *key),
        statistics=["mean"],
        resamples=bootstrap.resamples,
        confidence=bootstrap.confidence,
    )["mean"]
    # with the keys of the table of environments, so that both say the same
    means = [
        bootstrap.mean(values, label, env_id, name, "return") for values, name in zip((train, test), names, strict=True)
    ]
    return [*means, gap]


def _scores(
    scores: Sequence[list[np.ndarray]], statistic: str, key: tuple[str, str, str], bootstrap: Bootstrap
) -> list[Estimate]:
    """Train score, test score and gap of one algorithm over all environments."""
    label, *names = key
    size: dict[str, Any] = {"resamples": bootstrap.resamples, "confidence": bootstrap.confidence}
    # with the keys of the table of aggregates, so that both say the same
    found = [
        aggregate(each, rng=bootstrap.rng("aggregate", label, name), statistics=[statistic], **size)[statistic]
        for each, name in zip(scores, names, strict=True)
    ]
    rng = bootstrap.rng("gap", *key)
    return [*found, paired_difference(*scores, rng=rng, statistics=[statistic], **size)[statistic]]


def _bare(train: float, test: float) -> list[Estimate]:
    return [Estimate(value, nan, nan) for value in (train, test, train - test)]


# --- published returns -----------------------------------------------------------------------------------------------


def _references(results: Results, env_id: str, mode: str) -> list[Reference]:
    found = find_references(load_references(), env_id, results.distributions(env_id))
    return [reference for reference in found if reference.mode == mode]


def _published_means(
    results: Results, env_ids: Sequence[str], mode: str
) -> tuple[list[tuple[dict[str, Any], list[Estimate]]], list[str]]:
    """Mean scores of references that there are for every environment, and their sources."""
    by_name: dict[str, list[tuple[str, Reference]]] = {}
    for env_id in env_ids:
        for reference in _references(results, env_id, mode):
            by_name.setdefault(_name(reference), []).append((env_id, reference))
    rows, sources = [], []
    for name, found in by_name.items():
        if len(found) < len(env_ids):
            continue
        means = [
            float(np.mean([normalise(np.array(value), env_id, results.ranges) for env_id, value in values]))
            for values in (
                [(env_id, reference.train) for env_id, reference in found],
                [(env_id, reference.test) for env_id, reference in found],
            )
        ]
        runs = sum(reference.runs for _, reference in found)
        rows.append(({"algorithm": name, "runs": runs}, _bare(*means)))
        sources += [reference.source for _, reference in found]
    return rows, sources


def _name(reference: Reference) -> str:
    return f"{reference.name}, {reference.steps}, {reference.caveat}"


def _credit(sources: Iterable[str]) -> str:
    return "".join(f" Published: {source}." for source in dict.fromkeys(sources))


# --- words and lines -------------------------------------------------------------------------------------------------


def _test_words(results: Results) -> str:
    """What makes the test distribution, if that is the same in all environments."""
    found = set()
    for env_id in results.env_ids:
        for train, test in results.distributions(env_id):
            changed = [f"{name}={value}" for name, value in sorted(test.items()) if train.get(name) != value]
            found.add(", ".join(changed))
    words = found.pop() if len(found) == 1 else ""
    return f" ({words})" if words else ""


def _table(name: str, title: str, caption: str, rows: list[tuple[dict[str, Any], list[Estimate]]]) -> Table:
    parts = ("train", "test", "gap")
    data, text = [], []
    for keys, estimates in rows:
        row = dict(keys)
        for part, estimate in zip(parts, estimates, strict=True):
            row |= estimate_columns(part, estimate)
        data.append(row)
        shown = {key.capitalize(): str(value) for key, value in keys.items()}
        text.append(shown | {part.capitalize(): estimate_text(e) for part, e in zip(parts, estimates, strict=True)})
    return Table(name, title, caption, pd.DataFrame(data), pd.DataFrame(text))


def _curves(axis: Axes, results: Results, env_id: str, names: dict[str, str], bootstrap: Bootstrap) -> None:
    """Draw the train and the test curve of every algorithm into a panel."""
    for label, look in looks_of(results).items():
        for split, name in names.items():
            curves = results.curves(label, env_id, name) if len(results.final(label, env_id, name)) else None
            if curves is not None:
                key = ("curve", label, env_id, name)
                band = band_of(curves.values[:, None, :], curves.timesteps, bootstrap, key, "mean")
                draw_band(axis, band, look._replace(line=_LINES[split]), mark=look.mark)


def _key(line: Any) -> Line2D:
    return Line2D([], [], color=INK, linestyle=line)


def _levels(axis: Axes, references: Sequence[Reference]) -> list[Reference]:
    """Draw published returns into a panel, and return those that were; what would squash the curves is written."""
    low, high = axis.get_ylim()
    room = high - low
    near = [each for each in references if all(low - room <= x <= high + room for x in (each.train, each.test))]
    for reference in near:
        for split, value in (("train", reference.train), ("test", reference.test)):
            axis.axhline(value, color=INK, linewidth=1.1, linestyle=_DOTS[split], zorder=1.5)
    far = [
        f"{_published_name(each)}:\ntrain {each.train:.3g}, test {each.test:.3g}, beyond this panel"
        for each in references
        if each not in near
    ]
    if far:
        axis.set_ylim(low, high + 0.25 * len(far) * room)
        axis.text(0.02, 0.98, "\n".join(far), transform=axis.transAxes, va="top", fontsize="small", color=INK)
    return near


def _published_name(reference: Reference) -> str:
    return f"{reference.name} at {reference.steps} ({reference.caveat})"
