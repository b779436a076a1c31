"""Runs of language models: from a suite to a table, interrupted and resumed, and what is refused."""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import command, environment, wait_until

pytest.importorskip("trl")
pytest.importorskip("reasoning_gym")

from maxent_onpolicy.cli.config import RunConfig, make_config
from maxent_onpolicy.cli.llm.command import find_config
from maxent_onpolicy.cli.llm.command import main as llm
from maxent_onpolicy.cli.llm.settings import TextRun, check_run
from maxent_onpolicy.cli.llm.training import unpacked
from maxent_onpolicy.cli.llm.warm_start import folder_of, read_note, warm_start
from maxent_onpolicy.cli.main import main
from maxent_onpolicy.cli.runner import Reporter, Stopped, StopRequest, execute
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.runs import RunDirectory

QUESTIONS = "reasoning_gym:leg_counting"
SUITE: dict[str, Any] = {
    "name": "questions",
    "seeds": [3],
    "defaults": {
        "total_timesteps": 24,
        "n_envs": 8,
        "environment": {"kwargs": {"train": 8, "validation": 2, "test": 4, "max_turn_tokens": 6, "max_turns": 1}},
        "hyperparameters": {"num_generations": 4, "warm_start": {"steps": 3, "batch_size": 2, "vocab_size": 300}},
        "evaluation": {"every": 16, "episodes": 4, "modes": ["stochastic"], "test_kwargs": {"split": "test"}},
    },
    "algorithms": {
        "GRPO": {},
        "MaxEnt GRPO": {
            "algorithm": "GRPO",
            "hyperparameters": {
                "tau": 0.5,
                "entropy_critic_width": 16,
                "methods": ["siren"],
                "learning_rate": 0.01,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 1,  # two updates a batch
            },
        },
    },
    "environments": {QUESTIONS: {}},
}


@pytest.fixture
def suite(in_tmp: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The suite's file; warm starts are made once for all tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    path = in_tmp / "questions.yaml"
    path.write_text(yaml.safe_dump(SUITE, sort_keys=False))
    return path


def config_of(suite: Path, label: str = "MaxEnt GRPO") -> RunConfig:
    from maxent_onpolicy.cli.llm.command import SuiteOptions

    return find_config(SuiteOptions(suite=str(suite), algorithm=label))


def trained(config: RunConfig, path: Path) -> RunDirectory:
    run = RunDirectory.create(path, config.to_json(), {})
    execute(run, reporter=Reporter(message=lambda text: None))
    return RunDirectory(path)


@pytest.mark.slow
def test_a_suite_of_a_language_model_ends_in_a_table(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(suite), "--jobs", "1"]) == 0
    shown = capsys.readouterr().out

    assert "reasoning_gym" in shown
    assert "report:" in shown
    for label in SUITE["algorithms"]:
        run = RunDirectory(Path("results/questions/runs") / label / QUESTIONS.replace(":", "_") / "seed_3")
        assert run.completed
        assert run.model.is_file()
        assert not run.checkpoint.exists()
        evaluated = run.read_eval()
        assert sorted(set(evaluated["timesteps"])) == [0, 16, 24]
        assert set(evaluated["split"]) == {"train", "test"}
        assert set(evaluated["mode"]) == {"stochastic"}
        rows = run.read_train()
        assert list(rows["timesteps"]) == [8, 16, 24]
        assert {"rollout/ep_rew_mean", "train/entropy", "train/loss"} <= set(rows)
        assert ("train/entropy_explained_variance" in rows) == (label == "MaxEnt GRPO")
        assert not [path for path in run.path.iterdir() if path.is_dir() and path.name != "tensorboard"]
    assert main(["bench", str(suite), "--jobs", "1"]) == 0  # nothing is run twice
    assert "2 completed" in capsys.readouterr().out


def test_interrupted_between_two_batches_a_run_goes_on_bit_for_bit(suite: Path) -> None:
    config = config_of(suite)
    whole = trained(config, Path("whole"))
    stop = StopRequest()

    def asked(timesteps: int, mean_return: float | None) -> None:
        stop.requested = timesteps >= 8

    run = RunDirectory.create(Path("halted"), config.to_json(), {})
    with pytest.raises(Stopped):
        execute(run, reporter=Reporter(progress=asked, message=lambda text: None), stop=stop)
    assert run.status["state"] == "interrupted"
    assert 8 <= run.status["timesteps"] < 24
    execute(RunDirectory(run.path), reporter=Reporter(message=lambda text: None))

    assert run.read_eval().equals(whole.read_eval())
    ours, theirs = (each.read_train().drop(columns="wall_seconds") for each in (run, whole))
    assert ours.equals(theirs)
    from safetensors.torch import load_file

    found, expected = (
        load_file(unpacked(each.model, Path(each.path.name + "-model")) / "model.safetensors") for each in (run, whole)
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_a_killed_training_goes_on_when_it_is_given_again(suite: Path) -> None:
    arguments = ("llm", "train", "--suite", suite, "--timesteps", 160, "--checkpoint-seconds", 0.01)
    run = Path("results/questions/runs/GRPO") / QUESTIONS.replace(":", "_") / "seed_3"
    process = subprocess.Popen(command(*arguments), cwd=suite.parent, env=environment())
    wait_until((run / "checkpoint.zip").exists, 120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(
        command(*arguments), cwd=suite.parent, env=environment(), capture_output=True, text=True, timeout=300
    )

    assert done.returncode == 0, done.stderr
    assert RunDirectory(run).completed
    assert RunDirectory(run).status["attempts"] == 2
    timesteps = list(RunDirectory(run).read_train()["timesteps"])
    assert timesteps == list(range(8, 161, 8))


def test_warm_starts_are_shared_by_what_starts_alike(suite: Path) -> None:
    messages: list[str] = []
    setup = TextRun.of(config_of(suite))
    model = warm_start(setup, messages.append)
    shutil.rmtree(folder_of(setup))
    again = warm_start(setup, messages.append)

    assert model == again
    assert len(messages) >= 1
    assert warm_start(TextRun.of(config_of(suite, "GRPO")), messages.append) == model
    note = read_note(model)
    assert len(note["losses"]) == 3
    assert note["parameters"] > 100_000
    assert note["warm_start"]["vocab_size"] == 300
    other = make_config(
        {"total_timesteps": 8},
        "test",
        suite="s",
        label="GRPO",
        algorithm="GRPO",
        env_id=QUESTIONS,
        seed=3,
    )
    assert folder_of(TextRun.of(other)) != folder_of(setup)


def test_each_step_has_a_command(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--suite", str(suite), "--algorithm", "MaxEnt GRPO"]

    assert llm(["sft", *chosen, "--episodes", "4"]) == 0
    shown = capsys.readouterr().out
    assert "parameters, 3 steps, loss" in shown
    assert "95 % interval" in shown
    assert llm(["train", *chosen]) == 0
    assert "completed; model in" in capsys.readouterr().out
    assert llm(["evaluate", *chosen, "--episodes", "4", "--show", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\ntest ") == 2
    assert "1 commands\n" in shown
    assert "\n> " in shown
    run = Path("results/questions/runs/MaxEnt GRPO") / QUESTIONS.replace(":", "_") / "seed_3"
    assert main(["evaluate", str(run), "--episodes", "4", "--split", "train"]) == 0
    assert "\ntrain" in capsys.readouterr().out
    with pytest.raises(UsageError, match="holds this run, completed"):
        llm(["train", *chosen])
    with pytest.raises(UsageError, match="holds a run with other settings"):
        llm(["train", *chosen, "--set", "tau=0.25"])


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert llm([]) == 2
    assert llm(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "llm evaluate --suite" in shown
    assert max(map(len, shown.splitlines())) <= 80
    with pytest.raises(UsageError, match="did you mean 'train'"):
        llm(["trian"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "--suite says which suite"),
        (["train", "--algorithm", "MaxEnt GRP"], "did you mean 'MaxEnt GRPO'"),
        (["train", "--env", "textworld"], "it has reasoning_gym:leg_counting"),
        (["train", "--set", "tua=0.1"], "did you mean 'tau'"),
        (["train", "--set", "warm_start.step=1"], r"`warm_start` has no 'step' \(did you mean 'steps'"),
        (["train", "--set", "methods=[clip_kov]"], "did you mean 'clip_cov'"),
        (["train", "--set", "per_device_train_batch_size=3"], "must divide n_envs, 8; got 3"),
        (["train", "--set", "num_generations=3"], "divisible by num_generations"),
        (["train", "--model", "tinny"], "did you mean 'tiny'"),
        (["evaluate"], "either --run RUN_DIR or --suite SUITE"),
        (["evaluate", "--split", "tset"], "did you mean 'test'"),
        (["evaluate"], "`maxent-onpolicy llm train` makes the run"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, suite: Path) -> None:
    if message not in ("--suite says which suite", "either --run RUN_DIR or --suite SUITE"):
        arguments = [*arguments, "--suite", str(suite)]

    with pytest.raises(UsageError, match=message):
        llm(arguments)


@pytest.mark.parametrize(
    ("env_id", "algorithm", "changes", "message"),
    [
        ("CartPole-v1", "GRPO", {}, "learns on tasks of text"),
        (QUESTIONS, "PPO", {}, "did you mean 'GRPO'"),
        ("textworld:hard", "GRPO", {}, "takes nothing after a colon"),
        (QUESTIONS, "GRPO", {"backend": "sync"}, "`backend` means nothing"),
        (QUESTIONS, "GRPO", {"environment": {"normalize_reward": True}}, "`normalize_reward` means nothing"),
        (QUESTIONS, "GRPO", {"environment": {"kwargs": {"train": 0}}}, "`train` must be at least 1"),
        (QUESTIONS, "GRPO", {"evaluation": {"test_kwargs": {"seed": 4}}}, "must be a split of the tasks"),
        (QUESTIONS, "GRPO", {"hyperparameters": {"warm_start": {"games": 999}}}, "warm_start.games"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    env_id: str, algorithm: str, changes: dict[str, Any], message: str
) -> None:
    settings = {"total_timesteps": 8, **changes}
    config = make_config(settings, "test", suite="s", label="x", algorithm=algorithm, env_id=env_id, seed=0)

    with pytest.raises(UsageError, match=message):
        check_run(config, "test")


def test_a_damaged_checkpoint_is_named(suite: Path) -> None:
    run = RunDirectory.create(Path("run"), config_of(suite).to_json(), {})
    run.checkpoint.write_bytes(b"no zip")

    with pytest.raises(UsageError, match=r"checkpoint\.zip cannot be loaded"):
        execute(run, reporter=Reporter(message=lambda text: None))
    assert json.loads((run.path / "status.json").read_text())["state"] == "failed"


def test_a_model_of_ones_own_takes_the_place_of_ours(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from maxent_onpolicy.llm.model import ModelSize, build_model
    from maxent_onpolicy.llm.tokenizer import load_tokenizer, train_tokenizer

    tokenizer = train_tokenizer(["How many legs are there?", "There are 12."], 280)
    size = ModelSize(layers=1, width=24, heads=2, key_value_heads=1, feed_forward=32)
    for part in (tokenizer, build_model(tokenizer, size)):
        part.save_pretrained("own")
    chosen = ["--suite", str(suite), "--algorithm", "GRPO", "--model", "own", "--set", "warm_start.steps=0"]

    assert llm(["train", *chosen, "--timesteps", "8"]) == 0
    run = RunDirectory(Path("results/questions/runs/GRPO") / QUESTIONS.replace(":", "_") / "seed_3")
    assert run.config["policy"] == "own"
    model = unpacked(run.model, Path("trained"))
    assert json.loads((model / "config.json").read_text())["hidden_size"] == 24
    assert len(load_tokenizer(model)) == len(tokenizer)
