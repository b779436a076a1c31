"""Replay buffers in files without pickle: only what is filled, all or nothing."""

import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from stable_baselines3.common import buffers as sb3
from torch import Tensor

from maxent_onpolicy.engine.replay import ReplayBuffer

_FORMAT = "maxent_onpolicy.ReplayBuffer"
_VERSION = 1
# Everything that is stored, time-major; SB3's names.
FIELDS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
_PLAIN = (ReplayBuffer, sb3.ReplayBuffer, sb3.NStepReplayBuffer, sb3.DictReplayBuffer)


def why_not_written(buffer: Any) -> str | None:
    """Return why a buffer cannot be written, or ``None``: subclasses may keep more than the usual fields."""
    return None if type(buffer) in _PLAIN else f"a {type(buffer).__name__}, which may keep more than transitions"


def write_buffer(buffer: Any, archive: zipfile.ZipFile, folder: str = "") -> None:
    """Write the stored transitions into an open archive, as ``.npy`` files."""
    meta = {"format": _FORMAT, "version": _VERSION, "pos": buffer.pos, "full": buffer.full}
    archive.writestr(f"{folder}meta.json", json.dumps(meta))
    for name, field in _fields(buffer).items():
        rows = field[: _rows(buffer, buffer.size())]
        with archive.open(f"{folder}{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, _as_array(rows), allow_pickle=False)


def read_buffer(buffer: Any, archive: zipfile.ZipFile, folder: str = "") -> None:
    """Fill a buffer with what :func:`write_buffer` wrote.

    Raises:
        ValueError: if that is no replay buffer, a damaged one, or does not fit.
    """
    fields, arrays = _fields(buffer), {}
    try:
        meta = json.loads(archive.read(f"{folder}meta.json"))
        for name in fields:
            with archive.open(f"{folder}{name}.npy") as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a replay buffer of this package and kind, or a damaged one: {error}") from error
    stored = buffer.buffer_size if meta["full"] else min(meta["pos"], buffer.buffer_size - 1)
    for name, array in arrays.items():
        kept = (_rows(buffer, stored), *fields[name].shape[1:])
        if array.shape != kept or array.dtype != _as_array(fields[name][:0]).dtype:
            raise ValueError(
                f"the file's `{name}` are {array.dtype}{list(array.shape)}, but a buffer of {buffer.buffer_size} "
                f"steps of {buffer.n_envs} environments here holds {fields[name].dtype}{list(kept)}; "
                "make the model with the saved one's environments and `buffer_size`"
            )
    for name, array in arrays.items():
        field = fields[name]
        field[: len(array)] = torch.from_numpy(array).to(field.device) if isinstance(field, Tensor) else array
    buffer.pos, buffer.full = meta["pos"], meta["full"]


def save_buffer(buffer: Any, file: Path | IO[bytes]) -> None:
    """Write the stored transitions to a file, all or nothing if it is a path."""
    if not isinstance(file, Path):
        with zipfile.ZipFile(file, "w") as archive:
            write_buffer(buffer, archive)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-", suffix=file.suffix)
    try:
        with os.fdopen(descriptor, "wb") as temporary:
            save_buffer(buffer, temporary)
            temporary.flush()
            os.fsync(temporary.fileno())
        os.replace(name, file)
    finally:
        Path(name).unlink(missing_ok=True)


def load_buffer(buffer: Any, file: Path | IO[bytes]) -> None:
    """Fill a buffer with what :func:`save_buffer` wrote.

    Raises:
        ValueError: if the file is something else, damaged, or does not fit.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            read_buffer(buffer, archive)
    except zipfile.BadZipFile as error:
        raise ValueError(f"not a replay buffer of this package, or a damaged one: {error}") from error


def is_ours(file: Path | IO[bytes]) -> bool:
    """Whether a file is one that :func:`save_buffer` wrote, rather than SB3's pickle."""
    if isinstance(file, Path):
        return zipfile.is_zipfile(file)
    position = file.tell()
    start = file.read(4)
    file.seek(position)
    return start == b"PK\x03\x04"


def _fields(buffer: Any) -> dict[str, Any]:
    """Return what a buffer stores, ``[capacity, B, ...]`` each, by the names of the files."""
    found: dict[str, Any] = {}
    for name in FIELDS:
        field = getattr(buffer, name, None)  # SB3's may keep successors among the observations
        if isinstance(field, dict):
            found |= {f"{name}/{key}": part for key, part in field.items()}
        elif field is not None:
            found[name] = field
    return found


def _rows(buffer: Any, stored: int) -> int:
    """Return how many rows belong to so many stored steps: with successors among the observations, one more."""
    return min(stored + int(buffer.optimize_memory_usage), buffer.buffer_size)


def _as_array(field: Any) -> np.ndarray:
    return field.cpu().numpy() if isinstance(field, Tensor) else field
