"""Tables of what was run: settings, tuning budget, score ranges, software and machine."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from maxent_onpolicy.evaluation.runs import RunDirectory
from maxent_onpolicy.evaluation.scores import Results
from maxent_onpolicy.evaluation.tables import Table, number

_NAMED_ELSEWHERE = {"suite", "label", "env_id", "seed"}
_MOST_VALUES = 4  # of one provenance entry; a suite's command lines can all differ


def settings_tables(results: Results) -> list[Table]:
    """Settings that differ between algorithms, and those that all of them share."""
    values = {label: _settings(run for run in results.used if run.label == label) for label in results.labels}
    names = ["tuning_budget", *(name for settings in values.values() for name in settings)]
    rows = [
        {"setting": name} | {label: values[label].get(name, "–") for label in results.labels}
        for name in dict.fromkeys(names)
    ]
    frame = pd.DataFrame(rows)
    if len(results.labels) == 1:
        caption = "What was run, and how much tuning it had. Settings that are not listed have their default values."
        return [_settings_table("settings", "Settings", caption, frame)]
    shared = (frame[results.labels].nunique(axis=1) == 1) & (frame["setting"] != "tuning_budget")
    common = frame[shared][["setting", results.labels[0]]].set_axis(["setting", "value"], axis=1)
    return [
        _settings_table(
            "settings",
            "Settings by algorithm",
            "What differs between the algorithms, and how much tuning each one had. “–” means that the algorithm has "
            "no such setting or left it at its default.",
            frame[~shared],
        ),
        _settings_table(
            "settings_shared",
            "Settings shared by all",
            "What all algorithms have in common. Settings that are not listed have their default values.",
            common,
        ),
    ]


def cell_table(results: Results) -> Table | None:
    """How many runs each cell has; ``None`` if all have some, or nobody wrote down which there are."""
    if not results.missing_cells:
        return None
    planned = results.cells
    labels = [*planned, *(label for label in results.labels if label not in planned)]
    known = list(dict.fromkeys(env_id for env_ids in planned.values() for env_id in env_ids))
    env_ids = [*known, *(env_id for env_id in results.env_ids if env_id not in known)]
    data, text = [], []
    for label in labels:
        shown = {"Algorithm": label}
        for env_id in env_ids:
            runs = results.seeds(label, env_id)
            part = env_id in planned.get(label, ())
            shown[env_id] = str(runs or ("" if part else "–"))
            if runs or part:
                data.append({"algorithm": label, "environment": env_id, "runs": runs})
        text.append(shown)
    caption = "Runs of each cell of the suite. Where it is empty there are none yet, and nothing is said of it."
    if any("–" in shown.values() for shown in text):
        caption += " Cells with a dash are not part of the suite."
    return Table("cells", "What was run", caption, pd.DataFrame(data), pd.DataFrame(text))


def range_table(results: Results) -> Table | None:
    """Normalisation constants of the environments in the results; ``None`` if no environment has any."""
    known = [env_id for env_id in results.env_ids if env_id in results.ranges]
    if not known:
        return None
    data = pd.DataFrame([{"environment": env_id, **results.ranges[env_id]._asdict()} for env_id in known])
    text = pd.DataFrame(
        {
            "Environment": data["environment"],
            "Score 0": [number(value) for value in data["low"]],
            "Score 1": [number(value) for value in data["high"]],
            "Source of score 0": data["low_source"],
            "Source of score 1": data["high_source"],
        }
    )
    caption = "A score is the return on the scale of these fixed returns. 1 is no upper bound."
    return Table("score_ranges", "Score ranges", caption, data, text)


def provenance_table(results: Results) -> Table:
    """Software and machine of the used runs; a row for every distinct value, with how many runs have it."""
    counts: dict[str, Counter[str]] = {}
    for run in results.used:
        for name, value in flatten(run.provenance).items():
            counts.setdefault(name, Counter())[value] += 1
    rows = []
    for name, counter in counts.items():
        shown = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
        rows += [{"entry": name, "value": value, "runs": runs} for value, runs in shown[:_MOST_VALUES]]
        if len(shown) > _MOST_VALUES:
            rest = shown[_MOST_VALUES:]
            more = f"… and {len(rest)} other values"
            rows.append({"entry": name, "value": more, "runs": sum(runs for _, runs in rest)})
    data = pd.DataFrame(rows, columns=["entry", "value", "runs"])
    text = data.astype(str).rename(columns=str.capitalize)
    return Table("provenance", "Software and machine", "What the runs were made with.", data, text)


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as one level, ``outer.inner`` to text; an empty mapping is kept as ``{}``."""
    flat: dict[str, str] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def _settings_table(name: str, title: str, caption: str, frame: pd.DataFrame) -> Table:
    data = frame.reset_index(drop=True)
    return Table(name, title, caption, data, data.rename(columns={"setting": "Setting", "value": "Value"}))


def _settings(runs: Iterable[RunDirectory]) -> dict[str, str]:
    """Settings of one algorithm; one that depends on the environment or the seed says so."""
    found: dict[str, dict[str, dict[str, None]]] = {}  # setting → environment → its values, in order
    for run in runs:
        config = {name: value for name, value in run.config.items() if name not in _NAMED_ELSEWHERE}
        if config.get("tuning_budget") is None:
            config["tuning_budget"] = "not stated"
        hyperparameters = config.pop("hyperparameters", None) or {}
        for name, value in {**flatten(config), **flatten(hyperparameters)}.items():
            found.setdefault(name, {}).setdefault(run.env_id, {})[value] = None
    return {name: _setting(environments) for name, environments in found.items()}


def _setting(environments: dict[str, dict[str, None]]) -> str:
    if any(len(values) > 1 for values in environments.values()):
        every = sorted({value for values in environments.values() for value in values}, key=lambda v: (len(v), v))
        return f"{every[0]} to {every[-1]}, depending on the seed"
    by_value: dict[str, list[str]] = {}
    for env_id, values in environments.items():
        by_value.setdefault(next(iter(values)), []).append(env_id)
    if len(by_value) == 1:
        return next(iter(by_value))
    return "; ".join(f"{value} ({', '.join(env_ids)})" for value, env_ids in by_value.items())
