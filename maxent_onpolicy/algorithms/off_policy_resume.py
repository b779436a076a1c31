"""Files from which off-policy training continues exactly."""

import io
import pathlib
import warnings
import zipfile
from collections.abc import Iterable
from typing import Any

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from maxent_onpolicy.algorithms.resume import Resumable
from maxent_onpolicy.engine.replay import ReplayBuffer
from maxent_onpolicy.engine.replay_files import (
    is_ours,
    load_buffer,
    read_buffer,
    save_buffer,
    why_not_written,
    write_buffer,
)

File = str | pathlib.Path | io.BufferedIOBase
_FOLDER = "replay_buffer/"


class ResumableOffPolicy(Resumable, OffPolicyAlgorithm):
    """Files that hold the replay buffer too, if asked, and files of the buffer alone."""

    def _capture_training_state(self) -> dict[str, Any]:
        return super()._capture_training_state() | {"holds_replay_buffer": self._writes_replay_buffer}

    _writes_replay_buffer = False

    def save(
        self,
        path: File,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
        replay_buffer: bool = False,
    ) -> None:
        """Save as SB3 does, with what an exact continuation needs, the replay buffer if asked.

        Beside parameters, optimisers and counters the file holds the random generators, the last observation and,
        where it can be captured, the environments' state and normalisation statistics. ``load(path, env=env,
        resume=True)`` restores them. A continuation is exact after ``learn()`` or from a callback's
        ``_on_rollout_start``, if the file holds the replay buffer.

        Args:
            path: file or file-like object.
            exclude: as SB3.
            include: as SB3.
            replay_buffer: whether the stored transitions are written into the same file.

        Raises:
            ValueError: if the replay buffer is to be written, and is none of this package, or ``path`` is a stream
                that cannot be read.
        """
        reason = why_not_written(self.replay_buffer) if replay_buffer else None
        if reason is not None:
            raise ValueError(
                f"`replay_buffer=True` cannot write {reason}; leave `replay_buffer_class` out, or use "
                "`save_replay_buffer`"
            )
        if replay_buffer and not isinstance(path, str | pathlib.Path) and not path.readable():
            raise ValueError("`path` must be readable too to hold the replay buffer; open the file with 'w+b'")
        self._writes_replay_buffer = replay_buffer
        try:
            super().save(path, exclude, include)
        finally:
            del self._writes_replay_buffer
        if replay_buffer:
            with zipfile.ZipFile(_with_suffix(path, ".zip"), "a") as archive:
                write_buffer(self.replay_buffer, archive, _FOLDER)

    def save_checkpoint(self, path: File) -> None:
        """Save for an exact continuation: with the replay buffer, if it is of a kind that can be written."""
        self.save(path, replay_buffer=why_not_written(self.replay_buffer) is None)

    def _restore_from_file(self, path: File, state: dict[str, Any]) -> None:
        if not state.get("holds_replay_buffer", False):
            warnings.warn(
                "The file holds no replay buffer: training goes on with an empty one, and not as it would have without "
                "the interruption. `save(path, replay_buffer=True)` keeps it; `load_replay_buffer` loads another file.",
                stacklevel=3,
            )
            return
        if not isinstance(path, str | pathlib.Path):
            path.seek(0)
        with zipfile.ZipFile(_existing(path, ".zip")) as archive:
            read_buffer(self.replay_buffer, archive, _FOLDER)

    def save_replay_buffer(self, path: File) -> None:
        """Save the stored transitions: without pickle and all or nothing, or as SB3 does if the buffer is SB3's.

        Args:
            path: file or file-like object. A name without a suffix gets ``.npz``.
        """
        if isinstance(self.replay_buffer, ReplayBuffer):
            save_buffer(self.replay_buffer, _with_suffix(path, ".npz"))
        else:
            super().save_replay_buffer(path)

    def load_replay_buffer(self, path: File, truncate_last_traj: bool = True) -> None:
        """Load what :meth:`save_replay_buffer` wrote; a file of SB3's is unpickled, so load only files you trust.

        Args:
            path: file or file-like object.
            truncate_last_traj: as SB3; concerns its ``HerReplayBuffer``.

        Raises:
            ValueError: if the file does not fit the model's environments.
        """
        source = _existing(path, ".npz")
        if not is_ours(source):
            super().load_replay_buffer(path, truncate_last_traj)
            return
        buffer = self.replay_buffer
        if not isinstance(buffer, ReplayBuffer):
            buffer = ReplayBuffer(self.buffer_size, self.observation_space, self.action_space, self.device, self.n_envs)
        load_buffer(buffer, source)
        self.replay_buffer = buffer


def _with_suffix(path: File, suffix: str) -> Any:
    """Return the file that is written: a name without a suffix gets one, as in SB3."""
    if not isinstance(path, str | pathlib.Path):
        return path
    path = pathlib.Path(path)
    return path if path.suffix else path.with_suffix(suffix)


def _existing(path: File, suffix: str) -> Any:
    """Return the file that is read: the name as it is if there is one, else with the suffix."""
    if isinstance(path, str | pathlib.Path) and pathlib.Path(path).exists():
        return pathlib.Path(path)
    return _with_suffix(path, suffix)
