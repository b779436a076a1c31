"""Keep fewer rows of the training metrics of committed runs, to keep the repository small.

    python scripts/thin_metrics.py results/ablation --rows 51

Of each run's ``train.csv`` with more rows than that, every second row is kept, or every third, and so on, counted from
the last, until no more than that many are left. Returns (``eval.csv``) stay as they
are. Write the report again afterwards: ``maxent-onpolicy report results/ablation``.
"""

import argparse
from math import ceil
from pathlib import Path

from maxent_onpolicy.evaluation.files import replacing


def thinned(lines: list[str], rows: int) -> list[str]:
    """Return a header and at most ``rows`` of the lines after it, evenly spaced, with the last one."""
    header, values = lines[:1], lines[1:]
    step = max(1, ceil(len(values) / rows))
    return header + values[(len(values) - 1) % step :: step]


def main() -> None:
    """Thin every run of the results directories that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "results", type=Path, nargs="+", metavar="DIR", help="results directories: with a folder `runs`"
    )
    parser.add_argument("--rows", type=int, required=True, help="how many rows a run may keep: 1 or more")
    options = parser.parse_args()
    if options.rows < 1:
        parser.error(f"--rows must be 1 or more, got {options.rows}")
    for results in options.results:
        if not (results / "runs").is_dir():
            parser.error(f"{results} is no results directory: it has no folder `runs`")
        paths = sorted((results / "runs").rglob("train.csv"))
        counts = [thin(path, options.rows) for path in paths]
        print(f"{results}: {sum(counts):,} rows left out of {sum(map(bool, counts))} of {len(paths)} runs")


def thin(path: Path, rows: int) -> int:
    """Thin one file in place; return how many rows are gone."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = thinned(lines, rows)
    if len(kept) < len(lines):
        with replacing(path) as staged:
            staged.write_text("".join(kept), encoding="utf-8")
    return len(lines) - len(kept)


if __name__ == "__main__":
    main()
