"""The commands as a user meets them: what they print, how they exit, what they refuse."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import command, environment, run_command

from maxent_onpolicy import PPO, __version__
from maxent_onpolicy.cli.config import make_config
from maxent_onpolicy.cli.main import COMMANDS, main
from maxent_onpolicy.controllers import CONTROLLERS
from maxent_onpolicy.evaluation.runs import RunDirectory
from maxent_onpolicy.games.registry import list_games
from maxent_onpolicy.llm.methods import METHODS

SHORT = ["--timesteps", "512", "--n-steps", "128", "--batch-size", "64", "--n-epochs", "1", "--device", "cpu"]
SHORT += ["--eval-episodes", "2", "--eval-every", "256"]
PLACE = Path("results/local/runs/PPO/CartPole-v1/seed_0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A directory in which one run was trained through the command line."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_command("train", "ppo", "CartPole-v1", *SHORT, "--normalize-observation", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "PPO on CartPole-v1, seed 0" in done.stdout
    assert "deterministic return" in done.stdout
    assert "completed; model in" in done.stdout
    return folder


@pytest.fixture
def here(trained, monkeypatch) -> Path:
    monkeypatch.chdir(trained)
    monkeypatch.setenv("COLUMNS", "80")
    return trained


def test_train_writes_a_run_that_says_how_it_was_made(here):
    run = RunDirectory(PLACE)
    assert run.completed
    expected = {"n_steps": 128, "batch_size": 64, "n_epochs": 1, "device": "cpu"}
    assert run.config["hyperparameters"] == expected
    assert run.config["environment"]["normalize_observation"] is True
    assert run.provenance["command"].startswith("maxent-onpolicy train ppo CartPole-v1 --timesteps 512")
    assert sorted(set(run.read_eval()["timesteps"])) == [0, 256, 512]


def test_evaluate_reads_a_run_directory_or_its_model(here, capsys):
    assert main(["evaluate", str(PLACE), "--episodes", "4"]) == 0
    output = capsys.readouterr().out
    assert "PPO on CartPole-v1" in output
    for mode in ("deterministic", "stochastic"):
        (row,) = [line.split() for line in output.splitlines() if line.startswith(mode)]
        assert row[1] == "4"
        assert 8 <= float(row[2]) <= 500
        assert float(row[4]) <= float(row[2]) <= float(row[5])
    assert main(["evaluate", str(PLACE / "model.zip"), "--episodes", "4"]) == 0
    assert capsys.readouterr().out == output, "the same seed gives the same episodes"


def test_evaluate_needs_to_know_what_a_lone_model_is(here, capsys, tmp_path):
    model = tmp_path / "model.zip"
    model.write_bytes((PLACE / "model.zip").read_bytes())
    assert main(["evaluate", str(model)]) == 2
    assert "say what it is with --algorithm and --env" in capsys.readouterr().err
    statistics = ["--normalization", str(PLACE / "normalization.npz")]
    alone = ["evaluate", str(model), "--algorithm", "ppo", "--env", "CartPole-v1", "--episodes", "4", *statistics]
    assert main(alone) == 0
    lone = capsys.readouterr().out
    assert main(["evaluate", str(PLACE), "--episodes", "4"]) == 0
    assert capsys.readouterr().out == lone
    model.write_bytes(b"no model")
    assert main(alone) == 2
    assert "model.zip" in capsys.readouterr().err


def test_report_and_its_summary(here, capsys):
    assert main(["report", "results/local"]) == 0
    output = capsys.readouterr().out
    assert "CartPole-v1" in output
    assert output.rstrip().endswith("report: results/local/report.html")
    assert all(len(line.rstrip()) <= 80 for line in output.splitlines())


def test_a_report_loads_no_torch(here):
    code = "import sys; from maxent_onpolicy.cli.main import main\nassert main(['report', 'results/local']) == 0\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian' (did you mean 'train'?)"),
        (["train"], "train needs an algorithm: maxent-onpolicy train ALGORITHM ENVIRONMENT"),
        (["train", "PPO"], "train needs an environment"),
        (["train", "PP", "CartPole-v1"], "unknown algorithm 'PP' (did you mean 'PPO'?)"),
        (["train", "PPO", "CartPol-v1"], "no environment 'CartPol-v1' is registered; the closest are 'CartPole-v1'"),
        (["train", "PPO", "CartPole-v1", "--timestep", "9"], "unknown option --timestep (did you mean '--timesteps'?)"),
        (["train", "PPO", "CartPole-v1", "--tau", "0.1"], "unknown option --tau"),
        (["train", "MaxEntPPO", "CartPole-v1", "--tau", "-1"], "`tau` must be in [0, inf), got -1"),
        (["train", "PPO", "CartPole-v1", "--set", "gamma"], "--set expects key=value, got 'gamma'"),
        (["train", "PPO", "CartPole-v1", "--set", "gama=1"], "unknown option --gama (did you mean '--gamma'?)"),
        (["train", "PPO", "CartPole-v1", "--timesteps", "0"], "total_timesteps: expected a whole number of at least 1"),
        (["train", "PPO", "CartPole-v1", "--config", "none.yaml"], "none.yaml: No such file"),
        (["train", "PPO", "CartPole-v1", *SHORT, "--normalize-observation"], "holds this run, completed"),
        (["train", "PPO", "CartPole-v1", *SHORT], "environment.normalize_observation: True → False"),
        (["train", "--resume", str(PLACE)], "is completed; there is nothing to resume"),
        (["train", "--resume", "nowhere"], "nowhere is no run that can be resumed"),
        (["train", "--resume", str(PLACE), "--gamma", "0.9"], "--resume takes all settings from the run"),
        (["evaluate", "nowhere"], "there is no run directory and no model at nowhere"),
        (["evaluate", str(PLACE), "--modes", "greedy"], "`--modes` must be one of 'deterministic', 'stochastic'"),
        (["evaluate", str(PLACE), "--episodes", "0"], "`episodes` must be in [1"),
        (["evaluate", str(PLACE), "--normalization", "none.npz"], "--normalization: there is no file none.npz"),
        (["train", "PPO", "CartPole-v1", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["train", "PPO", "CartPole-v1", "--device", "gpu"], "PPO on CartPole-v1: Expected one of cpu"),
        (["train", "PPO", "CartPole-v1", "--policy", "CnnPolicy"], "PPO on CartPole-v1: You should use NatureCNN only"),
        (["train", "PPO", "CartPole-v1", *SHORT, "--results", str(PLACE / "config.json")], "--results: cannot write"),
        (["train", "PPO", "CartPole-v1", "--suite", "../up"], "the suite's name is the name of a directory"),
        (["train", "MaxEntPPO", "CartPole-v1", "--tau", "nan"], "`tau` must be a number of at least 0, a schedule"),
        (["report", "nowhere"], "there is no results directory nowhere"),
        (["report", "results"], "it holds results in local"),
    ],
)
def test_mistakes_are_errors_without_traceback(here, capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
    assert error.count("\n") == 1


def test_statistics_for_a_model_that_does_not_normalise_are_refused(here, capsys, tmp_path):
    assert main(["train", "PPO", "CartPole-v1", *SHORT, "--results", str(tmp_path)]) == 0
    raw = str(tmp_path / "local/runs/PPO/CartPole-v1/seed_0")
    statistics = str(PLACE / "normalization.npz")
    assert main(["evaluate", raw, "--normalization", statistics]) == 2
    assert "was trained without normalisation" in capsys.readouterr().err


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_teaches_with_examples_in_80_columns(in_tmp, capsys, command):
    try:
        status = main([command, "--help"])
    except SystemExit as stop:
        status = stop.code
    assert status == 0
    output = capsys.readouterr().out
    assert f"\n  maxent-onpolicy {command}" in output, "it shows examples"
    assert f"usage: maxent-onpolicy {command}" in output
    assert max(len(line.rstrip()) for line in output.splitlines()) <= 80


def test_help_lists_the_hyperparameters_of_an_algorithm(in_tmp, capsys):
    with pytest.raises(SystemExit):
        main(["train", "maxentppo", "--help"])
    output = capsys.readouterr().out
    assert "hyperparameters of MaxEntPPO" in output
    assert "--entropy-gae-lambda" in output
    assert "temperature: a float, a function of" in output
    assert "--tau                     linear:0.1:0:0.25 " in output
    assert "usage: maxent-onpolicy train [-h] [OPTIONS] ALGORITHM ENVIRONMENT" in output


def test_the_program_introduces_itself(in_tmp, capsys):
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"\n  {command} " in output for command in COMMANDS)
    assert main([]) == 2
    assert capsys.readouterr().out == output
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"maxent-onpolicy {__version__}\n"


def test_list_names_what_there_is(in_tmp, capsys):
    assert main(["list"]) == 0
    output = capsys.readouterr().out
    for name in ("MaxEntPPO", "HalfCheetah-v5", "CartPole-v1", "quick", "smoke"):
        assert name in output
    assert all(len(line.rstrip()) <= 80 for line in output.splitlines())
    assert main(["list", "algorithms"]) == 0
    assert "CartPole" not in capsys.readouterr().out


def test_list_shows_games_with_their_texts_beside_them(in_tmp, capsys):
    assert main(["list", "games"]) == 0
    output = capsys.readouterr().out
    lines = [line.rstrip() for line in output.splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) < 2 * len(list_games()) + 4
    assert "  matching_pennies               matrix game, 2 × 2, value 0" in lines
    words = " ".join(output.split())
    assert all(f" {name} {text}" in words for name, text in list_games())


def test_list_names_the_environments_of_extras(in_tmp, capsys):
    assert main(["list", "environments"]) == 0
    shown = capsys.readouterr().out
    assert "procgen:coinrun" in shown
    assert "openspiel:kuhn_poker" in shown
    assert "MiniGrid-DoorKey-8x8-v0" in shown


def test_list_shows_methods_for_language_models(in_tmp, capsys):
    assert main(["list", "llm-methods"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in METHODS)
    assert "arXiv:2505.22617, formula from the authors' code" in " ".join(output.split())
    assert all(len(line.rstrip()) <= 80 for line in output.splitlines())


def test_list_shows_controllers_with_their_defaults(in_tmp, capsys):
    assert main(["list", "controllers"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in CONTROLLERS)
    assert "entropy_weight=0.5, reward_weight=0.3, window=10" in output
    assert all(len(line.rstrip()) <= 80 for line in output.splitlines())


@pytest.mark.parametrize(
    "written",
    [["--controllers", "[{ppo_br: {window: 5}}]"], ["--set", "controllers.ppo_br.window=5"]],
    ids=["as an option", "by path"],
)
def test_train_takes_controllers(in_tmp, written):
    assert main(["train", "PPO", "CartPole-v1", *SHORT, *written]) == 0
    model = PPO.load(RunDirectory(PLACE).model, device="cpu")
    assert [type(each).__name__ for each in model.controllers] == ["PPOBR"]
    assert model.controllers[0].window == 5
    assert model.controllers[0].clip_range > 0.2


def test_a_misspelt_controller_is_named(in_tmp, capsys):
    assert main(["train", "PPO", "CartPole-v1", *SHORT, "--controllers", "ppo_rb"]) == 2
    assert "got 'ppo_rb' (did you mean 'ppo_br'?)" in capsys.readouterr().err


def test_an_unreadable_suite_does_not_break_the_list(in_tmp, capsys):
    own = in_tmp / "benchmarks" / "suites"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("a: [")
    assert main(["list", "suites"]) == 0
    assert "mine" in capsys.readouterr().out


def test_a_config_file_is_overridden_by_options(here, capsys):
    """A run's own config.json repeats it; with another seed its evaluations have other seeds too."""
    assert main(["train", "--config", str(PLACE / "config.json"), "--seed", "4", "--timesteps", "128"]) == 0
    run, first = RunDirectory(PLACE.parent / "seed_4"), RunDirectory(PLACE)
    assert run.config["hyperparameters"] == first.config["hyperparameters"]
    assert run.config["environment"] == first.config["environment"]
    assert run.config["total_timesteps"] == 128
    assert run.config["evaluation"]["seed"] == first.config["evaluation"]["seed"] + 4


def test_restart_discards_the_run_that_is_there(in_tmp, capsys):
    config = make_config(
        {"total_timesteps": 9}, "test", suite="local", label="PPO", algorithm="PPO", env_id="CartPole-v1", seed=0
    )
    RunDirectory.create(PLACE, config.to_json(), {})
    arguments = ["train", "PPO", "CartPole-v1", *SHORT, "--no-model"]
    assert main(arguments) == 2
    assert main([*arguments, "--restart"]) == 0
    assert RunDirectory(PLACE).config["total_timesteps"] == 512
    assert not RunDirectory(PLACE).model.exists()


def test_an_unfinished_run_is_resumed(in_tmp, capsys):
    hyperparameters = {"n_steps": 64, "device": "cpu"}
    settings = {"total_timesteps": 128, "hyperparameters": hyperparameters, "evaluation": {"episodes": 1}}
    who = {"suite": "local", "label": "PPO", "algorithm": "PPO", "env_id": "CartPole-v1", "seed": 0}
    RunDirectory.create(PLACE, make_config(settings, "test", **who).to_json(), {})
    same = ["--timesteps", "128", "--n-steps", "64", "--device", "cpu", "--eval-episodes", "1"]
    assert main(["train", "PPO", "CartPole-v1", *same]) == 2
    assert f"go on with --resume {PLACE}" in capsys.readouterr().err
    assert main(["train", "--resume", str(PLACE)]) == 0
    assert RunDirectory(PLACE).completed
    assert main(["evaluate", str(PLACE), "--episodes", "1"]) == 0
    (PLACE / "model.zip").unlink()
    assert main(["evaluate", str(PLACE)]) == 2
    assert "keeps no model" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(in_tmp):
    shell = f"{shlex.join(command('bench', '--help'))} | head -1"
    done = subprocess.run(["bash", "-c", shell], env=environment(), capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("Run every algorithm")
    assert done.stderr == ""
