"""Callbacks for the ``learn()`` of every algorithm here."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from maxent_onpolicy.engine.distributed import broadcast_object, world
from maxent_onpolicy.evaluation.files import remove_temporary, replacing
from maxent_onpolicy.validation import check_integer, check_range

__all__ = ["CheckpointCallback"]


class CheckpointCallback(BaseCallback):
    """Saves the model between two rollouts, such that training killed at any moment goes on from there bit for bit.

    ``path`` always holds a whole checkpoint, the newest: it is replaced in one step. It is also written at the end of
    ``learn()``. Continue with ``Class.load(path, env=env, resume=True)`` and
    ``learn(total - model.num_timesteps, callback=..., reset_num_timesteps=False)``.

    Args:
        path: file of the newest checkpoint; ``.zip`` is added where it has no suffix.
        every_seconds: wall time between checkpoints; 0 writes one before every rollout. ``None``: only ``every_steps``
            counts; if that is ``None`` too, once a minute. Where writing takes long, as with a large replay buffer,
            checkpoints are further apart, so that a twentieth of the time goes to them at most.
        every_steps: environment steps between checkpoints; the next boundary of a rollout after them counts.
        keep: how many checkpoints are kept. If more than one, each is also there under a name of its own,
            ``checkpoint-4096.zip`` for ``checkpoint.zip`` after 4096 steps.
        verbose: 2 says when a checkpoint was written.

    Raises:
        ValueError: for a number out of range.
    """

    every_rank = True  # where several processes train, all of them tell the state of their environments
    every_step = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every_seconds: float | None = None,
        every_steps: int | None = None,
        keep: int = 1,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if every_seconds is None and every_steps is None:
            every_seconds = 60.0
        if every_seconds is not None:
            check_range("every_seconds", every_seconds, 0)
        if every_steps is not None:
            check_integer("every_steps", every_steps, 1)
        self.path = Path(path) if Path(path).suffix else Path(path).with_suffix(".zip")
        self.every_seconds = every_seconds
        self.every_steps = every_steps
        self.keep = check_integer("keep", keep, 1)
        self._saved_at = -1
        self._last = self._writing = 0.0
        self._within_rollout = False

    def _on_training_start(self) -> None:
        if world().rank == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_temporary(self.path)
        # what is on the disk already; a new model has nothing to keep yet
        self._saved_at, self._last = self.num_timesteps, time.monotonic()
        self._within_rollout = False

    def _on_rollout_start(self) -> None:
        due = self.is_due()
        # the clocks of several processes differ
        if due if world().size == 1 else broadcast_object(due):
            self.save()
        self._within_rollout = True

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._within_rollout = False

    def _on_training_end(self) -> None:
        # stopped within a rollout, the checkpoint before it is the better one: from there training goes on exactly
        if not self._within_rollout:
            self.save()

    def is_due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        by_time = False
        if self.every_seconds is not None:
            apart = max(self.every_seconds, 20 * self._writing) if self.every_seconds > 0 else 0.0
            by_time = time.monotonic() - self._last >= apart
        # the counter of a callback moves with its steps only
        steps = self.model.num_timesteps - self._saved_at
        return by_time or (self.every_steps is not None and steps >= self.every_steps)

    def save(self) -> None:
        """Write a checkpoint, unless nothing was learnt since the last; all processes must call this together."""
        timesteps = self.model.num_timesteps
        if timesteps <= self._saved_at:
            return
        model: Any = self.model
        if world().size > 1:
            model.gather_training_state()
        begin = time.monotonic()
        if world().rank == 0:
            self._write(timesteps)
        self._saved_at, self._last = timesteps, time.monotonic()
        self._writing = self._last - begin

    def _write(self, timesteps: int) -> None:
        with replacing(self.path) as temporary:
            write_checkpoint(self.model, temporary)
        if self.keep > 1:
            self._keep_copies(timesteps)
        if self.verbose >= 2:
            print(f"Saved a checkpoint to {self.path} after {timesteps} steps")

    def _keep_copies(self, timesteps: int) -> None:
        copy = self._copy(timesteps)
        copy.unlink(missing_ok=True)
        try:
            os.link(self.path, copy)
        except OSError:  # some file systems have no second names
            with replacing(copy) as temporary:
                shutil.copyfile(self.path, temporary)
        numbers = (path.stem.removeprefix(f"{self.path.stem}-") for path in self.path.parent.glob(self._copy("*").name))
        # those beyond were left by another training
        known = sorted(int(number) for number in numbers if number.isdecimal() and int(number) <= timesteps)
        for old in known[: -self.keep]:
            self._copy(old).unlink(missing_ok=True)

    def _copy(self, timesteps: int | str) -> Path:
        return self.path.with_name(f"{self.path.stem}-{timesteps}{self.path.suffix}")


def write_checkpoint(model: BaseAlgorithm, path: Path) -> None:
    """Write a model with all that an exact continuation needs: an off-policy one with its replay buffer."""
    write = getattr(model, "save_checkpoint", model.save)
    write(path)
