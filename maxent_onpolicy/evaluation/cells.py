"""The cells of a suite, an algorithm in an environment each, so that a report can say which were not run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maxent_onpolicy.evaluation.files import write_atomic

#: Beside ``runs``: the environments of each algorithm, in the order of the suite.
FILE = "cells.json"


def write_cells(results_dir: Path, cells: Mapping[str, Sequence[str]]) -> None:
    """Write down which cells a suite has, environments by algorithm; a file that says so already is left alone."""
    lines = [f"  {json.dumps(label)}: {json.dumps(list(env_ids))}" for label, env_ids in cells.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    path = results_dir / FILE
    if not path.is_file() or path.read_bytes() != text.encode():
        write_atomic(path, text)


def read_cells(results_dir: Path) -> dict[str, tuple[str, ...]]:
    """Return the cells of the suite that a results directory is of; none where nobody wrote them down.

    Raises:
        ValueError: if the file holds something else.
    """
    path = results_dir / FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{FILE} is no JSON: {error}") from None
    if not isinstance(content, dict) or not all(_are_names(env_ids) for env_ids in content.values()):
        raise ValueError(f"{FILE} must map each algorithm of the suite to a list of environments, got {content!r}")
    return {label: tuple(env_ids) for label, env_ids in content.items()}


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
