"""Each tracker's own package stores what was logged: read back from its files, without network."""

import json

import numpy as np
import pytest
from stable_baselines3.common.logger import Image
from stored import mlflow_metrics, wandb_history, wandb_record, wandb_records

from maxent_onpolicy.tracking import MlflowFormat, TrackedRun, TrackioFormat, WandbFormat

CONFIG = {"hyperparameters": {"tau": 0.02, "policy_kwargs": {"net_arch": [64, 64]}}, "env_id": "X-v0", "seed": 3}
PROVENANCE = {"git": {"dirty": False}}
PICTURE = Image(np.full((8, 8, 3), 99, np.uint8), "HWC")


@pytest.fixture
def run(tmp_path):
    return TrackedRun(
        tmp_path / "run",
        "some project",
        "PPO X-v0 seed 3",
        "PPO X-v0",
        ("one", "two"),
        CONFIG,
        {"git": {"dirty": False}},
    )


def log(tracker, steps, state, **extra):
    for step in steps:
        values = {"time/total_timesteps": step, "train/loss": step / 10, "secret": 1, **extra}
        tracker.write(values, {key: (tracker.name,) if key == "secret" else ("stdout",) for key in values}, step)
    tracker.finish(state)


@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("failed", 1), ("interrupted", 255)])
def test_wandb_stores_a_run(run, state, code):
    pytest.importorskip("wandb")
    log(WandbFormat(run), (128, 256), state, picture=PICTURE)
    (records,) = wandb_records(run.folder)
    described = wandb_record(records, "run")
    assert (described.project, described.display_name, described.run_group) == (run.project, run.name, run.group)
    assert list(described.tags) == ["one", "two"]
    config = {item.key: json.loads(item.value_json) for item in described.config.update}
    assert config["hyperparameters"] == CONFIG["hyperparameters"]
    assert config["provenance"] == PROVENANCE
    rows = wandb_history(records)
    assert [(row["_step"], row["train/loss"]) for row in rows] == [(128, 12.8), (256, 25.6)]
    assert "secret" not in rows[0]
    assert rows[0]["picture/_type"] == "image-file"
    assert wandb_record(records, "exit").exit_code == code


def test_wandb_goes_on_in_the_same_run(run):
    pytest.importorskip("wandb")
    log(WandbFormat(run), (128,), "interrupted")
    log(WandbFormat(run), (256,), "completed")
    first, second = wandb_records(run.folder)
    assert wandb_record(first, "run").run_id == wandb_record(second, "run").run_id == run.known_id("wandb")
    assert [row["_step"] for row in wandb_history(second)] == [256]


def test_wandb_without_network_keeps_the_run_here(run, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it reads the variables once in a process
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    messages = []
    for step in (128, 256):
        log(WandbFormat(run, messages.append), (step,), "completed")
    wandb.teardown()
    first, second = wandb_records(run.folder)
    assert [row["train/loss"] for row in (*wandb_history(first), *wandb_history(second))] == [12.8, 25.6]
    identity = wandb_record(first, "run").run_id
    assert run.known_id("wandb") == identity
    assert len(messages) == 2
    assert "`wandb sync` sends it" in messages[0]
    assert f"`wandb sync --id {identity}` sends it" in messages[1]


def test_two_wandb_runs_of_one_process_stay_apart(run, tmp_path):
    pytest.importorskip("wandb")
    other = TrackedRun(tmp_path / "other", run.project)
    trackers = [WandbFormat(run), WandbFormat(other)]
    for step in (1, 2):
        for index, tracker in enumerate(trackers):
            tracker.write({"a": index}, {"a": ()}, step)
    for tracker in trackers:
        tracker.finish()
    values = [[row["a"] for row in wandb_history(wandb_records(folder)[0])] for folder in (run.folder, other.folder)]
    assert values == [[0.0, 0.0], [1.0, 1.0]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "status"), [("completed", "FINISHED"), ("failed", "FAILED"), ("interrupted", "KILLED")]
)
def test_mlflow_stores_a_run(run, mlflow_store, state, status):
    mlflow = pytest.importorskip("mlflow")
    log(MlflowFormat(run), (128, 256), state, picture=PICTURE, **{"odd, (key)": 1.0})
    client = mlflow.MlflowClient()
    stored = client.get_run(run.known_id("mlflow"))
    assert client.get_experiment(stored.info.experiment_id).name == run.project
    assert (stored.info.run_name, stored.info.status) == (run.name, status)
    assert stored.data.params["hyperparameters.tau"] == "0.02"
    assert stored.data.params["hyperparameters.policy_kwargs.net_arch"] == "[64, 64]"
    assert stored.data.tags["provenance.git.dirty"] == "False"
    metrics = mlflow_metrics(client, stored.info.run_id)
    assert metrics["train/loss"] == [(128, 12.8), (256, 25.6)]
    assert metrics["odd_ _key_"] == [(128, 1.0), (256, 1.0)]
    assert "secret" not in metrics
    names = [file.path for file in client.list_artifacts(stored.info.run_id, "picture")]
    assert names == ["picture/step_000000128.png", "picture/step_000000256.png"]


@pytest.mark.slow
def test_mlflow_goes_on_in_the_same_run_without_repeating_steps(run, mlflow_store):
    mlflow = pytest.importorskip("mlflow")
    log(MlflowFormat(run), (128, 256, 384), "failed")
    log(MlflowFormat(run), (256, 384, 512), "completed")  # from a checkpoint at 128
    client = mlflow.MlflowClient()
    (stored,) = client.search_runs([client.get_experiment_by_name(run.project).experiment_id])
    assert stored.info.status == "FINISHED"
    values = sorted(set(mlflow_metrics(client, stored.info.run_id)["train/loss"]))
    assert values == [(128, 12.8), (256, 25.6), (384, 38.4), (512, 51.2)]


def test_mlflow_that_does_not_answer_is_told_once_and_costs_little(run, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    messages = []
    log(MlflowFormat(run, messages.append), (128, 256), "completed")
    assert len(messages) == 2
    assert "mlflow is out of reach" in messages[0]
    assert "the last 2 rows" in messages[1]


def test_trackio_stores_a_run_and_goes_on_in_it(run):
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    log(TrackioFormat(run), (128, 256), "interrupted", picture=PICTURE)
    log(TrackioFormat(run), (256, 384), "completed")
    name = run.known_id("trackio")
    rows = SQLiteStorage.get_logs(run.project, name)
    assert name.startswith(run.name)
    assert [row["step"] for row in rows if "train/loss" in row][-1] == 384
    assert {row["step"]: row["train/loss"] for row in rows} == {128: 12.8, 256: 25.6, 384: 38.4}
    assert all("secret" not in row for row in rows)
    assert rows[0]["picture"]["_type"] == "trackio.image"
    config = SQLiteStorage.get_run_config(run.project, name)
    assert config["hyperparameters"] == CONFIG["hyperparameters"]
    assert config["_Group"] == run.group
