"""SAC in the commands: a suite's runs, also on environments that step on tensors, reported and evaluated again."""

from copy import deepcopy

import pytest
from command_line import run_command, write_suite

from maxent_onpolicy.cli.build import make_model, make_training_env
from maxent_onpolicy.cli.config import make_config
from maxent_onpolicy.evaluation.runs import RunDirectory

SAC = {"learning_starts": 64, "buffer_size": 1000, "batch_size": 16, "train_freq": [8, "step"], "device": "cpu"}


@pytest.mark.parametrize("name", ["SAC", "SB3 SAC"])
def test_making_a_model_leaves_the_settings_as_they_were_given(name):
    """SB3 writes into the dictionary; a benchmark given again would find runs of other settings."""
    hyperparameters = SAC | {"use_sde": True, "policy_kwargs": {"net_arch": [8]}}
    who = {"suite": "s", "label": name, "algorithm": name, "env_id": "Pendulum-v1", "seed": 1}
    settings = {"total_timesteps": 100, "n_envs": 1, "hyperparameters": hyperparameters}
    config = make_config(deepcopy(settings), "test", **who)
    before = deepcopy(config.to_json())
    make_model(config, make_training_env(config))
    assert config.to_json() == before


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["gymnasium", "torch"])
def test_a_benchmark_trains_evaluates_and_reports_sac(tmp_path, backend):
    defaults = {
        "total_timesteps": 1696,  # SB3's off-policy algorithms log every four episodes, of 200 steps each
        "n_envs": 4,
        "backend": backend,
        "evaluation": {"every": 800, "episodes": 2},
    }
    path = write_suite(
        tmp_path,
        defaults=defaults,
        algorithms={"SAC": {"hyperparameters": SAC | {"policy_kwargs": {"net_arch": [8]}}}},
        environments={"Pendulum-v1": {}},
    )
    done = run_command("bench", path, "--results", "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "SAC" in (tmp_path / "results" / "tiny" / "report.md").read_text()
    (folder,) = (tmp_path / "results" / "tiny" / "runs").glob("*/*/seed_0")
    run = RunDirectory(folder)
    assert run.completed
    assert sorted(set(run.read_eval()["timesteps"])) == [0, 800, 1600, 1696]
    log = run.read_train()
    assert {"train/q_value", "train/update_to_data"} <= set(log)
    assert log["rollout/ep_rew_mean"].notna().any()

    done = run_command("evaluate", folder, "--episodes", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
