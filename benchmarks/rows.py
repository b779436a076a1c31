"""Named tuples as rows of a CSV file."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from maxent_onpolicy.evaluation.files import replacing


def read_rows(path: Path) -> list[list[str]]:
    """Return the rows of a file, without its header."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))[1:]


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Replace a file, all or nothing; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
