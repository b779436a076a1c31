"""``python -m benchmarks.reference``: our PPO, TRPO and SAC beside the classes that they extend.

The suite mujoco-reference runs those of Stable-Baselines3 and sb3-contrib with the settings and seeds of the suite
mujoco; this command puts final returns of both in one table.

  maxent-onpolicy bench mujoco-reference --results results
  python -m benchmarks.reference
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

from maxent_onpolicy.evaluation.counterparts import STOCK, counterpart_table, family
from maxent_onpolicy.evaluation.scores import Results, load_results
from maxent_onpolicy.evaluation.tables import Bootstrap, Table


def together(ours: Results, stock: Results) -> Results:
    """Return the runs of two suites as one, of ours only the algorithms that change nothing but the implementation."""
    same = {name for name in STOCK if family(name) == name}
    checkpoints = ours.checkpoints[ours.checkpoints["label"].isin(same)]
    return replace(
        stock,
        suite=f"{ours.suite}, {stock.suite}",
        runs=[*ours.runs, *stock.runs],
        used=[*(run for run in ours.used if run.label in same), *stock.used],
        checkpoints=pd.concat([checkpoints, stock.checkpoints], ignore_index=True),
        problems=[*ours.problems, *stock.problems],
        cells={},
    )


def reference_table(ours: Results, stock: Results, bootstrap: Bootstrap | None = None) -> Table:
    """Return final returns of ours and of their counterparts.

    Raises:
        SystemExit: if there is no environment in which both have runs.
    """
    results = together(ours, stock)
    table = counterpart_table(results, bootstrap or Bootstrap())
    if table is None:
        raise SystemExit(f"no algorithm of {ours.suite} and its counterpart of {stock.suite} share an environment")
    pairs = table.data[["algorithm", "counterpart", "environment"]].drop_duplicates()
    seeds = [
        f"{b} in {env_id} {results.seeds(b, env_id)} (ours {results.seeds(a, env_id)})" for a, b, env_id in pairs.values
    ]
    return replace(table, caption=f"{table.caption} Seeds: {'; '.join(seeds)}.")


def main(arguments: list[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours", type=Path, default=Path("results/mujoco"), help="results of our classes")
    parser.add_argument("--stock", type=Path, default=Path("results/mujoco-reference"), help="results of theirs")
    parser.add_argument("--output", type=Path, help="folder of counterparts.md and .csv (default: that of --stock)")
    options = parser.parse_args(arguments)
    folder = options.output or options.stock
    folder.mkdir(parents=True, exist_ok=True)
    table = reference_table(load_results(options.ours), load_results(options.stock))
    table.write(folder)
    print(f"table: {folder / table.name}.md")


if __name__ == "__main__":
    main()
