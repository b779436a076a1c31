"""Reads what trackers have stored."""

import json
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def wandb_records(folder: Path, seconds: float = 300.0) -> list[list[Any]]:
    """The records of every offline run of W&B in ``folder``, in the order in which they were begun.

    W&B's own process writes the last of them a moment after a run was finished.
    """
    deadline = time.monotonic() + seconds
    while True:
        runs = _wandb_records(folder)
        if runs and all("exit" in map(wandb_kind, records) for records in runs):
            return runs
        assert time.monotonic() < deadline, "an offline run has no end"
        time.sleep(0.05)


def wandb_kind(record: Any) -> str:
    return str(record.WhichOneof("record_type"))


def _wandb_records(folder: Path) -> list[list[Any]]:
    from wandb.proto import wandb_internal_pb2

    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.parent.stat().st_ctime)
    return [[wandb_internal_pb2.Record.FromString(data) for data in _log_records(path.read_bytes())] for path in paths]


def wandb_history(records: list[Any]) -> list[dict[str, Any]]:
    """The rows of one run, media as the dictionaries that W&B describes them with."""
    rows = []
    for record in records:
        if wandb_kind(record) == "history":
            row: dict[str, Any] = {"_step": record.history.step.num}
            for item in record.history.item:
                row["/".join([item.key] if item.key else item.nested_key)] = json.loads(item.value_json)
            rows.append(row)
    return rows


def wandb_record(records: list[Any], kind: str) -> Any:
    """The last record of a kind."""
    return [getattr(record, kind) for record in records if wandb_kind(record) == kind][-1]


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every number that TensorBoard would show."""
    accumulator = tensorboard(folder)
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def tensorboard(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def mlflow_metrics(client: Any, identity: str) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every metric of a run."""
    found = defaultdict(list)
    for name in client.get_run(identity).data.metrics:
        found[name] = [(metric.step, metric.value) for metric in client.get_metric_history(identity, name)]
    return dict(found)


def _log_records(data: bytes, header: int = 7, block: int = 32768) -> Iterator[bytes]:
    """Read LevelDB's log format: blocks of chunks, each with checksum, length and kind."""
    position, partial = header, b""
    while position + 7 <= len(data):
        left = block - position % block
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0:
            position += left
            continue
        if position + 7 + length > len(data):
            return  # it is being written
        partial += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield partial
            partial = b""
