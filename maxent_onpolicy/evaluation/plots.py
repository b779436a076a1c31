"""Figures of results: PNG and SVG, the same bytes for the same runs."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from maxent_onpolicy.evaluation.counterparts import FAMILIES, family
from maxent_onpolicy.evaluation.drawing import (
    COLOURS,
    INK,
    WIDTH,
    Plot,
    add_legend,
    band_of,
    draw_band,
    label_axes,
    looks_of,
    make_grid,
    make_panels,
    name_rows,
    style,
    wrapped,
)
from maxent_onpolicy.evaluation.matrix import MANY
from maxent_onpolicy.evaluation.modes import adjective, policy_words, slug, split_of
from maxent_onpolicy.evaluation.scores import Results
from maxent_onpolicy.evaluation.statistics import BAND_RESAMPLES, Band, performance_profile
from maxent_onpolicy.evaluation.tables import AGGREGATE_NAMES, Bootstrap

#: What the diagnostic figure shows: column of train.csv and title.
DIAGNOSTICS = (
    ("rollout/ep_rew_mean", "Return while training"),
    ("rollout/ep_len_mean", "Episode length"),
    ("train/explained_variance", "Explained variance (value)"),
    ("train/entropy", "Policy entropy"),
    ("train/entropy_explained_variance", "Explained variance (entropy)"),
    ("train/entropy_advantage_share", "Entropy share of advantage"),
    ("train/tau", "Temperature τ"),
    ("train/std", "Action std"),
    ("train/clipped_actions", "Clipped actions (share)"),
)
_FAR_APART = 20  # times as long as the shortest runs: then time is drawn on a logarithmic scale
_SINGLES = ", and every single run as a thin line"
_POINTS = 40  # of a diagnostic curve; more cannot be seen in a panel this small


def learning_curves(results: Results, mode: str, bootstrap: Bootstrap) -> Plot:
    """Return against environment steps: mean with band, single runs as thin lines.

    There is a panel for each environment, or, of many algorithms, a row with a panel for each family of them
    (``counterparts.family``) on one scale. Single runs are drawn where no more than a few algorithms share a panel.
    ``mode`` is one of ``results.modes``; ``bootstrap`` says how the bands are computed.
    """
    env_ids = [env_id for env_id in results.env_ids if any(len(results.final(x, env_id, mode)) for x in results.labels)]
    families = _families(results)
    singles = max(map(len, families.values())) < MANY  # of more they could not be told apart, and take megabytes
    looks = looks_of(results)
    with style():
        figure, axes = make_panels(len(env_ids)) if len(families) == 1 else make_grid(len(env_ids), len(families))
        for axis, (env_id, (name, labels)) in zip(axes, product(env_ids, families.items()), strict=True):
            axis.set_title(name or env_id)
            for label in labels:
                curves = results.curves(label, env_id, mode) if len(results.final(label, env_id, mode)) else None
                if curves is None:
                    continue
                key = ("curve", label, env_id, mode)
                band = band_of(curves.values[:, None, :], curves.timesteps, bootstrap, key, "mean")
                draw_band(axis, band, looks[label], curves.values if singles else ())
        if len(families) > 1:
            axes = name_rows(axes, env_ids)
        label_axes(figure, axes, results.step_name, "Return")
        add_legend(figure, results)
    caption = (
        f"Return of {adjective(mode)} evaluation episodes (raw reward) while training: mean over seeds, pointwise "
        f"bootstrap {bootstrap.interval_name} as a band{_SINGLES if singles else ''}."
    )
    title = f"Learning curves, {policy_words(mode)}"
    return Plot(f"learning_curves_{slug(mode)}", title, caption, figure)


def aggregate_plot(table: pd.DataFrame, results: Results, bootstrap: Bootstrap) -> Plot:
    """Interval plot of the aggregates of the leading mode; ``table`` is the data of ``tables.aggregate_table``."""
    mode = str(table["mode"].iloc[0])
    rows = table[table["mode"] == mode].set_index("algorithm")
    with style():
        figure = Figure(figsize=(WIDTH, 0.75 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots(1, len(AGGREGATE_NAMES), sharey=True)
        for axis, (name, title) in zip(axes, AGGREGATE_NAMES.items(), strict=True):
            axis.set_title(title)
            _intervals(axis, rows, name, results)
        axes[0].set_yticks(range(len(rows)), [wrapped(label, 24) for label in rows.index])
        figure.supxlabel("Normalised score", fontsize=8)
    caption = (
        f"Aggregate scores of the {policy_words(mode)} over {_over(results, mode)} with stratified-bootstrap "
        f"{bootstrap.interval_name}s. Higher is better, but for the optimality gap, where lower is."
    )
    return Plot("aggregates", "Aggregate scores", caption, figure)


def improvement_plot(table: pd.DataFrame, bootstrap: Bootstrap) -> Plot:
    """Interval plot of the leading mode's probabilities; ``table`` is the data of ``tables.improvement_table``."""
    mode = str(table["mode"].iloc[0])
    rows = table[table["mode"] == mode].reset_index(drop=True)
    names = [wrapped(f"{row.x} > {row.y}", 44) for row in rows.itertuples()]
    lines = sum(name.count("\n") + 1 for name in names)
    with style():
        figure = Figure(figsize=(WIDTH, 0.75 + 0.25 * lines), layout="constrained")
        axis = figure.subplots()
        axis.axvline(0.5, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        numbers = rows[["probability", "probability_low", "probability_high"]].to_numpy(dtype=np.float64)
        for place, (value, low, high) in enumerate(numbers):
            axis.plot([low, high], [place, place], color=COLOURS[0], linewidth=5)
            axis.plot(value, place, marker="|", markersize=11, markeredgewidth=2, color=INK)
        axis.set(xlim=(-0.02, 1.02), xlabel="Probability that a run of the first ends above a run of the second")
        axis.set_yticks(range(len(rows)), names)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
    caption = (
        f"Probability of improvement of the {policy_words(mode)} with {bootstrap.interval_name}s. An interval that "
        "contains 0.5 (dashed) leaves open which of the two is better."
    )
    return Plot("improvement", "Probability of improvement", caption, figure)


def profile_plot(results: Results, mode: str, bootstrap: Bootstrap) -> Plot | None:
    """Performance profile of normalised final scores; ``None`` where no environment can be aggregated."""
    labels, env_ids = results.comparable(mode)
    if not env_ids:
        return None
    scores = {label: results.final_scores(label, env_ids, mode) for label in labels}
    every = np.concatenate([task for tasks in scores.values() for task in tasks])
    thresholds = np.linspace(min(0.0, every.min()), max(1.0, every.max()) * 1.02, 201)
    with style():
        figure = Figure(figsize=(0.75 * WIDTH, 3.0), layout="constrained")
        axis = figure.subplots()
        looks = looks_of(results)
        for label in labels:
            look, rng = looks[label], bootstrap.rng("profile", label, mode)
            size = min(bootstrap.resamples, BAND_RESAMPLES)
            held = bootstrap.confidence
            draw_band(
                axis, performance_profile(scores[label], thresholds, rng=rng, resamples=size, confidence=held), look
            )
        axis.set(xlabel="Normalised score τ", ylabel="Share of runs with score > τ", ylim=(-0.02, 1.02))
        axis.margins(x=0.01)
        add_legend(figure, results, labels=labels)
    caption = (
        f"Share of runs of the {policy_words(mode)} that end above a score, over {_over(results, mode)}, with "
        f"pointwise bootstrap {bootstrap.interval_name}. Further up and right is better; where curves cross, neither "
        "is better throughout."
    )
    return Plot("performance_profile", "Performance profile", caption, figure)


def efficiency_plots(results: Results, mode: str, bootstrap: Bootstrap) -> list[Plot]:
    """IQM of normalised scores against environment steps and against wall time.

    The first is missing where no environment can be aggregated, and with it the second, which is also missing
    where no run logged times.
    """
    bands = _score_bands(results, mode, bootstrap)
    if not bands:
        return []
    caption = (
        f"Interquartile mean of {_whose_scores(mode)} while training, over "
        f"{_over(results, mode)}, with pointwise {bootstrap.interval_name} from resampling whole runs."
    )
    figure = _efficiency_figure(results, bands, results.step_name)
    by_steps = Plot("sample_efficiency", "Sample efficiency", caption, figure)
    by_time = _wall_clock_plot(results, mode, bands)
    return [by_steps] if by_time is None else [by_steps, by_time]


def diagnostics_plot(results: Results, env_id: str) -> Plot | None:
    """Quantities logged while training on one environment; ``None`` if the runs logged none of them."""
    frames = {
        label: [run.read_train() for run in results.used if (run.label, run.env_id) == (label, env_id)]
        for label in results.labels
    }
    logged = {column for each in frames.values() for frame in each for column in frame.columns[frame.notna().any()]}
    shown = [(column, title) for column, title in DIAGNOSTICS if column in logged]
    if not shown:
        return None
    singles = len(results.labels) < MANY
    with style():
        figure, axes = make_panels(len(shown), height=1.6)
        for axis, (column, title) in zip(axes, shown, strict=True):
            axis.set_title(title)
            for label, look in looks_of(results).items():
                thinned = thin([frame for frame in frames[label] if column in frame], column)
                if thinned is not None:
                    grid, values = thinned
                    mean = Band(grid, values.mean(axis=0), *(np.full((2, len(grid)), np.nan)))
                    draw_band(axis, mean, look, values if singles else ())
        label_axes(figure, axes, results.step_name, "")
        add_legend(figure, results)
    caption = f"What the runs on {env_id} logged while training: mean over seeds{_SINGLES if singles else ''}."
    return Plot(f"diagnostics_{_file_name(env_id)}", f"Training on {env_id}", caption, figure)


def mean_minutes(frames: Sequence[pd.DataFrame], timesteps: np.ndarray) -> np.ndarray | None:
    """Return the wall time by which runs had made ``timesteps``, the mean over runs.

    Args:
        frames: contents of ``train.csv``.
        timesteps: ``[points]``; between two rows a run's time is interpolated, before the first and after the last it
            goes on at the mean speed up to there.

    Returns:
        Minutes ``[points]``; ``None`` if a run logged no times.
    """
    minutes = []
    for frame in frames:
        rows = frame[["timesteps", "wall_seconds"]].apply(pd.to_numeric, errors="coerce").dropna().to_numpy(float)
        if not len(rows) or rows[-1, 0] <= 0:
            return None
        steps, seconds = np.concatenate([np.zeros((1, 2)), rows]).T
        beyond = seconds[-1] * np.maximum(timesteps / steps[-1], 1.0)
        minutes.append(np.where(timesteps > steps[-1], beyond, np.interp(timesteps, steps, seconds)) / 60)
    return np.mean(minutes, axis=0) if minutes else None


def thin(frames: Sequence[pd.DataFrame], column: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Reduce one logged quantity of several runs to curves of few points on common timesteps.

    Rows are averaged in consecutive groups, and the averages interpolated.

    Args:
        frames: contents of ``train.csv``; rows in which the quantity is missing or not finite are skipped.
        column: the quantity.

    Returns:
        Timesteps ``[points]`` and values ``[runs, points]``; ``None`` if no run has the quantity or the runs do not
        overlap.
    """
    traces = []
    for frame in frames:
        rows = frame[["timesteps", column]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows):
            traces.append(np.stack([group.mean(axis=0) for group in np.array_split(rows, min(len(rows), _POINTS))]))
    if not traces:
        return None
    first, last = max(trace[0, 0] for trace in traces), min(trace[-1, 0] for trace in traces)
    if first > last:
        return None
    grid = np.linspace(first, last, max(len(trace) for trace in traces))
    return grid, np.stack([np.interp(grid, trace[:, 0], trace[:, 1]) for trace in traces])


# --- parts -----------------------------------------------------------------------------------------------------------


def _families(results: Results) -> dict[str, list[str]]:
    """Labels by the name of their family, where there are many of several families; otherwise all under no name."""
    of = {run.label: family(run.config["algorithm"]) for run in results.used}
    names = [name for name in FAMILIES if name in of.values()] + sorted(set(of.values()) - set(FAMILIES))
    if len(results.labels) < MANY or len(names) == 1:
        return {"": list(results.labels)}
    return {name: [label for label in results.labels if of[label] == name] for name in names}


def _wall_clock_plot(results: Results, mode: str, bands: dict[str, Band]) -> Plot | None:
    """The bands against wall time; ``None`` if no run logged times."""
    _, env_ids = results.comparable(mode)
    timed = {}
    for label, band in bands.items():
        runs = [run for run in results.used if run.label == label and run.env_id in env_ids]
        minutes = mean_minutes([run.read_train() for run in runs], band.x)
        if minutes is not None:
            timed[label] = band._replace(x=minutes)
    if not timed:
        return None
    longest = [band.x[-1] for band in timed.values()]
    far_apart = max(longest) > _FAR_APART * min(longest)
    if far_apart:  # there is no place for the beginning, at no time at all
        timed = {label: Band(*(part[band.x > 0] for part in band)) for label, band in timed.items()}
    figure = _efficiency_figure(results, timed, "Minutes of a run, mean over runs", logarithmic=far_apart)
    caption = (
        f"Interquartile mean of {_whose_scores(mode)}, as above, against the wall time that a run "
        "had taken by then, evaluations included: the mean over all runs and environments. Runs of one suite may share "
        "a machine, so compare these times with each other only."
    )
    return Plot("wall_clock_efficiency", "Wall-clock efficiency", caption, figure)


def _score_bands(results: Results, mode: str, bootstrap: Bootstrap) -> dict[str, Band]:
    """IQM of normalised scores with its band for each algorithm that has curves."""
    labels, env_ids = results.comparable(mode)
    bands = {}
    for label in labels:
        found = results.score_curves(label, env_ids, mode)
        if found is not None:
            timesteps, values = found
            bands[label] = band_of(values, timesteps, bootstrap, ("efficiency", label, mode), "iqm")
    return bands


def _efficiency_figure(results: Results, bands: dict[str, Band], x: str, *, logarithmic: bool = False) -> Figure:
    with style():
        figure = Figure(figsize=(0.75 * WIDTH, 3.0), layout="constrained")
        axis = figure.subplots()
        for label, look in looks_of(results).items():
            if label in bands:
                draw_band(axis, bands[label], look)
        label_axes(figure, [axis], x, "IQM of normalised scores")
        if logarithmic:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
            axis.xaxis.set_minor_formatter(NullFormatter())
        add_legend(figure, results, labels=list(bands))
    return figure


def _over(results: Results, mode: str) -> str:
    """Which environments an aggregate is over, and which algorithms it leaves out."""
    labels, env_ids = results.comparable(mode)
    over = "all environments" if env_ids == results.env_ids else ", ".join(env_ids)
    absent = [label for label in results.labels if label not in labels]
    return f"{over} (without {', '.join(absent)}, which are not run on all of them)" if absent else over


def _whose_scores(mode: str) -> str:
    policy, scores = mode.partition(", ")[0], f"{split_of(mode)} scores".strip()
    return f"the {policy} policy's normalised {scores}"


def _intervals(axis: Axes, rows: pd.DataFrame, name: str, results: Results) -> None:
    looks = looks_of(results)
    for place, (label, row) in enumerate(rows.iterrows()):
        look = looks[str(label)]
        axis.plot([row[f"{name}_low"], row[f"{name}_high"]], [place, place], color=look.colour, linewidth=6)
        axis.plot(row[name], place, marker="|", markersize=12, markeredgewidth=2, color=INK)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.xaxis.set_major_locator(MaxNLocator(3))
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.12)


def _file_name(env_id: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in env_id)
