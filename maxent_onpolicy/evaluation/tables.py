"""Tables of results: numbers for CSV, and the same numbers as text for Markdown, HTML and the terminal."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rich.box
import rich.table
import rich.text
from numpy.typing import ArrayLike

from maxent_onpolicy.evaluation.files import write_atomic
from maxent_onpolicy.evaluation.modes import adjective, slug
from maxent_onpolicy.evaluation.runs import RunDirectory
from maxent_onpolicy.evaluation.scores import ENOUGH_SEEDS, Results
from maxent_onpolicy.evaluation.statistics import RESAMPLES, Estimate, aggregate, improvement_interval

# How the source of a score 0 begins that is one of random actions, and that of a score 1 that is a published return.
RANDOM, PUBLISHED = "mean return of uniformly random actions", "PPO in "
AGGREGATE_NAMES = {"iqm": "IQM", "median": "Median", "mean": "Mean", "optimality_gap": "Optimality gap"}


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are computed.

    Every interval draws from its own generator, keyed by what it is about, so that one more algorithm or environment
    leaves the intervals of the others as they are.

    Attributes:
        seed: seed of the resampling.
        resamples: bootstrap resamples an interval.
        confidence: nominal coverage.
    """

    seed: int = 0
    resamples: int = RESAMPLES
    confidence: float = 0.95

    def rng(self, *key: str) -> np.random.Generator:
        """Return the generator of the interval called ``key``."""
        return np.random.default_rng([self.seed, *(zlib.crc32(part.encode()) for part in key)])

    def mean(self, values: pd.Series, *key: str) -> Estimate:
        """Estimate the mean over runs ``[runs]`` of one environment."""
        return self.estimate("mean", values, *key)

    def estimate(self, statistic: str, values: pd.Series, *key: str) -> Estimate:
        """Estimate a statistic of runs ``[runs]`` of one environment."""
        return aggregate(
            [values.to_numpy()],
            rng=self.rng(statistic, *key),
            statistics=[statistic],
            resamples=self.resamples,
            confidence=self.confidence,
        )[statistic]

    def improvement(self, x: Sequence[ArrayLike], y: Sequence[ArrayLike], *key: str) -> Estimate:
        """Estimate the probability that a run of ``x`` ends above one of ``y``; one array ``[runs]`` an environment."""
        return improvement_interval(x, y, rng=self.rng(*key), resamples=self.resamples, confidence=self.confidence)

    @property
    def interval_name(self) -> str:
        """For example "95% interval"."""
        return f"{100 * self.confidence:g}% interval"


@dataclass(frozen=True)
class Table:
    """A table in two forms.

    Attributes:
        name: stem of its files.
        title: heading.
        caption: what the numbers mean.
        data: full precision, one number a cell, for CSV.
        text: what people read, strings only.
    """

    name: str
    title: str
    caption: str
    data: pd.DataFrame
    text: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Write ``<name>.csv`` and ``<name>.md`` into ``folder``."""
        csv = self.data.to_csv(index=False, float_format="%.10g", lineterminator="\n")
        write_atomic(folder / f"{self.name}.csv", csv)
        write_atomic(folder / f"{self.name}.md", f"**{self.title}.** {self.caption}\n\n{self.markdown()}\n")

    def markdown(self) -> str:
        """The text as a Markdown table."""
        right = [column in self.numeric_columns for column in self.text.columns]
        rows = [list(self.text.columns), ["--:" if number else "---" for number in right], *self.text.values.tolist()]
        cell = str.maketrans({"|": "\\|", "\n": " "})
        return "\n".join(f"| {' | '.join(str(value).translate(cell) for value in row)} |" for row in rows)

    @property
    def numeric_columns(self) -> list[str]:
        """Columns of ``text`` to align at the right: every cell begins like a number."""
        return [
            str(column)
            for column in self.text.columns
            if len(self.text) and self.text[column].map(lambda value: str(value)[:1] in "+-–.[0123456789").all()
        ]


# --- results ---------------------------------------------------------------------------------------------------------


def summary_table(results: Results, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Results at a glance, as text that fits a terminal of 80 columns; :func:`summary_caption` explains it."""
    bootstrap = bootstrap or Bootstrap()
    mode = results.modes[0]
    rows = []
    for env_id, label in _pairs(results, mode):
        estimate = bootstrap.mean(results.final(label, env_id, mode), label, env_id, mode, "return")
        value, interval = estimate_parts(estimate)
        length = results.final(label, env_id, mode, "length").mean()
        speed = float(np.mean([steps_per_second(run) for run in _runs(results, label, env_id)]))
        rows.append((env_id, label, str(results.seeds(label, env_id)), value, interval, number(length), number(speed)))
    columns = ["Environment", "Algorithm", "Seeds", "Return", bootstrap.interval_name, "Length"]
    return pd.DataFrame(rows, columns=[*columns, f"{_steps(results)}/s"])


def summary_renderable(results: Results, bootstrap: Bootstrap | None = None) -> rich.table.Table:
    """:func:`summary_table` for ``rich`` to print; long names are folded, never cut off."""
    frame = summary_table(results, bootstrap)
    shown = rich.table.Table(
        box=rich.box.SIMPLE_HEAD, show_edge=False, padding=0, caption=summary_caption(results), caption_justify="left"
    )
    for column in frame.columns:
        name = column in ("Environment", "Algorithm")
        shown.add_column(column, justify="left" if name else "right", overflow="fold", no_wrap=not name)
    repeated = frame["Environment"].duplicated()
    for again, row in zip(repeated, frame.itertuples(index=False), strict=True):
        # cells are Text because "[" opens markup in a string
        shown.add_row(*(rich.text.Text(cell) for cell in ("" if again else row[0], *row[1:])))
    return shown


def summary_caption(results: Results) -> str:
    """One sentence on what :func:`summary_table` shows, and how far to trust it."""
    return f"Final {adjective(results.modes[0])} return in raw reward, mean over seeds. {seeds_statement(results)}"


def seeds_statement(results: Results) -> str:
    """How many seeds stand behind the numbers, and that fewer than ten are preliminary."""
    counts = sorted({results.seeds(run.label, run.env_id) for run in results.used})
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    noun = "seed" if counts[-1] == 1 else "seeds"
    statement = f"{span} {noun} for each algorithm and environment"
    return f"Preliminary: {statement}, fewer than {ENOUGH_SEEDS}." if results.preliminary else f"{statement}."


def environment_table(results: Results, bootstrap: Bootstrap) -> Table:
    """Final return and episode length, mean over seeds with interval, for every environment, mode and algorithm."""
    data, text = [], []
    for env_id in results.env_ids:
        for mode, label in product(results.modes, results.labels):
            returns, lengths = (results.final(label, env_id, mode, column) for column in ("return", "length"))
            if not len(returns):
                continue
            key = (label, env_id, mode)
            found, middle = (bootstrap.estimate(name, returns, *key, "return") for name in ("mean", "iqm"))
            length = bootstrap.mean(lengths, *key, "length")
            spread = float(returns.std(ddof=1)) if len(returns) > 1 else nan
            row = {"environment": env_id, "mode": mode, "algorithm": label, "seeds": len(returns)}
            row |= estimate_columns("return", found)
            row |= {"return_sd": spread, "return_min": returns.min(), "return_max": returns.max()}
            row |= estimate_columns("return_iqm", middle)
            data.append(row | estimate_columns("length", length))
            text.append(
                {
                    "Environment": env_id,
                    "Mode": mode,
                    "Algorithm": label,
                    "Seeds": str(len(returns)),
                    "Return": estimate_text(found),
                    "IQM": estimate_text(middle),
                    "SD": number(spread),
                    "Length": estimate_text(length),
                }
            )
    caption = (
        f"Return (raw reward) and episode length of the last checkpoint: mean over seeds [{bootstrap.interval_name}], "
        "mean of the middle half of the seeds (IQM), and the standard deviation between seeds. Rewarding entropy can "
        "change how long episodes last, so read the length beside the return."
    )
    return Table("environments", "Final performance by environment", caption, pd.DataFrame(data), pd.DataFrame(text))


def aggregate_table(results: Results, bootstrap: Bootstrap) -> Table | None:
    """IQM, median, mean and optimality gap of normalised scores; ``None`` where no environment can be aggregated."""
    data, text, covered = [], [], []
    for mode in results.modes:
        labels, env_ids = results.comparable(mode)
        covered += [env_id for env_id in env_ids if env_id not in covered]
        for label in labels:
            scores = results.final_scores(label, env_ids, mode)
            found = aggregate(
                scores,
                rng=bootstrap.rng("aggregate", label, mode),
                resamples=bootstrap.resamples,
                confidence=bootstrap.confidence,
            )
            runs = sum(len(task) for task in scores)
            row: dict[str, Any] = {"algorithm": label, "mode": mode, "environments": len(env_ids), "runs": runs}
            shown = {"Algorithm": label, "Mode": mode, "Runs": str(runs)}
            for name, estimate in found.items():
                row |= estimate_columns(name, estimate)
                shown[AGGREGATE_NAMES[name]] = estimate_text(estimate)
            data.append(row)
            text.append(shown)
    if not data:
        return None
    ranges = [results.ranges[env_id] for env_id in covered]
    usual = all(r.low_source.startswith(RANDOM) and r.high_source.startswith(PUBLISHED) for r in ranges)
    scale = "0 is the return of random actions, 1 the published return" if usual else "0 and 1 are the two returns"
    caption = (
        f"Final scores over {', '.join(covered)} [stratified-bootstrap {bootstrap.interval_name}]. {scale} in the "
        "table of score ranges. Higher is better, but for the optimality gap: the mean shortfall below 1."
    )
    return Table("aggregates", "Aggregate scores", caption, pd.DataFrame(data), pd.DataFrame(text))


def improvement_table(results: Results, bootstrap: Bootstrap) -> Table | None:
    """Probability of improvement of every pair of algorithms; ``None`` with one algorithm or no shared environment."""
    data, found_text = [], []
    for mode in results.modes:
        for x, y in combinations(results.labels, 2):
            env_ids = results.shared_env_ids(mode, labels=(x, y))
            if not env_ids:
                continue
            returns = [[results.final(label, env_id, mode).to_numpy() for env_id in env_ids] for label in (x, y)]
            found = bootstrap.improvement(returns[0], returns[1], "improvement", x, y, mode)
            keys = {"x": x, "y": y, "mode": mode, "environments": len(env_ids)}
            data.append(keys | estimate_columns("probability", found))
            found_text.append(estimate_text(found))
    if not data:
        return None
    frame = pd.DataFrame(data)
    text = pd.DataFrame(
        {
            "X": frame["x"],
            "Y": frame["y"],
            "Mode": frame["mode"],
            "Environments": frame["environments"].astype(str),
            "P(X > Y)": found_text,
        }
    )
    caption = (
        f"Chance that a run of X ends with a higher return than a run of Y [{bootstrap.interval_name}], averaged over "
        "environments; ties count half. An interval that contains 0.5 leaves open which is better."
    )
    return Table("improvement", "Probability of improvement", caption, frame, text)


def cost_table(results: Results) -> Table:
    """Wall time and environment steps a second, mean over seeds."""
    data, text = [], []
    for env_id, label in _pairs(results, *results.modes):
        runs = _runs(results, label, env_id)
        seconds = np.array([float(run.status["wall_seconds"] or nan) for run in runs])
        speed = np.array([steps_per_second(run) for run in runs])
        steps = np.array([run.status["timesteps"] for run in runs])
        data.append(
            {
                "environment": env_id,
                "algorithm": label,
                "seeds": len(runs),
                "timesteps": steps.mean(),
                "wall_seconds": seconds.mean(),
                "wall_seconds_min": seconds.min(),
                "wall_seconds_max": seconds.max(),
                "steps_per_second": speed.mean(),
            }
        )
        text.append(
            {
                "Environment": env_id,
                "Algorithm": label,
                "Seeds": str(len(runs)),
                _steps(results): number(steps.mean()),
                "Wall time": duration(seconds.mean()),
                "Shortest – longest": f"{duration(seconds.min())} – {duration(seconds.max())}",
                f"{_steps(results)}/s": number(speed.mean()),
            }
        )
    caption = (
        "Per run, mean over seeds, evaluations included. Runs of one suite may share a machine, so compare these times "
        "with each other only."
    )
    return Table("cost", "Wall time", caption, pd.DataFrame(data), pd.DataFrame(text))


def run_table(results: Results) -> Table:
    """Every single run that is used, with what it ended at."""
    data, text = [], []
    for run in results.used:
        row: dict[str, Any] = {"algorithm": run.label, "environment": run.env_id, "seed": run.seed}
        shown = {"Algorithm": run.label, "Environment": run.env_id, "Seed": str(run.seed)}
        row["timesteps"] = run.status["timesteps"]
        shown[_steps(results)] = f"{run.status['timesteps']:,}"
        for mode in results.modes:
            for column in ("return", "length"):
                value = results.final(run.label, run.env_id, mode, column).get(run.seed, nan)
                row[f"{slug(mode)}_{column}"] = value
                shown[f"{column.capitalize()}, {mode}"] = number(value)
        row |= {"wall_seconds": run.status["wall_seconds"], "attempts": run.status["attempts"]}
        shown |= {"Wall time": duration(run.status["wall_seconds"]), "Attempts": str(run.status["attempts"])}
        data.append(row)
        text.append(shown)
    caption = "One row a run: means over the evaluation episodes of its last checkpoint."
    return Table("runs", "Single runs", caption, pd.DataFrame(data), pd.DataFrame(text))


def problem_table(results: Results) -> Table | None:
    """Runs that are not used, and why; ``None`` if there are none."""
    if not results.problems:
        return None
    frame = pd.DataFrame(results.problems)
    caption = "These runs enter no table, figure or number of this report."
    return Table("problems", "Runs left out", caption, frame, frame.rename(columns=str.capitalize))


# --- text ------------------------------------------------------------------------------------------------------------


def number(value: float, *others: float) -> str:
    """Return ``value`` with about three significant digits; ``others`` are to be shown with as many decimals."""
    if not isfinite(value):
        return "–"
    size = max(abs(each) for each in (value, *others) if isfinite(each))
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 3
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"  # adding 0.0 turns -0.0 into 0.0


def estimate_parts(estimate: Estimate) -> tuple[str, str]:
    """Return the value and its interval as text, with equal decimals."""
    value, low, high = estimate
    interval = f"[{number(low, *estimate)}, {number(high, *estimate)}]" if isfinite(low) else "–"
    return number(value, *estimate), interval


def estimate_text(estimate: Estimate) -> str:
    """Return for example "1,443 [1,397, 1,489]"; the value alone where there is no interval."""
    value, interval = estimate_parts(estimate)
    return value if interval == "–" else f"{value} {interval}"


def duration(seconds: float | None) -> str:
    """Return a time such as "45 s", "3 min 20 s" or "2 h 05 min"."""
    if seconds is None or not isfinite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def steps_per_second(run: RunDirectory) -> float:
    """Environment steps a second of wall time, evaluations included; NaN where the time is unknown."""
    seconds = run.status["wall_seconds"]
    return float(run.status["timesteps"] / seconds) if seconds else nan


def estimate_columns(name: str, estimate: Estimate) -> dict[str, float]:
    """Return the value and its interval as columns for CSV."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _steps(results: Results) -> str:
    return results.step_name.rpartition(" ")[2].capitalize()


def _pairs(results: Results, *modes: str) -> Iterable[tuple[str, str]]:
    """Environment and label of all used runs with an evaluation in one of ``modes``."""
    for env_id in results.env_ids:
        for label in results.labels:
            if any(len(results.final(label, env_id, mode)) for mode in modes):
                yield env_id, label


def _runs(results: Results, label: str, env_id: str) -> list[RunDirectory]:
    return [run for run in results.used if (run.label, run.env_id) == (label, env_id)]
