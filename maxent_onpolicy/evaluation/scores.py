"""From run directories to score arrays.

Definitions:
    *Checkpoint*: the evaluation of a run after a number of training steps, in a mode: ``deterministic`` (the
    most likely action) or ``stochastic`` (a sample). The modes are never mixed. Where runs are evaluated on a
    test distribution as well, a mode says that too (:mod:`~maxent_onpolicy.evaluation.modes`).
    *Return of a checkpoint*: the mean over its evaluation episodes of the undiscounted raw reward.
    *Final return* of a run: the return of its last checkpoint; no maximum over training and no smoothing.
    *Score*: ``(return - low) / (high - low)`` with the environment's fixed range, see ``data/score_ranges.json``.

Only completed runs enter. Every run that does not is named in :attr:`Results.problems`, and whatever makes runs less
comparable than they look (other numbers of seeds, checkpoints or environments) in :attr:`Results.notes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from maxent_onpolicy.env_ids import is_text
from maxent_onpolicy.evaluation.cells import read_cells
from maxent_onpolicy.evaluation.checkpoints import UnusableRun, distributions, name_modes, read_checkpoints
from maxent_onpolicy.evaluation.modes import FAMILIES, MODES, SPLITS, adjective, family
from maxent_onpolicy.evaluation.ranges import ScoreRange, load_score_ranges, normalise, resolve_ranges
from maxent_onpolicy.evaluation.runs import CorruptRun, RunDirectory, find_runs
from maxent_onpolicy.validation import check_choice

ENOUGH_SEEDS = 10  # fewer is called preliminary (Agarwal et al. 2021; Patterson et al. 2024)
_SAME_BUDGET = 0.95  # final checkpoints that differ more than by a rounded-up rollout are worth a note


class NoResultsError(ValueError):
    """A results directory without a completed run: there is nothing to report on yet."""


class Problem(NamedTuple):
    """A run that the results leave out, and why."""

    run: str
    state: str
    reason: str


class Curves(NamedTuple):
    """Values of several runs on common ``timesteps``: ``values`` is ``[runs, timesteps]``, one row a seed."""

    timesteps: NDArray[np.float64]
    values: NDArray[np.float64]
    interpolated: bool


@dataclass(frozen=True)
class Results:
    """What one results directory holds.

    Attributes:
        suite: the name of the suite, or the names.
        runs: every readable run, finished or not, sorted by label, environment and seed.
        used: the completed runs with evaluations: all that tables and figures show.
        checkpoints: a row for each used run, mode and checkpoint: ``label, env_id, seed, mode, timesteps, return,
            length, episodes``; return and length are means over episodes.
        problems: every run that is not used.
        notes: what makes the used runs less comparable.
        ranges: normalisation constants of the environments that have them.
        cells: environments of each algorithm of the suite, run or not; empty where nobody wrote them down.
    """

    suite: str
    runs: list[RunDirectory]
    used: list[RunDirectory]
    checkpoints: pd.DataFrame
    problems: list[Problem]
    notes: list[str]
    ranges: dict[str, ScoreRange]
    cells: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """Algorithms with a used run, sorted."""
        return sorted({run.label for run in self.used})

    @property
    def env_ids(self) -> list[str]:
        """Environments with a used run, sorted."""
        return sorted({run.env_id for run in self.used})

    @property
    def step_name(self) -> str:
        """What ``timesteps`` counts, as an axis says it."""
        return "Episodes" if all(map(is_text, self.env_ids)) else "Environment steps"

    @cached_property
    def modes(self) -> list[str]:
        """Evaluation modes that occur, the leading one first: test before train, deterministic before stochastic."""
        present = set(self.checkpoints["mode"])
        return [mode for mode in FAMILIES if mode in present]

    @cached_property
    def tested(self) -> list[tuple[str, str, str]]:
        """For each mode of the policy with a test split: the mode, and the names of its test and train evaluations."""
        pairs = [(mode, *(family(mode, split) for split in SPLITS)) for mode in MODES]
        return [(mode, test, train) for mode, test, train in pairs if test in self.modes]

    def distributions(self, env_id: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Keywords of an environment in every used run: those it is trained with, and those it is tested with."""
        return [distributions(run) for run in self.used if run.env_id == env_id]

    def seeds(self, label: str, env_id: str) -> int:
        """How many used runs an algorithm has on an environment."""
        return sum(run.label == label and run.env_id == env_id for run in self.used)

    @property
    def missing_cells(self) -> list[tuple[str, str]]:
        """Label and environment of each cell of the suite that has no used run."""
        cells = [(label, env_id) for label, env_ids in self.cells.items() for env_id in env_ids]
        return [cell for cell in cells if not self.seeds(*cell)]

    @property
    def fewest_seeds(self) -> int:
        """The smallest number of seeds behind any number reported."""
        return min(self.seeds(*pair) for pair in {(run.label, run.env_id) for run in self.used})

    @property
    def preliminary(self) -> bool:
        """Whether any number rests on fewer than ten seeds."""
        return self.fewest_seeds < ENOUGH_SEEDS

    def shared_env_ids(self, mode: str, *, normalised: bool = False, labels: Sequence[str] | None = None) -> list[str]:
        """Environments on which every algorithm has a run in ``mode`` (and, if asked, that have a score range).

        Args:
            mode: of evaluation.
            normalised: whether a score range is needed.
            labels: only these algorithms count; default all.
        """
        check_choice("mode", mode, FAMILIES)
        return [
            env_id
            for env_id in self.env_ids
            if all((label, env_id, mode) in self._groups for label in (self.labels if labels is None else labels))
            and (not normalised or env_id in self.ranges)
        ]

    def comparable(self, mode: str) -> tuple[list[str], list[str]]:
        """Algorithms and environments of aggregates: each of these algorithms has runs on each of these environments.

        Where not all have runs on all, as few cells as possible are left out, and rather environments than algorithms;
        one algorithm alone, of several, would be compared with none.

        Args:
            mode: of evaluation. Environments without a score range are left out.

        Returns:
            Labels and environments; both are empty where nothing can be aggregated.
        """
        check_choice("mode", mode, FAMILIES)
        known = [env_id for env_id in self.env_ids if env_id in self.ranges]
        covers = {label: frozenset(e for e in known if (label, e, mode) in self._groups) for label in self.labels}
        candidates = set(covers.values())
        for cover in covers.values():
            candidates |= {cover & other for other in candidates}
        kept = {
            chosen: [label for label, cover in covers.items() if chosen <= cover] for chosen in candidates if chosen
        }
        enough = {chosen: labels for chosen, labels in kept.items() if len(labels) >= min(2, len(self.labels))}
        if not enough:
            return [], []
        best = max(enough, key=lambda chosen: (len(chosen) * len(kept[chosen]), len(kept[chosen]), sorted(chosen)))
        return kept[best], sorted(best)

    def final(self, label: str, env_id: str, mode: str, column: str = "return") -> pd.Series:
        """Values of the last checkpoint of every run, indexed by seed; ``column`` is "return" or "length".

        Raises:
            ValueError: if ``mode`` or ``column`` is unknown.
        """
        check_choice("column", column, ("return", "length"))
        check_choice("mode", mode, FAMILIES)
        rows = self._groups.get((label, env_id, mode))
        if rows is None:
            return pd.Series(dtype=np.float64)
        return rows.drop_duplicates("seed", keep="last").set_index("seed")[column]

    def final_scores(self, label: str, env_ids: Sequence[str], mode: str) -> list[NDArray[np.float64]]:
        """Normalised final returns, one array ``[runs]`` an environment, for :mod:`~.evaluation.statistics`.

        Raises:
            ValueError: if an environment has no score range.
        """
        return [normalise(self.final(label, e, mode).to_numpy(), e, self.ranges) for e in env_ids]

    def curves(self, label: str, env_id: str, mode: str) -> Curves | None:
        """Returns of every run at common timesteps, or ``None`` where the runs' checkpoints do not overlap."""
        aligned = align(self._traces(label, env_id, mode))
        return None if aligned is None else Curves(aligned[0], aligned[1][0], aligned[2])

    def score_curves(
        self, label: str, env_ids: Sequence[str], mode: str
    ) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]] | None:
        """Common timesteps and normalised returns, one array ``[runs, timesteps]`` an environment.

        ``None`` where the checkpoints of the runs do not overlap.
        """
        traces = [self._traces(label, env_id, mode) for env_id in env_ids]
        aligned = align(*traces)
        if aligned is None:
            return None
        timesteps, values, _ = aligned
        return timesteps, [normalise(v, e, self.ranges) for v, e in zip(values, env_ids, strict=True)]

    @cached_property
    def _groups(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """Checkpoints by label, environment and mode, in the order of seeds and timesteps."""
        rows = self.checkpoints.sort_values(["seed", "timesteps"])
        return {(str(k[0]), str(k[1]), str(k[2])): group for k, group in rows.groupby(["label", "env_id", "mode"])}

    def _traces(self, label: str, env_id: str, mode: str) -> list[pd.Series]:
        check_choice("mode", mode, FAMILIES)
        rows = self._groups.get((label, env_id, mode), self.checkpoints[:0])
        return [run.set_index("timesteps")["return"] for _, run in rows.groupby("seed")]


def load_results(results_dir: Path | str) -> Results:
    """Read ``results_dir/runs``.

    An environment's score range can be set, or replaced, by a ``score_ranges.json`` in ``results_dir``, in the format
    of the packaged file.

    Raises:
        FileNotFoundError: if ``results_dir`` is no directory.
        NoResultsError: if it holds no completed run with evaluations.
        ValueError: if it is no results directory, or has a broken ``score_ranges.json`` or ``cells.json``.
    """
    results_dir = Path(results_dir)
    if results_dir.is_dir() and not (results_dir / "runs").is_dir():
        inside = sorted(path.parent.name for path in results_dir.glob("*/runs"))
        hint = f"; it holds results in {', '.join(inside)}" if inside else ""
        raise ValueError(f"`results_dir` must contain a folder `runs`, got {str(results_dir)!r}{hint}")
    runs, corrupt = find_runs(results_dir / "runs" if results_dir.is_dir() else results_dir)
    problems = [_corrupt(found, results_dir) for found in corrupt]
    used: dict[tuple[str, str, int], RunDirectory] = {}
    frames = []
    for run in runs:
        key = (run.label, run.env_id, run.seed)
        try:
            if key in used:
                raise UnusableRun("another run has the same label, environment and seed")
            frames.append(read_checkpoints(run))
            used[key] = run
        except UnusableRun as reason:
            name = f"{run.label}, {run.env_id}, seed {run.seed}"
            problems.append(Problem(name, run.status["state"], str(reason)))
    if not frames:
        reasons = "; ".join(f"{problem.run}: {problem.reason}" for problem in problems[:3])
        raise NoResultsError(
            f"`results_dir` holds no completed run with evaluations, got {str(results_dir)!r} "
            f"with {len(problems)} other run directories{f' ({reasons})' if reasons else ''}"
        )
    ranges, range_notes = resolve_ranges(
        load_score_ranges(results_dir / "score_ranges.json"), _keywords(list(used.values()))
    )
    results = Results(
        suite=", ".join(sorted({str(run.config["suite"]) for run in used.values()})),
        runs=runs,
        used=list(used.values()),
        checkpoints=name_modes(pd.concat(frames, ignore_index=True)),
        problems=problems,
        notes=range_notes,
        ranges=ranges,
        cells=read_cells(results_dir),
    )
    results.notes.extend(_notes(results))
    return results


# --- alignment -------------------------------------------------------------------------------------------------------


def align(
    *groups: Sequence[pd.Series],
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]], bool] | None:
    """Bring curves to common timesteps: all their checkpoints in the range that every one of them covers.

    A curve without a checkpoint at one of these timesteps is interpolated linearly; nothing is extrapolated.

    Args:
        groups: curves as series of values by timesteps, ascending; one group an array in the result.

    Returns:
        Timesteps ``[T]``, one array ``[curves, T]`` a group, and whether anything was interpolated; ``None`` if there
        is no common range.
    """
    traces = [trace for group in groups for trace in group]
    first, last = max(trace.index[0] for trace in traces), min(trace.index[-1] for trace in traces)
    if first > last:
        return None
    every = np.unique(np.concatenate([trace.index.to_numpy() for trace in traces]))
    timesteps = every[(every >= first) & (every <= last)].astype(np.float64)
    values = [
        np.stack([np.interp(timesteps, trace.index.to_numpy(), trace.to_numpy()) for trace in group])
        for group in groups
    ]
    exact = all(np.isin(timesteps, trace.index.to_numpy()).all() for trace in traces)
    return timesteps, values, not exact


# --- what the runs are -----------------------------------------------------------------------------------------------


def _keywords(runs: Sequence[RunDirectory]) -> dict[str, list[Mapping[str, Any]]]:
    used: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        used.setdefault(run.env_id, []).extend(distributions(run))
    return used


def _corrupt(found: CorruptRun, results_dir: Path) -> Problem:
    """A corrupt run, without the place where the results happen to lie."""
    return Problem(
        found.path.relative_to(results_dir).as_posix(),
        "corrupt",
        found.reason.replace(f"{found.path}/", "").replace(f"{results_dir}/", ""),
    )


def _notes(results: Results) -> list[str]:
    notes = []
    pairs = sorted({(run.label, run.env_id) for run in results.used})
    counts = {pair: results.seeds(*pair) for pair in pairs}
    if len(set(counts.values())) > 1:
        most = max(counts.values())
        fewer = ", ".join(f"{label} on {env_id}: {n}" for (label, env_id), n in counts.items() if n < most)
        notes.append(f"The numbers of seeds differ: {most} at most, but {fewer}.")
    missing: dict[str, list[str]] = {}
    left_out: dict[str, list[str]] = {}
    for mode in results.modes:
        shared, (labels, env_ids) = results.shared_env_ids(mode), results.comparable(mode)
        absent = ", ".join(env_id for env_id in results.env_ids if env_id not in shared)
        if absent:
            missing.setdefault(absent, []).append(adjective(mode))
        names = [label for label in results.labels if labels and label not in labels]
        names += [env_id for env_id in results.env_ids if env_id in results.ranges and env_id not in env_ids]
        if names:
            left_out.setdefault(", ".join(names), []).append(adjective(mode))
    for absent, modes in missing.items():
        notes.append(
            f"Not every algorithm has a {' and a '.join(modes)} evaluation on {absent}. Probabilities of improvement "
            "are over what both algorithms were run on."
        )
    for unused, modes in left_out.items():
        notes.append(f"Left out of aggregates of {' and '.join(modes)} returns: {unused}.")
    bare = [env_id for env_id in results.env_ids if env_id not in results.ranges]
    if bare:
        notes.append(
            f"No normalisation constants for {', '.join(bare)}: left out of aggregate scores. "
            "A score_ranges.json beside the folder runs can supply them."
        )
    exact = results.checkpoints.groupby("env_id")["length"].max()
    if (exact == 0).any():
        notes.append(
            f"Returns in {', '.join(exact.index[exact == 0])} are exact, and no episodes were played: what a policy "
            "earns against best responses, the mean over both seats, which is its exploitability with the other sign."
        )
    for env_id in results.env_ids:
        rows = results.checkpoints[results.checkpoints["env_id"] == env_id]
        last = rows.groupby(["label", "seed", "mode"])["timesteps"].max()
        if last.min() < _SAME_BUDGET * last.max():
            notes.append(
                f"Runs on {env_id} ended at different steps: final checkpoints lie between "
                f"{last.min():,} and {last.max():,}."
            )
    return notes + _curve_notes(results)


def _curve_notes(results: Results) -> list[str]:
    notes = []
    for label in results.labels:
        for env_id in results.env_ids:
            for mode in results.modes:
                judged, runs = results.final(label, env_id, mode).size, results.seeds(label, env_id)
                if not judged:
                    continue
                if judged < runs:
                    notes.append(
                        f"Only {judged} of {runs} runs of {label} on {env_id} have a {adjective(mode)} evaluation."
                    )
                curves = results.curves(label, env_id, mode)
                if curves is None:
                    notes.append(f"The {adjective(mode)} checkpoints of {label} on {env_id} do not overlap: no curve.")
                elif curves.interpolated:
                    notes.append(
                        f"The {adjective(mode)} checkpoints of {label} on {env_id} differ between seeds: "
                        "the curve is interpolated linearly."
                    )
    return notes
