"""Published returns that results are shown beside."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple


class Reference(NamedTuple):
    """What somebody else measured in one environment.

    Attributes:
        name: what it is called.
        caveat: in which way it differs from what it is shown beside.
        timesteps: of the training.
        runs: how many it is the mean of.
        mode: how the policy acted, see :data:`~maxent_onpolicy.evaluation.modes.MODES`.
        train: mean return on the training distribution.
        test: mean return on the test distribution.
        source: where it is from.
    """

    name: str
    caveat: str
    timesteps: int
    runs: int
    mode: str
    train: float
    test: float
    source: str

    @property
    def steps(self) -> str:
        """For example "25M steps"."""
        return f"{self.timesteps / 1e6:g}M steps"


def load_references() -> list[dict[str, Any]]:
    """Return the entries of the packaged file ``data/reference_returns.json``."""
    packaged = files("maxent_onpolicy.evaluation") / "data" / "reference_returns.json"
    entries: list[dict[str, Any]] = json.loads(packaged.read_text(encoding="utf-8"))["references"]
    return entries


def find_references(
    entries: Sequence[Mapping[str, Any]],
    env_id: str,
    distributions: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> list[Reference]:
    """Return the references for one environment that fit everything it was run with.

    Args:
        entries: see :func:`load_references`.
        env_id: the environment.
        distributions: keywords of the training and of the test distribution, of every run.
    """
    found = []
    for entry in entries:
        returns = entry["returns"].get(env_id)
        fits = bool(distributions) and all(
            _holds(entry["train_kwargs"], train, entry["defaults"])
            and _holds(entry["test_kwargs"], test, entry["defaults"])
            for train, test in distributions
        )
        if returns is not None and fits:
            shared = {name: entry[name] for name in Reference._fields if name not in ("train", "test")}
            found.append(Reference(**shared, train=returns["train"], test=returns["test"]))
    return found


def _holds(required: Mapping[str, Any], kwargs: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    given = {**defaults, **kwargs}
    return all(name in given and given[name] == value for name, value in required.items())
