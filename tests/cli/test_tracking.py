"""Runs of the command line are tracked: by TensorBoard unless told otherwise, by others when asked."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import write_suite
from test_runner import make_run

from maxent_onpolicy.cli.main import main
from maxent_onpolicy.cli.runner import Reporter, Stopped, execute
from maxent_onpolicy.cli.tracking import Tracking
from maxent_onpolicy.evaluation.runs import RunDirectory
from maxent_onpolicy.tracking.run import read_memory

sys.path.append(str(Path(__file__).parents[1] / "tracking"))
from stored import tensorboard_scalars, wandb_history, wandb_record, wandb_records

PLACE = Path("results/local/runs/PPO/CartPole-v1/seed_0")
LOGGED = list(range(256, 1025, 128))  # SB3 writes what an update records with the next rollout's row
SHORT = ["--timesteps", "256", "--n-steps", "128", "--n-epochs", "1", "--eval-episodes", "1", "--eval-every", "128"]
SHORT += ["--device", "cpu"]


def stop_at(step):
    def stop(timesteps, results):
        if timesteps == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return Reporter(evaluated=stop, message=lambda text: None)


def test_tensorboard_shows_what_the_csv_files_say(tmp_path):
    run = make_run(tmp_path / "seed_1")
    execute(run)
    scalars = tensorboard_scalars(run.path / "tensorboard")
    train, evaluations = run.read_train(), run.read_eval()
    for name in ("train/entropy", "train/tau", "rollout/ep_rew_mean"):
        told = train[["timesteps", name]].dropna()
        assert len(told) > 5
        np.testing.assert_allclose(scalars[name], told.to_numpy(), rtol=5e-5)  # five digits
    means = evaluations.groupby(["mode", "timesteps"])[["return", "length"]].mean()
    for mode in ("deterministic", "stochastic"):
        for what in ("return", "length"):
            stored = dict(scalars[f"eval/{mode}_{what}"])
            assert stored == pytest.approx(means.loc[mode][what].to_dict())
    assert set(stored) == {0, 300, 600, 900, 1024}


def test_a_resumed_run_shows_every_step_once(tmp_path):
    run = make_run(tmp_path / "seed_1")
    with pytest.raises(Stopped):
        execute(run, reporter=stop_at(600))
    execute(RunDirectory(run.path))
    assert len(list((run.path / "tensorboard").iterdir())) == 2
    scalars = tensorboard_scalars(run.path / "tensorboard")
    assert [step for step, _ in scalars["train/entropy"]] == LOGGED
    assert [step for step, _ in scalars["eval/stochastic_return"]] == [0, 300, 600, 900, 1024]


def test_tracking_leaves_training_as_it_is(tmp_path):
    plain, watched = make_run(tmp_path / "a", total_timesteps=256), make_run(tmp_path / "b", total_timesteps=256)
    execute(plain, tracking=Tracking(()))
    execute(watched, tracking=Tracking(("tensorboard",)))
    assert not (plain.path / "tensorboard").exists()
    assert (plain.path / "eval.csv").read_bytes() == (watched.path / "eval.csv").read_bytes()


@pytest.mark.slow
def test_wandb_goes_on_after_an_interruption_without_being_asked_again(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = make_run(tmp_path / "seed_1")
    with pytest.raises(Stopped):
        execute(run, reporter=stop_at(600), tracking=Tracking(("tensorboard", "wandb"), "my-project"))
    execute(RunDirectory(run.path), reporter=Reporter(message=lambda text: None))
    first, second = wandb_records(run.path)
    for records, code in ((first, 255), (second, 0)):
        described = wandb_record(records, "run")
        assert described.run_id == run_id(run)
        assert described.project == "my-project"
        assert described.display_name == "MaxEntPPO CartPole-v1 seed 1"
        assert wandb_record(records, "exit").exit_code == code
    rows = [*wandb_history(first), *wandb_history(second)]
    steps = [row["_step"] for row in rows if "train/entropy" in row]
    assert steps == LOGGED
    assert [row["_step"] for row in rows if "eval/stochastic_return" in row] == [0, 300, 600, 900, 1024]


def run_id(run):
    return read_memory(run.path)["ids"]["wandb"]


def test_a_run_that_fails_says_so(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    run = make_run(tmp_path / "seed_1", env_id="broken_envs:Exploding-v0", environment={"kwargs": {"steps": 100}})
    with pytest.raises(RuntimeError, match="the simulator exploded"):
        execute(run, reporter=stop_at(-1), tracking=Tracking(("wandb",)))
    (records,) = wandb_records(run.path)
    assert wandb_record(records, "exit").exit_code == 1


def test_options_of_train(in_tmp, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["train", "PPO", "CartPole-v1", *SHORT]) == 0
    assert (PLACE / "tensorboard").is_dir()
    assert not (PLACE / "tracking.json").exists()
    options = ["--restart", "--no-tensorboard", "--tracker", "wandb", "--project", "p"]
    assert main(["train", "PPO", "CartPole-v1", *SHORT, *options]) == 0
    assert not (PLACE / "tensorboard").exists()
    (records,) = wandb_records(PLACE)
    assert wandb_record(records, "run").project == "p"


@pytest.mark.slow
def test_options_of_bench_reach_every_run(in_tmp, monkeypatch):
    pytest.importorskip("wandb").teardown()  # a child process would share this one's service
    monkeypatch.setenv("WANDB_MODE", "offline")
    suite = write_suite(in_tmp, seeds=[0, 1])
    options = ["--tracker", "wandb", "--project", "p", "--no-report", "--no-tensorboard", "--vectorise-seeds"]
    assert main(["bench", str(suite), *options]) == 0
    places = [Path(f"results/tiny/runs/PPO/CartPole-v1/seed_{seed}") for seed in (0, 1)]
    names = [wandb_record(wandb_records(place)[0], "run").display_name for place in places]
    assert names == ["PPO CartPole-v1 seed 0", "PPO CartPole-v1 seed 1"]
    for place in places:
        assert not (place / "tensorboard").exists()
        steps = [row["_step"] for row in wandb_history(wandb_records(place)[0]) if "train/entropy" in row]
        assert steps == list(range(256, 769, 128))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tracker", "wanbd"], "did you mean 'wandb'?"),
        (["--tracker", "tensorboard", "--no-tensorboard"], "exclude each other"),
        (["--project", "p"], "--project needs a --tracker other than tensorboard"),
        (["--tracker", "wandb", "--project", " "], "--project must not be empty"),
    ],
)
@pytest.mark.parametrize("command", [["train", "PPO", "CartPole-v1"], ["bench", "quick"]], ids=["train", "bench"])
def test_mistakes_are_told_before_anything_is_made(in_tmp, capsys, command, options, message):
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not Path("results").exists()


def test_a_tracker_that_is_not_installed_is_named(in_tmp, capsys, monkeypatch):
    monkeypatch.setattr("maxent_onpolicy.tracking.base.find_spec", lambda name: None)
    assert main(["train", "PPO", "CartPole-v1", "--tracker", "mlflow"]) == 2
    assert "pip install 'maxent-onpolicy[tracking]'" in capsys.readouterr().err
