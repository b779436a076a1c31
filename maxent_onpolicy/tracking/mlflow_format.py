"""MLflow."""

import os
import re
import time
from typing import Any, ClassVar

from maxent_onpolicy.tracking.base import Row, TrackerFormat
from maxent_onpolicy.tracking.media import Clip
from maxent_onpolicy.tracking.run import flatten

_STATUSES = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_STEPS = "time/total_timesteps"  # SB3 logs it in every row
_LONGEST = 500
# MLflow would retry for minutes, with training waiting; rows that fail are kept and sent later instead
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowFormat(TrackerFormat):
    """Logs to MLflow: settings as parameters, provenance as tags, rows as metrics with the environment step as step.

    ``MLFLOW_TRACKING_URI`` says where; without it MLflow writes to ``mlflow.db`` and ``mlruns`` here. No run is made
    the active one of ``mlflow``'s own functions.
    """

    name: ClassVar[str] = "mlflow"
    package: ClassVar[str] = "mlflow"
    every_seconds: ClassVar[float] = 5.0  # each call of its database takes ten milliseconds
    _client: Any = None
    _id = ""

    def _begin(self, known: str | None) -> tuple[str, int]:
        for variable, value in _PATIENCE.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._client = MlflowClient()
        if known is not None:
            try:
                self._client.update_run(known, "RUNNING")
                history = self._client.get_metric_history(known, _STEPS)
                self._id = known
                return known, max((metric.step for metric in history), default=-1)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self.message(f"mlflow has lost run {known}, which goes on as a new one")
        self._id = self._create()
        return self._id, -1

    def _create(self) -> str:
        from mlflow.entities import Param

        experiment = self._client.get_experiment_by_name(self.run.project)
        experiment_id = (
            self._client.create_experiment(self.run.project) if experiment is None else experiment.experiment_id
        )
        provenance = {f"provenance.{key}": str(value) for key, value in flatten(self.run.provenance).items()}
        tags = {**provenance, "group": self.run.group or "", "tags": ", ".join(self.run.tags)}
        run = self._client.create_run(experiment_id, run_name=self.run.name, tags=tags)
        identity = str(run.info.run_id)
        params = [Param(_key(key), str(value)[:_LONGEST]) for key, value in flatten(self.run.config).items()]
        for start in range(0, len(params), 100):  # as many as MLflow takes at once
            self._client.log_batch(identity, params=params[start : start + 100])
        return identity

    def _log(self, rows: list[Row]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_key(name), value, now, row.step) for row in rows for name, value in row.numbers.items()]
        for start in range(0, len(metrics), 1000):  # as many as MLflow takes at once
            self._client.log_batch(self._id, metrics=metrics[start : start + 1000])
        for row in rows:
            for name, medium in row.media.items():
                if isinstance(medium, Clip):
                    self._client.log_artifact(self._id, str(medium.path), _key(name))
                else:
                    self._client.log_image(self._id, medium.pixels, f"{_key(name)}/step_{row.step:09d}.png")

    def _end(self, state: str) -> None:
        self._client.set_terminated(self._id, _STATUSES[state])


def _key(name: str) -> str:
    """Return ``name`` with what MLflow does not allow replaced."""
    return re.sub(r"[^\w\-./ ]", "_", name)
