"""Trackers for users of the Python interface."""

import json

import numpy as np
import pytest
from stored import mlflow_metrics, tensorboard_scalars

from maxent_onpolicy import MaxEntPPO
from maxent_onpolicy.tracking import describe_model, make_logger

SETTINGS = {"n_steps": 64, "batch_size": 64, "n_epochs": 1, "seed": 5, "device": "cpu"}


def make_model(**settings):
    return MaxEntPPO("MlpPolicy", "CartPole-v1", tau=0.02, **SETTINGS, **settings)


def test_a_model_is_described_by_what_it_was_made_with():
    described = describe_model(make_model(learning_rate=lambda progress: 1e-3, policy_kwargs={"net_arch": [8]}))
    assert described["algorithm"] == "MaxEntPPO"
    assert described["env_id"] == "CartPole-v1"
    assert (described["seed"], described["n_envs"]) == (5, 1)
    settings = described["hyperparameters"]
    assert (settings["tau"], settings["n_steps"], settings["policy_kwargs"]) == (0.02, 64, {"net_arch": [8]})
    json.dumps(described)
    assert " at 0x" not in str(described)


@pytest.mark.slow
def test_two_lines_track_a_model(tmp_path, mlflow_store):
    mlflow = pytest.importorskip("mlflow")
    model = make_model()
    with make_logger(tmp_path / "run", ["csv", "tensorboard", "mlflow"], model=model, project="p") as logger:
        model.set_logger(logger)
        model.learn(128)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("p").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["hyperparameters.tau"] == "0.02"
    metrics = mlflow_metrics(client, run.info.run_id)
    scalars = tensorboard_scalars(tmp_path / "run" / "tensorboard")
    assert scalars["train/entropy"]
    np.testing.assert_allclose(metrics["train/entropy"], scalars["train/entropy"], rtol=1e-6)
    assert (tmp_path / "run" / "progress.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_block_that_fails_is_told(tmp_path, mlflow_store, error, status):
    mlflow = pytest.importorskip("mlflow")
    with pytest.raises(error), make_logger(tmp_path, ["mlflow"]):
        raise error
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("maxent-onpolicy").experiment_id])
    assert run.info.status == status


def test_a_format_that_is_misspelt_is_named(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'wandb'"):
        make_logger(tmp_path / "run", ["csv", "wanbd"])
    assert not (tmp_path / "run").exists()
