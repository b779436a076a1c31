"""Trackers that write to a folder of the test, and never to the network."""

import os
import shutil
import tempfile
from importlib.util import find_spec

import pytest

# Trackio reads it when it is imported.
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-")


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory):
    """A database without runs: to make its tables takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    if find_spec("mlflow") is not None:
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow_store(mlflow_database, tmp_path):
    """An empty store, which ``MLFLOW_TRACKING_URI`` leads to."""
    pytest.importorskip("mlflow")
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.delenv("TRACKIO_SPACE_ID", raising=False)
