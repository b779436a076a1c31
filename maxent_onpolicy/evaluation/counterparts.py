"""Our algorithms beside the stock classes of Stable-Baselines3 and sb3-contrib, where results hold both."""

from collections.abc import Iterator

import pandas as pd

from maxent_onpolicy.evaluation.scores import Results
from maxent_onpolicy.evaluation.statistics import Estimate
from maxent_onpolicy.evaluation.tables import Bootstrap, Table, estimate_columns, estimate_text

#: Names of algorithms, by that of ours.
STOCK = {
    "PPO": "SB3 PPO",
    "MaxEntPPO": "SB3 PPO",
    "RPO": "SB3 PPO",
    "TRPO": "SB3 TRPO",
    "MaxEntTRPO": "SB3 TRPO",
    "SAC": "SB3 SAC",
}
#: What there are several kinds of, in the order in which figures have them.
FAMILIES = ("PPO", "TRPO", "SAC")


def family(algorithm: str) -> str:
    """Return what an algorithm is a kind of: PPO, TRPO, SAC, or itself where it is no kind of any."""
    return STOCK.get(algorithm, algorithm).removeprefix("SB3 ")


def counterpart_table(results: Results, bootstrap: Bootstrap) -> Table | None:
    """Final returns of ours and of their counterparts, and on which side of the counterpart's interval ours are.

    ``None`` where there is no counterpart.
    """
    data, text = [], []
    for env_id, mode, ours, stock in _comparisons(results):
        returns = {label: results.final(label, env_id, mode) for label in (ours, stock)}
        found = {label: bootstrap.mean(values, label, env_id, mode, "return") for label, values in returns.items()}
        runs = [[values.to_numpy()] for values in returns.values()]
        better = bootstrap.improvement(runs[0], runs[1], "counterpart", ours, stock, env_id, mode)
        verdict = side(found[ours].value, found[stock])
        keys = {"environment": env_id, "mode": mode, "algorithm": ours, "counterpart": stock}
        columns = {
            **estimate_columns("return", found[ours]),
            **estimate_columns("counterpart_return", found[stock]),
            **estimate_columns("probability", better),
        }
        data.append(keys | columns | {"side": verdict})
        text.append(
            {
                "Environment": env_id,
                "Mode": mode,
                "Algorithm": ours,
                "Return": estimate_text(found[ours]),
                "Counterpart": stock,
                "Its return": estimate_text(found[stock]),
                "P(ours > its)": estimate_text(better),
                "Ours": verdict,
            }
        )
    if not data:
        return None
    caption = (
        f"Final returns, mean over seeds [{bootstrap.interval_name}], beside the class of Stable-Baselines3 or "
        "sb3-contrib that an algorithm extends. Ours: whether the mean is below, within or above that interval."
    )
    return Table("counterparts", "Counterparts", caption, pd.DataFrame(data), pd.DataFrame(text))


def side(value: float, interval: Estimate) -> str:
    """Return where ``value`` lies: "below", "within" or "above"; "within" too where there is no interval."""
    if value < interval.low:
        return "below"
    return "above" if value > interval.high else "within"


def _comparisons(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """Environment, mode, label of ours and label of its counterpart, wherever both have runs."""
    algorithms = {run.label: run.config["algorithm"] for run in results.used}
    for env_id in results.env_ids:
        for mode in results.modes:
            for ours in results.labels:
                for stock in results.labels:
                    related = STOCK.get(algorithms[ours]) == algorithms[stock]
                    if related and all(len(results.final(label, env_id, mode)) for label in (ours, stock)):
                        yield env_id, mode, ours, stock
