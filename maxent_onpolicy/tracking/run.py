"""What a tracker is told of a run, and what is remembered so that a resumed run goes on in the same place."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule

from maxent_onpolicy.evaluation.provenance import collect_provenance
from maxent_onpolicy.evaluation.runs import write_atomic

PROJECT = "maxent-onpolicy"
_FILE = "tracking.json"
_NO_SETTING = {"self", "policy", "env", "seed", "verbose", "tensorboard_log", "_init_setup_model"}


@dataclass(frozen=True)
class TrackedRun:
    """One run, as trackers show it.

    Attributes:
        folder: the run's own; ``tracking.json`` in it keeps the ids that the trackers know the run by.
        project: what W&B and Trackio call a project, and MLflow an experiment.
        name: of the run.
        group: of runs that differ in their seed only.
        tags: words to find the run by.
        config: settings, nested as you like.
        provenance: code, versions and machine.
    """

    folder: Path
    project: str = PROJECT
    name: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def known_id(self, tracker: str) -> str | None:
        """Return the id under which ``tracker`` knows this run from an earlier attempt."""
        known = read_memory(self.folder).get("ids", {}).get(tracker)
        return None if known is None else str(known)

    def remember_id(self, tracker: str, identity: str) -> None:
        """Keep the id for the next attempt.

        Raises:
            OSError: if the file cannot be written.
        """
        ids = read_memory(self.folder).get("ids", {})
        if ids.get(tracker) != identity:
            write_memory(self.folder, ids={**ids, tracker: identity})


def read_memory(folder: Path) -> dict[str, Any]:
    """Return what ``tracking.json`` says; nothing if there is none that can be read."""
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_memory(folder: Path, **entries: Any) -> None:
    """Set entries of ``tracking.json``; the others keep their value.

    Raises:
        OSError: if the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / _FILE, json.dumps({**read_memory(folder), **entries}, indent=2) + "\n")


def describe_model(model: BaseAlgorithm) -> dict[str, Any]:
    """Return what a model was made with: algorithm, environment, seed and every keyword that can be written down.

    Args:
        model: any SB3 algorithm.
    """
    settings: dict[str, Any] = {}
    for base in type(model).__mro__:
        if "__init__" not in base.__dict__:
            continue
        for name in inspect.signature(base.__init__).parameters:  # type: ignore[misc]
            if name not in _NO_SETTING and hasattr(model, name):
                settings.setdefault(name, _plain(getattr(model, name)))
    env = model.get_env()
    spec = None if env is None else _spec_of(env)
    return {
        "algorithm": type(model).__name__,
        "policy": type(model.policy).__name__,
        "env_id": None if spec is None else spec.id,
        "n_envs": model.n_envs,
        "seed": model.seed,
        "hyperparameters": settings,
    }


def make_provenance() -> dict[str, Any]:
    """Return code, versions and machine without the command, which may hold what nobody meant to publish."""
    return {key: value for key, value in collect_provenance().items() if key != "command"}


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Return nested settings as one level: ``{"hyperparameters": {"tau": 0.02}}`` as ``{"hyperparameters.tau": 0.02}``.

    What is no number, truth value or text becomes text.
    """
    flat: dict[str, bool | int | float | str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


def _spec_of(env: Any) -> Any:
    try:
        return env.get_attr("spec", 0)[0]
    except (AttributeError, NotImplementedError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, FloatSchedule):
        value = value.value_schedule
    if isinstance(value, ConstantSchedule):
        value = value.val
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.__name__ if isinstance(value, type) else _without_address(value)


def _without_address(value: Any) -> str:
    """Return the text of an object; that of a function or a plain object would name an address of this process."""
    text = repr(value)
    return text if " at 0x" not in text else getattr(value, "__qualname__", type(value).__name__)
