"""Final returns beside those that others published after as many steps."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import pandas as pd

from maxent_onpolicy.evaluation.scores import Results
from maxent_onpolicy.evaluation.tables import Bootstrap, Table, estimate_columns, estimate_text, number

#: The published algorithm that an algorithm of ours, or a stock one on our harness, stands beside.
FAMILY = {
    "PPO": "PPO",
    "MaxEntPPO": "PPO",
    "RPO": "PPO",
    "SB3 PPO": "PPO",
    "TRPO": "TRPO",
    "MaxEntTRPO": "TRPO",
    "SB3 TRPO": "TRPO",
    "SAC": "SAC",
    "SB3 SAC": "SAC",
}
_AS_MANY = 0.05  # steps that differ by less, relatively, are as many


def load_published() -> list[dict[str, Any]]:
    """Return the sources of the packaged file ``data/published_returns.json``."""
    packaged = files("maxent_onpolicy.evaluation") / "data" / "published_returns.json"
    sources: list[dict[str, Any]] = json.loads(packaged.read_text(encoding="utf-8"))["sources"]
    return sources


def published_table(results: Results, bootstrap: Bootstrap) -> Table | None:
    """Final returns of ours, and what others published of the algorithm it is, or extends, after as many steps.

    ``None`` where nobody published any.
    """
    data, text = [], []
    sources = load_published()
    mode = results.modes[0]
    algorithms = {run.label: str(run.config["algorithm"]) for run in results.used}
    for env_id in results.env_ids:
        for label in results.labels:
            returns = results.final(label, env_id, mode)
            runs = [run for run in results.used if (run.label, run.env_id) == (label, env_id)]
            steps = max((run.status["timesteps"] for run in runs), default=0)
            family = FAMILY.get(algorithms[label], "")
            found = [_returns(source, env_id, family, steps) for source in sources]
            if not len(returns) or not any(found):
                continue
            ours = bootstrap.mean(returns, label, env_id, mode, "return")
            row: dict[str, Any] = {"environment": env_id, "mode": mode, "algorithm": label}
            row |= {"published_algorithm": family}
            row |= {"seeds": len(returns), **estimate_columns("return", ours)}
            shown = {"Environment": env_id, "Algorithm": label, "Seeds": str(len(returns)), "Ours": estimate_text(ours)}
            shown["Theirs is"] = family
            for source, pair in zip(sources, found, strict=True):
                row[source["name"]], row[f"{source['name']} ±"] = pair or (None, None)
                shown[source["name"]] = _text(*pair) if pair else "–"
            data.append(row)
            text.append(shown)
    if not data:
        return None
    protocols = ". ".join(f"{source['name']}: {source['protocol']}" for source in sources)
    caption = (
        f"Final {mode} returns (raw reward), mean over seeds [{bootstrap.interval_name}], and published ones after as "
        f"many steps. Protocols differ, and with them what the numbers mean. {protocols}."
    )
    return Table("published", "Beside published returns", caption, pd.DataFrame(data), pd.DataFrame(text))


def _returns(source: Mapping[str, Any], env_id: str, algorithm: str, timesteps: int) -> tuple[float, Any] | None:
    if abs(timesteps / source["timesteps"] - 1) > _AS_MANY:
        return None
    pair = source["returns"].get(env_id.rpartition("-v")[0], {}).get(algorithm)
    return None if pair is None else (pair[0], pair[1])


def _text(value: float, spread: float | None) -> str:
    return number(value) if spread is None else f"{number(value, spread)} ± {number(spread, value)}"
