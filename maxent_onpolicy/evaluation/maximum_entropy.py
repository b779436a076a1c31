"""Does maximum entropy help, and where: PPO and TRPO against what adds entropy to them, environment by environment."""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from maxent_onpolicy.evaluation.drawing import COLOURS, INK, WIDTH, Plot, style, wrapped
from maxent_onpolicy.evaluation.modes import adjective, policy_words
from maxent_onpolicy.evaluation.scores import Results
from maxent_onpolicy.evaluation.statistics import Estimate
from maxent_onpolicy.evaluation.tables import Bootstrap, Table, estimate_columns, estimate_text

#: Names of algorithms: with entropy, and what it adds it to.
BASES = {"MaxEntPPO": "PPO", "MaxEntTRPO": "TRPO"}
ALL = "all"
_COLUMNS = 3  # of panels
_ABOVE, _BELOW, _OPEN = "helps", "hurts", "open"
_FEWEST = 5  # runs of each; fewer lie apart by chance too often, and resampling them does not show it


def maximum_entropy_table(results: Results, bootstrap: Bootstrap) -> Table | None:
    """Probability that a run with entropy ends above one without, for every environment and over all.

    ``None`` where results hold no algorithm with entropy together with the one that it extends.
    """

    def final(label: str, env_id: str, mode: str) -> NDArray[np.float64]:
        return results.final(label, env_id, mode).to_numpy()

    caption = (
        f"Chance that a run of X ends with a higher return than a run of Y, which it adds entropy to "
        f"[{bootstrap.interval_name}], by how the policy is evaluated; ties count half. Entropy {_ABOVE}, or {_BELOW}, "
        f"where the interval does not contain 0.5 and each has at least {_FEWEST} runs of every environment; where "
        "nothing is said it is open. Of many intervals some miss what they estimate, more of those of few seeds."
    )
    return _table(results, bootstrap, final, "maximum entropy", "What entropy does", caption)


def while_learning_table(results: Results, bootstrap: Bootstrap) -> Table | None:
    """As :func:`maximum_entropy_table`, of a run's mean return over its training instead of its last one.

    The mean is the area under the learning curve divided by its length. ``None`` also where no run was evaluated
    more than once.
    """

    def mean(label: str, env_id: str, mode: str) -> NDArray[np.float64]:
        curves = results.curves(label, env_id, mode)
        if curves is None or len(curves.timesteps) < 2:
            return np.empty(0)
        between = (curves.values[:, 1:] + curves.values[:, :-1]) / 2
        return np.asarray(np.average(between, axis=1, weights=np.diff(curves.timesteps)))

    caption = (
        f"Chance that a run of X has a higher mean return over its whole training (the area under its learning curve) "
        f"than a run of Y [{bootstrap.interval_name}]: who learns sooner, whoever is ahead at the end. It "
        f"{_ABOVE} or {_BELOW} by the rule of final returns."
    )
    return _table(results, bootstrap, mean, "while learning", "What entropy does while learning", caption)


def _table(
    results: Results,
    bootstrap: Bootstrap,
    value: Callable[[str, str, str], NDArray[np.float64]],
    key: str,
    title: str,
    caption: str,
) -> Table | None:
    """Compare pairs by a number of each run: ``value(label, env_id, mode)`` has that of every run, or of none."""
    data = []
    for mode in results.modes:
        for x, y in _pairs(results):
            env_ids = results.shared_env_ids(mode, labels=(x, y))
            found = {env_id: (value(x, env_id, mode), value(y, env_id, mode)) for env_id in env_ids}
            known = {env_id: pair for env_id, pair in found.items() if all(map(len, pair))}
            groups = {env_id: [pair] for env_id, pair in known.items()}
            groups |= {ALL: list(known.values())} if len(known) > 1 else {}
            for name, chosen in groups.items():
                xs, ys = (list(values) for values in zip(*chosen, strict=True))
                estimate = bootstrap.improvement(xs, ys, key, x, y, mode, name)
                counts = {"x_runs": sum(map(len, xs)), "y_runs": sum(map(len, ys))}
                row = {"x": x, "y": y, "mode": mode, "environment": name, **counts}
                verdict = _verdict(estimate, min(map(len, [*xs, *ys])))
                data.append(row | estimate_columns("probability", estimate) | {"entropy": verdict, "text": estimate})
    if not data:
        return None
    frame = pd.DataFrame(data)
    text = _side_by_side(frame.assign(text=frame.pop("text").map(estimate_text)))
    return Table(key.replace(" ", "_"), title, caption, frame, text)


def _side_by_side(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each pair and environment, a column for each mode; "all" says of how many where a pair lacks some."""
    named = rows.groupby(["x", "y"])["environment"].transform("nunique")
    fewer = (rows["environment"] == ALL) & (named < rows["environment"].nunique())
    rows = rows.assign(environment=rows["environment"].mask(fewer, f"{ALL} " + (named - 1).astype(str)))
    cells = rows["text"] + rows["entropy"].map(lambda verdict: "" if verdict == _OPEN else f" {verdict}")
    wide = rows.assign(cell=cells).pivot(index=["x", "y", "environment"], columns="mode", values="cell")
    order = pd.MultiIndex.from_frame(rows[["x", "y", "environment"]].drop_duplicates())
    modes = list(dict.fromkeys(rows["mode"]))
    titles = {"x": "X", "y": "Y", "environment": "Environment"} | {mode: adjective(mode).capitalize() for mode in modes}
    return wide.loc[order, modes].fillna("").reset_index().rename(columns=titles).rename_axis(columns=None)


def _verdict(found: Estimate, runs: int) -> str:
    if runs < _FEWEST:
        return _OPEN
    return _ABOVE if found.low > 0.5 else _BELOW if found.high < 0.5 else _OPEN


def maximum_entropy_plot(table: pd.DataFrame, bootstrap: Bootstrap) -> Plot:
    """A panel for each pair, a bar an environment; ``table`` is the data of :func:`maximum_entropy_table`."""
    mode = str(table["mode"].iloc[0])
    pairs = list(table[table["mode"] == mode].groupby(["x", "y"], sort=False))
    env_ids = [env_id for env_id in dict.fromkeys(table["environment"]) if env_id != ALL] + [ALL]
    columns = min(_COLUMNS, len(pairs))
    rows = ceil(len(pairs) / columns)
    with style():
        size = (WIDTH, 0.4 + rows * (0.55 + 0.22 * len(env_ids)))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for axis, ((x, y), group) in zip(axes, pairs, strict=False):
            axis.set_title(wrapped(f"{x} > {y}", 72 // columns))
            _draw_pair(axis, group.set_index("environment"), env_ids)
        for axis in axes[len(pairs) :]:
            axis.remove()
        axes[0].set_ylim(len(env_ids) - 0.4, -0.6)
        figure.supxlabel("Probability that a run of the first ends above a run of the second", fontsize=8)
    caption = (
        f"Probability of improvement by entropy, {policy_words(mode)}, with {bootstrap.interval_name}s: coloured where "
        f"the interval does not contain 0.5 (dashed) and each has at least {_FEWEST} runs, blue for better and orange "
        "for worse; grey leaves open which."
    )
    return Plot("maximum_entropy", "What entropy does", caption, figure)


def _draw_pair(axis: Axes, rows: pd.DataFrame, env_ids: list[str]) -> None:
    axis.axvline(0.5, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    colours = {_ABOVE: COLOURS[0], _BELOW: COLOURS[1], _OPEN: "#a9b1ba"}
    columns = ["probability", "probability_low", "probability_high"]
    for place, env_id in enumerate(env_ids):
        if env_id in rows.index:
            value, low, high = rows.loc[env_id, columns].to_numpy(dtype=np.float64)
            axis.plot([low, high], [place, place], color=colours[str(rows.loc[env_id, "entropy"])], linewidth=5)
            axis.plot(value, place, marker="|", markersize=10, markeredgewidth=2, color=INK)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axis.set_yticks(range(len(env_ids)), env_ids)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelbottom=True)


def _pairs(results: Results) -> list[tuple[str, str]]:
    """Labels with entropy, each beside what it extends: that whose settings differ least, or all of these."""
    configs = {run.label: run.config for run in results.used}
    found = []
    for x in results.labels:
        bases = [y for y in results.labels if BASES.get(configs[x]["algorithm"]) == configs[y]["algorithm"]]
        names = {name for y in bases for name in configs[y]["hyperparameters"]} - {"policy_kwargs"}
        apart = {y: _apart(configs[x], configs[y], names) for y in bases}
        found += [(x, y) for y in bases if apart[y] == min(apart.values())]
    return found


def _apart(one: Mapping[str, Any], other: Mapping[str, Any], names: set[str]) -> int:
    """In how many settings two runs differ: of the policy, and of those that what has no entropy knows."""
    given = [{name: config["hyperparameters"].get(name) for name in names} for config in (one, other)]
    return _differences(given[0], given[1]) + _differences(_policy(one), _policy(other))


def _policy(config: Mapping[str, Any]) -> dict[str, Any]:
    given = config["hyperparameters"].get("policy_kwargs") or {}
    return {name: value for name, value in given.items() if name != "entropy_net_arch"}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    return sum(one.get(name) != other.get(name) for name in {*one, *other})
