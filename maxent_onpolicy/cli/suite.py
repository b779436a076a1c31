"""Benchmark suites: algorithms × environments × seeds, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from maxent_onpolicy.cli.config import RunConfig, check_settings, make_config
from maxent_onpolicy.cli.registry import check_hyperparameters, find_algorithm
from maxent_onpolicy.cli.values import UsageError, check_integer, check_mapping, merge, read_yaml
from maxent_onpolicy.evaluation.runs import run_path
from maxent_onpolicy.validation import did_you_mean

SUITE_KEYS = ("name", "description", "budget", "seeds", "defaults", "algorithms", "environments")


@dataclass(frozen=True)
class Budget:
    """What all runs of a suite took, measured.

    Attributes:
        core_hours: on the processors; hours of a run times its threads, summed.
        gpu_hours: on GPUs.
    """

    core_hours: float
    gpu_hours: float = 0.0

    def __str__(self) -> str:
        return f"{self.core_hours:g} core-hours, {self.gpu_hours:g} GPU-hours"


@dataclass(frozen=True)
class Suite:
    """A suite file, read and checked.

    Attributes:
        name: names its results directory.
        description: what it is for.
        budget: ``None`` if nobody has measured it.
        path: the file.
        runs: every run of it, in the order of the file, seeds outermost, so that an early look sees every pair.
    """

    name: str
    description: str
    budget: Budget | None
    path: Path
    runs: tuple[RunConfig, ...]

    @property
    def cells(self) -> dict[str, list[str]]:
        """Environments of each algorithm, both in the order of the file."""
        cells: dict[str, dict[str, None]] = {}
        for run in self.runs:
            cells.setdefault(run.label, {})[run.env_id] = None
        return {label: list(env_ids) for label, env_ids in cells.items()}


def suite_folders() -> list[Path]:
    """Return where suites are looked for by name: ``benchmarks/suites`` here, and beside the package."""
    package = Path(__file__).resolve().parents[1]
    folders = [Path("benchmarks/suites"), package.parent / "benchmarks" / "suites", package / "suites"]
    found = {folder.resolve(): folder for folder in reversed(folders) if folder.is_dir()}
    return list(reversed(found.values()))


def list_suites() -> dict[str, Path]:
    """Return the suites that can be given by name."""
    return {path.stem: path for folder in reversed(suite_folders()) for path in sorted(folder.glob("*.yaml"))}


def find_suite(name: str) -> Path:
    """Return the file of a suite given by name or path.

    Raises:
        UsageError: if there is none, with the closest name.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"there is no suite file {name}")
        return path
    suites = list_suites()
    if name not in suites:
        known = ", ".join(sorted(suites)) or "none here; give the path of a YAML file"
        raise UsageError(f"unknown suite {name!r}{did_you_mean(name, suites)}; there are: {known}")
    return suites[name]


def load_suite(path: Path, *, seeds: tuple[int, ...] = (), timesteps: int | None = None) -> Suite:
    """Read a suite file and check every name in it.

    Settings are laid over each other in this order: ``defaults``, the algorithm's,
    the environment's, and what the environment says for that algorithm. An algorithm
    with ``environments`` is run in these only.

    Args:
        path: the YAML file.
        seeds: replace the suite's.
        timesteps: replace every ``total_timesteps``; evaluations keep their share of the training.

    Raises:
        UsageError: naming the file, the path inside it, what is wrong and the closest valid name.
    """
    content = check_mapping(read_yaml(path), str(path), SUITE_KEYS)
    for key in ("algorithms", "environments"):
        if not content.get(key):
            raise UsageError(f"{path}: `{key}` must name at least one")
    name = str(content.get("name", path.stem))
    defaults = check_settings(content.get("defaults"), f"{path}: defaults")
    env_ids = tuple(check_mapping(content["environments"], f"{path}: environments"))
    algorithms = {
        label: _algorithm(label, block, f"{path}: algorithms.{label}", env_ids)
        for label, block in check_mapping(content["algorithms"], f"{path}: algorithms").items()
    }
    environments = {
        env_id: _environment(block, f"{path}: environments.{env_id}", algorithms)
        for env_id, block in check_mapping(content["environments"], f"{path}: environments").items()
    }
    for env_id, (_, special) in environments.items():
        for label in special:
            if env_id not in algorithms[label][2]:
                raise UsageError(f"{path}: environments.{env_id}.algorithms: {label!r} is not run there")
    runs = []
    for seed in seeds or _seeds(content.get("seeds"), str(path)):
        for env_id, (shared, special) in environments.items():
            for label, (algorithm, settings, restricted) in algorithms.items():
                if env_id not in restricted:
                    continue
                place = f"{path}: {label} on {env_id}"
                full = merge(merge(merge(defaults, settings), shared), special.get(label, {}))
                check_hyperparameters(algorithm, full.get("hyperparameters") or {}, place)
                who: dict[str, Any] = {"suite": name, "label": label, "algorithm": algorithm, "env_id": env_id}
                runs.append(make_config(_shortened(full, timesteps), place, seed=seed, **who))
    _check_places(runs, path)
    budget = read_budget(content.get("budget"), str(path))
    return Suite(name, str(content.get("description", "")).strip(), budget, path, tuple(runs))


def read_budget(block: Any, place: str) -> Budget | None:
    """Return what a suite file says of its budget; ``None`` if nothing.

    Raises:
        UsageError: if it is no budget.
    """
    if block is None:
        return None
    hours = check_mapping(block, f"{place}: budget", ("core_hours", "gpu_hours"))
    for key, value in hours.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
            raise UsageError(f"{place}: budget.{key}: expected a number of hours, got {value!r}")
    if "core_hours" not in hours:
        raise UsageError(f"{place}: budget: `core_hours` is missing")
    return Budget(**hours)


def _algorithm(
    label: str, block: Any, place: str, env_ids: tuple[str, ...]
) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Return the algorithm's name, its settings and the environments in which it is run."""
    settings = check_settings(block, place, extra=("algorithm", "environments"))
    restricted = _restricted(settings.pop("environments", None), f"{place}.environments", env_ids)
    name = settings.pop("algorithm", label)
    try:
        algorithm = find_algorithm(str(name)).name
    except UsageError as error:
        hint = "" if name != label else "; a label of your own needs `algorithm:` below it"
        raise UsageError(f"{place}: {error}{hint}") from None
    check_hyperparameters(algorithm, settings.get("hyperparameters") or {}, f"{place}.hyperparameters")
    return algorithm, settings, restricted


def _restricted(value: Any, place: str, env_ids: tuple[str, ...]) -> tuple[str, ...]:
    if value is None:
        return env_ids
    if not isinstance(value, list) or not value:
        raise UsageError(f"{place}: must be a list of the suite's environments, got {value!r}")
    for name in value:
        if name not in env_ids:
            raise UsageError(f"{place}: the suite has no environment {name!r}{did_you_mean(name, env_ids)}")
    return tuple(value)


def _environment(
    block: Any, place: str, algorithms: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    settings = check_settings(block, place, extra=("algorithms",))
    special = check_mapping(settings.pop("algorithms", None), f"{place}.algorithms", tuple(algorithms))
    return settings, {label: check_settings(value, f"{place}.algorithms.{label}") for label, value in special.items()}


def _seeds(value: Any, place: str) -> list[int]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{place}: `seeds` must be a list such as [0, 1, 2], got {value!r}")
    seeds = [check_integer(seed, f"{place}: seeds", 0) for seed in value]
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"{place}: `seeds` holds the same seed twice: {seeds}")
    return seeds


def _shortened(settings: dict[str, Any], timesteps: int | None) -> dict[str, Any]:
    if timesteps is None:
        return settings
    every, total = (settings.get("evaluation") or {}).get("every"), settings.get("total_timesteps")
    scaled = {"total_timesteps": timesteps}
    if not isinstance(every, int) or not isinstance(total, int | float) or total <= 0:
        return {**settings, **scaled}
    share = max(1, round(every * timesteps / total))
    return merge(settings, {**scaled, "evaluation": {"every": share}})


def _check_places(runs: list[RunConfig], path: Path) -> None:
    places: dict[Path, RunConfig] = {}
    for run in runs:
        place = run_path(Path(), run.label, run.env_id, run.seed)
        if place in places:
            raise UsageError(f"{path}: {run.name} and {places[place].name} would share the directory {place}")
        places[place] = run
