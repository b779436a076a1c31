"""Trackio."""

import os
import uuid
from contextlib import redirect_stdout
from contextvars import Context
from typing import Any, ClassVar

from maxent_onpolicy.tracking.base import Row, TrackerFormat
from maxent_onpolicy.tracking.media import Clip, Media


class TrackioFormat(TrackerFormat):
    """Logs to Trackio, with the environment step as step.

    Runs are kept on this machine; ``TRACKIO_DIR`` says where, ``TRACKIO_SPACE_ID`` sends them to a Hugging Face Space.
    Trackio knows a run by its name and keeps no record of how it ended.
    """

    name: ClassVar[str] = "trackio"
    package: ClassVar[str] = "trackio"
    _run: Any = None

    def _begin(self, known: str | None) -> tuple[str, int]:
        import trackio

        name = known or f"{self.run.name or 'run'}-{uuid.uuid4().hex[:8]}"
        config = {**self.run.config, "provenance": dict(self.run.provenance)}
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            # In a context of its own: Trackio would end the run that is being tracked in this one.
            self._run = Context().run(
                trackio.init,
                self.run.project,
                name=name,
                group=self.run.group,
                config=config,
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        return name, int(self._run._next_step) - 1

    def _log(self, rows: list[Row]) -> None:
        for row in rows:
            media = {key: _as_trackio(value) for key, value in row.media.items()}
            self._run.log({**row.numbers, **media}, step=row.step)

    def _end(self, state: str) -> None:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            self._run.finish()


def _as_trackio(medium: Media) -> Any:
    import trackio

    return trackio.Video(medium.path) if isinstance(medium, Clip) else trackio.Image(medium.pixels)
