"""``maxent-onpolicy zoo`` as a user meets it: real training, tuning and playing with the real Zoo."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from maxent_onpolicy.cli.main import main
from maxent_onpolicy.zoo import algorithms, settings_file

SMALL = ["-params", "n_envs:2", "n_steps:64", "batch_size:64"]
SHORT = {"mop_sac": ["-params", "learning_starts:100", "buffer_size:1000"]}
STEPS = ["--n-timesteps", "600", "--eval-freq", "300", "--eval-episodes", "2", "--seed", "1", "--device", "cpu"]


def zoo(*arguments: str) -> int:
    replaced = sys.argv
    status = main(["zoo", *arguments])
    assert sys.argv is replaced
    return status


def knows(name: str, env_id: str) -> bool:
    return env_id in yaml.safe_load(settings_file(name).read_text(encoding="utf-8"))


@pytest.fixture
def trained(in_tmp) -> Path:
    assert zoo("train", "--env", "CartPole-v1", *STEPS, *SMALL, "normalize:True", "--save-freq", "300") == 0
    return in_tmp / "logs" / "maxent_ppo" / "CartPole-v1_1"


def test_train_leaves_what_the_zoo_leaves(trained, capsys):
    evaluations = np.load(trained / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [300, 600]
    assert evaluations["results"].shape == (2, 2)
    with (trained / "0.monitor.csv").open() as file:
        assert file.readline().startswith("#")
        assert sum(float(row["l"]) for row in csv.DictReader(file)) > 100
    files = ("CartPole-v1.zip", "best_model.zip", "rl_model_300_steps.zip", "CartPole-v1/vecnormalize.pkl")
    assert all((trained / file).is_file() for file in files)
    config = yaml.load((trained / "CartPole-v1" / "config.yml").read_text(), yaml.UnsafeLoader)
    assert config.items() >= {"tau": 0.02, "entropy_gamma": 0.99, "n_steps": 64, "clip_range": "lin_0.2"}.items()

    for which in ([], ["--load-best"], ["--load-checkpoint", "300"]):
        capsys.readouterr()
        assert zoo("enjoy", "--env", "CartPole-v1", "--no-render", "--n-timesteps", "1100", *which) == 0
        output = capsys.readouterr().out
        assert "Loading running average" in output
        (line,) = [line for line in output.splitlines() if line.startswith("Mean episode length")]
        assert 8 <= float(line.split()[3]) <= 500


def test_a_model_goes_on_where_it_was(trained, capsys):
    agent = str(trained / "CartPole-v1.zip")
    assert zoo("train", "--env", "CartPole-v1", *STEPS, *SMALL, "normalize:True", "-i", agent) == 0
    assert "Loading pretrained agent" in capsys.readouterr().out
    assert (trained.parent / "CartPole-v1_2" / "CartPole-v1.zip").is_file()


def test_a_file_of_ones_own_replaces_the_settings(in_tmp, capsys):
    assert zoo("settings", "maxent_ppo") == 0
    text = capsys.readouterr().out
    assert text == settings_file("maxent_ppo").read_text(encoding="utf-8")
    own = yaml.safe_load(text)
    own["CartPole-v1"] |= {"tau": 0.5, "n_steps": 64, "batch_size": 128, "n_envs": 2}
    Path("my.yml").write_text(yaml.safe_dump(own))
    assert zoo("train", "--env", "CartPole-v1", "--conf-file", "my.yml", "-n", "128", "--eval-freq", "-1") == 0
    assert "('tau', 0.5)" in capsys.readouterr().out


@pytest.mark.slow
def test_tuning_varies_what_our_algorithm_adds(in_tmp, capsys):
    study = ["--storage", "study.log", "--study-name", "s"]
    tune = [
        "-optimize",
        "--n-trials",
        "2",
        "--optimization-log-path",
        "tuned",
        "--pruner",
        "none",
        "--no-optim-plots",
        *study,
    ]
    assert zoo("train", "--env", "CartPole-v1", *STEPS, *tune, "--optimization-log-path", "tuned") == 0
    (report,) = (in_tmp / "logs" / "maxent_ppo").glob("report_CartPole-v1_2-trials-*.csv")
    with report.open() as file:
        trials = list(csv.DictReader(file))
    assert [trial["state"] for trial in trials] == ["COMPLETE", "COMPLETE"]
    assert all(8 <= float(trial["value"]) <= 500 for trial in trials)
    for name, low, high in (("tau", 1e-5, 0.3), ("one_minus_entropy_gamma", 0.003, 0.3), ("entropy_gae_lambda", 0, 1)):
        first, second = (float(trial[f"params_{name}"]) for trial in trials)
        assert first != second
        assert low <= min(first, second) <= max(first, second) <= high
    assert (in_tmp / "tuned" / "trial_1" / "best_model.zip").is_file()

    assert zoo("train", "--env", "CartPole-v1", "-n", "1", "--eval-freq", "-1", *study, "--trial-id", "1") == 0
    (config_file,) = (in_tmp / "logs").rglob("config.yml")
    config = yaml.load(config_file.read_text(), yaml.UnsafeLoader)
    assert config["tau"] == float(trials[1]["params_tau"])
    assert config["entropy_gamma"] == 1 - float(trials[1]["params_one_minus_entropy_gamma"])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(algorithms()))
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_every_algorithm_trains_and_plays(in_tmp, capsys, name, env_id):
    if not knows(name, env_id):
        pytest.skip(f"{name} has continuous actions only")
    assert zoo("train", "--algo", name, "--env", env_id, *STEPS, *SHORT.get(name, SMALL)) == 0
    capsys.readouterr()
    assert zoo("enjoy", "--algo", name, "--env", env_id, "--no-render", "--load-best") == 0
    assert "Mean reward" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(algorithms()))
def test_every_algorithm_can_be_tuned(in_tmp, capsys, name):
    tune = ["-optimize", "--n-trials", "2", "--no-optim-plots"]
    env_id = "CartPole-v1" if knows(name, "CartPole-v1") else "Pendulum-v1"
    assert zoo("train", "--algo", name, "--env", env_id, *STEPS, *tune, *SHORT.get(name, SMALL)) == 0
    assert "Number of finished trials:  2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tarin"], "unknown command 'tarin' (did you mean 'train'?); there are train, enjoy, settings"),
        (["train", "--env", "CartPol-v1"], "there is no environment 'CartPol-v1' (did you mean 'CartPole-v1'?)"),
        (["train", "--gym-packages", "no_such_package"], "--gym-packages: No module named 'no_such_package'"),
        (["train", "-i", "nowhere.zip"], "--trained-agent: there is no model 'nowhere.zip'"),
        (["train", "--conf-file", "nowhere.yml"], "No such file or directory: 'nowhere.yml'"),
        (["train", "-params", "tua:0.1"], "unexpected keyword argument 'tua'"),
        (["train", "-params", "tau:-1.0"], "`tau` must be in [0, inf), got -1.0"),
        (["enjoy", "--env", "Acrobot-v1"], "The logs/maxent_ppo folder was not found"),
        (["enjoy", "--folder", "elsewhere"], "The elsewhere/maxent_ppo folder was not found"),
        (["settings", "ppo"], "name one of maxent_ppo, "),
        (["settings"], "name one of maxent_ppo, "),
    ],
)
def test_mistakes_are_explained(in_tmp, capsys, arguments, message):
    assert zoo(*arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors


def test_without_the_zoo_it_says_what_to_install(in_tmp, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    assert zoo("train") == 2
    assert 'pip install "maxent-onpolicy[zoo]"' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        zoo("--help")
    assert "maxent_ppo" in capsys.readouterr().out
