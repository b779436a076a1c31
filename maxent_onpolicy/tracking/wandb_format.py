"""Weights & Biases."""

import os
import uuid
from typing import Any, ClassVar

from maxent_onpolicy.tracking.base import Row, TrackerFormat
from maxent_onpolicy.tracking.media import Clip, Media

_EXIT_CODES = {"completed": 0, "failed": 1, "interrupted": 255}  # W&B shows 255 as killed
_INIT_SECONDS = 30.0


class WandbFormat(TrackerFormat):
    """Logs to Weights & Biases, with the environment step as step.

    Without network, or without ``wandb login``, the run is kept in ``FOLDER/wandb``, from where ``wandb sync`` sends
    it. ``WANDB_MODE=offline`` asks for that from the start; W&B's other variables (``WANDB_ENTITY``,
    ``WANDB_BASE_URL``, …) work as well.
    """

    name: ClassVar[str] = "wandb"
    package: ClassVar[str] = "wandb"
    _run: Any = None

    def _begin(self, known: str | None) -> tuple[str, int]:
        import wandb

        identity = known or uuid.uuid4().hex
        try:
            self._run = self._init(identity, None)
        except wandb.Error as error:
            reason = str(error).strip().partition("\n")[0]
            # W&B keeps the id of the attempt that failed for the rest of this process
            self._run = self._init(uuid.uuid4().hex, "offline")
            identity = known or self._run.id
            command = f"wandb sync --id {identity}" if known else "wandb sync"
            self.message(f"wandb keeps this run in {self._run.settings.sync_dir}; `{command}` sends it ({reason})")
        if self._run.offline:
            return identity, -1
        self.message(f"wandb: {self._run.url}")
        return identity, int(self._run.step) - 1 if self._run.resumed else -1

    def _init(self, identity: str, mode: Any) -> Any:
        import wandb

        # None: as the user's own settings and variables say
        seconds = {} if "WANDB_INIT_TIMEOUT" in os.environ else {"init_timeout": _INIT_SECONDS}
        return wandb.init(
            project=self.run.project,
            name=self.run.name,
            group=self.run.group,
            tags=self.run.tags or None,
            config={**self.run.config, "provenance": dict(self.run.provenance)},
            dir=self.run.folder.resolve(),  # its service has a working directory of its own
            id=identity,
            resume="allow",
            mode=mode,
            reinit="create_new",  # several runs of one process are tracked side by side
            settings=wandb.Settings(console="off", silent=True, **seconds),
        )

    def _log(self, rows: list[Row]) -> None:
        for row in rows:
            media = {key: _as_wandb(value) for key, value in row.media.items()}
            self._run.log({**row.numbers, **media}, step=row.step)

    def _end(self, state: str) -> None:
        self._run.summary["state"] = state
        self._run.finish(exit_code=_EXIT_CODES[state])


def _as_wandb(medium: Media) -> Any:
    import wandb

    if isinstance(medium, Clip):
        return wandb.Video(str(medium.path), format=medium.path.suffix.removeprefix("."))
    return wandb.Image(medium.pixels)
