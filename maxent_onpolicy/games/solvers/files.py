"""Solvers on disk: arrays and JSON in one file, without pickles."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from maxent_onpolicy.evaluation.files import replacing

_HEAD = "head"


def write_solver(path: str | Path, head: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
    """Write a solver's state atomically; return the path, with ``.npz`` appended where it has no suffix.

    Args:
        path: the file.
        head: what JSON can hold.
        arrays: the rest.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **{_HEAD: np.array(json.dumps(head))}, **arrays)  # type: ignore[arg-type]
    return path


def read_solver(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what :func:`write_solver` has written.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no solver's.
    """
    path = Path(path)
    path = path if path.suffix or path.exists() else path.with_suffix(".npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(str(arrays.pop(_HEAD))), arrays
    except (zipfile.BadZipFile, KeyError, EOFError, ValueError) as error:
        raise ValueError(f"{path} was not written by a solver's save(): {error}") from None
