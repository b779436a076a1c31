"""Tables of where runs began and where they ended: returns, the policy's entropy, the critics' fit."""

from itertools import product
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from maxent_onpolicy.evaluation.scores import Results
from maxent_onpolicy.evaluation.tables import Bootstrap, Table, estimate_columns, estimate_text

#: Column of train.csv, its name in the CSV table, heading, and whether its beginning is shown too.
QUANTITIES = (
    ("train/entropy", "entropy", "Entropy", True),
    ("train/explained_variance", "explained_variance", "Explained variance, value", False),
    ("train/entropy_explained_variance", "entropy_explained_variance", "Explained variance, entropy", False),
    ("train/std", "std", "Action std", False),
    ("train/clipped_actions", "clipped_actions", "Clipped actions", False),
)
_PART = 10  # a beginning and an end are this part of the rows


def gain_table(results: Results, bootstrap: Bootstrap) -> Table | None:
    """Final return less that of the same run before it was trained; ``None`` if no run was evaluated before."""
    data, text = [], []
    untrained = results.checkpoints[results.checkpoints["timesteps"] == 0].set_index(["label", "env_id", "mode"])
    for env_id, mode, label in product(results.env_ids, results.modes, results.labels):
        if (label, env_id, mode) not in untrained.index:
            continue
        before = untrained.loc[[(label, env_id, mode)]].set_index("seed")["return"]
        gained = (results.final(label, env_id, mode) - before).dropna()
        start, gain = (
            bootstrap.mean(x, name, label, env_id, mode) for name, x in (("before", before), ("gain", gained))
        )
        row = {"environment": env_id, "mode": mode, "algorithm": label, "seeds": len(gained)}
        data.append(row | estimate_columns("before", start) | estimate_columns("gain", gain))
        words = (estimate_text(start), estimate_text(gain))
        text.append((env_id, mode, label, str(len(gained)), *words))
    if not data:
        return None
    caption = (
        "Return (raw reward) before training, and how much higher it is at the last checkpoint of the same run: means "
        f"over seeds [{bootstrap.interval_name}]."
    )
    columns = ["Environment", "Mode", "Algorithm", "Seeds", "Before", "Gain"]
    return Table("gain", "Gain over the start", caption, pd.DataFrame(data), pd.DataFrame(text, columns=columns))


def training_table(results: Results, bootstrap: Bootstrap) -> Table | None:
    """Entropy, the critics' explained variance and the actions' spread: means over seeds with intervals.

    ``None`` if no run logged any of them.
    """
    data, text = [], []
    for env_id in results.env_ids:
        for label in results.labels:
            frames = [run.read_train() for run in results.used if (run.label, run.env_id) == (label, env_id)]
            row: dict[str, Any] = {"environment": env_id, "algorithm": label, "seeds": len(frames)}
            shown = {"Environment": env_id, "Algorithm": label, "Seeds": str(len(frames))}
            for column, name, heading, both in QUANTITIES:
                ends = [ends_of(frame, column) for frame in frames]
                for place, when in ((0, "first"), (1, "last")) if both else ((1, "last"),):
                    values = pd.Series([each[place] for each in ends], dtype=np.float64).dropna()
                    found = bootstrap.mean(values, "training", label, env_id, column, when) if len(values) else None
                    row |= estimate_columns(f"{name}_{when}", found) if found else {f"{name}_{when}": nan}
                    title = f"{heading}, {when}" if both else heading
                    shown[title] = estimate_text(found) if found else "–"
            if any(not np.isnan(row[f"{name}_last"]) for _, name, _, _ in QUANTITIES):
                data.append(row)
                text.append(shown)
    if not data:
        return None
    numbers, words = pd.DataFrame(data), pd.DataFrame(text)
    empty = [column for column in words.columns[3:] if (words[column] == "–").all()]
    caption = (
        f"What runs logged while training: means over the first and the last tenth of it, then over seeds "
        f"[{bootstrap.interval_name}]; all but the entropy in the last tenth only. Entropy is in nats, an action's or, "
        "of a language model, a token's."
    )
    if (numbers["clipped_actions_last"] > 0).any():
        caption += " Clipped actions are a share of all their components."
    elif "Clipped actions" not in empty:  # discrete ones cannot be
        empty.append("Clipped actions")
    return Table("training", "While training", caption, numbers, words.drop(columns=empty))


def ends_of(frame: pd.DataFrame, column: str) -> tuple[float, float]:
    """Return the means of a column of ``train.csv`` over the first and the last tenth of the rows that have it.

    Args:
        frame: contents of ``train.csv``.
        column: the quantity; values that are missing or not finite are skipped.

    Returns:
        Both means; NaN if there is no value.
    """
    if column not in frame:
        return nan, nan
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return nan, nan
    part = max(1, len(values) // _PART)
    return float(values[:part].mean()), float(values[-part:].mean())
