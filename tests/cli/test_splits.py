"""Runs with a test distribution: what may be written, how they are trained and evaluated, what is shown of them."""

import io
import json

import pandas as pd
import pytest
import yaml
from command_line import TINY, write_suite
from rich.console import Console

from maxent_onpolicy.cli.build import check_runs, make_evaluation_env
from maxent_onpolicy.cli.config import RunConfig, has_test, make_config
from maxent_onpolicy.cli.display import _final_return
from maxent_onpolicy.cli.jobs import Job
from maxent_onpolicy.cli.main import main
from maxent_onpolicy.cli.plan import plan_run
from maxent_onpolicy.cli.progress import TrainingProgress
from maxent_onpolicy.cli.runner import Reporter, Stopped, StopRequest, execute
from maxent_onpolicy.cli.suite import load_suite
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.runs import RunDirectory, run_path
from maxent_onpolicy.evaluation.scores import load_results

WHO = {"suite": "s", "label": "PPO", "algorithm": "PPO", "env_id": "CartPole-v1", "seed": 3}
# with it an episode of CartPole pays -1 at its end and nothing before, so that test returns are known
TEST = {"sutton_barto_reward": True}
EVALUATION = {"every": 256, "episodes": 4, "modes": ["stochastic"], "test_kwargs": TEST}
SETTINGS = {**TINY["defaults"], "evaluation": EVALUATION}


def make_run(path, **evaluation) -> RunDirectory:
    config = make_config({**SETTINGS, "evaluation": {**EVALUATION, **evaluation}}, "test", **WHO)
    return RunDirectory.create(path, config.to_json(), {})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    """A completed run where ``report`` finds it."""
    path = run_path(tmp_path_factory.mktemp("split") / "s", "PPO", "CartPole-v1", 3)
    run = make_run(path)
    execute(run)
    return RunDirectory(path)


# --- settings --------------------------------------------------------------------------------------------------------


def test_what_is_not_asked_for_is_not_written():
    config = make_config({"total_timesteps": 9, "evaluation": {"modes": None, "test_kwargs": None}}, "here", **WHO)
    assert config.evaluation == {"every": 1, "episodes": 10, "seed": 10_003}
    assert not has_test(config)
    both = make_config({"total_timesteps": 9, "evaluation": {"modes": ["stochastic", "deterministic"]}}, "here", **WHO)
    assert both == config, "both modes are the default, in any order"


def test_a_config_with_a_test_distribution_survives_json():
    config = make_config({**SETTINGS, "evaluation": {**EVALUATION, "n_envs": 2}}, "here", **WHO)
    expected = {"every": 256, "episodes": 4, "seed": 10_003, "modes": ["stochastic"], "n_envs": 2, "test_kwargs": TEST}
    assert config.evaluation == expected
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (
            {"modes": ["greedy"]},
            "here.evaluation.modes: expected a list of .*, or one of them, got 'greedy'",
        ),
        ({"modes": ["stochastc"]}, "did you mean 'stochastic'"),
        ({"modes": "stochastic"}, "here.evaluation.modes: expected a list .* got 'stochastic'"),
        ({"modes": []}, r"got \[\]"),
        ({"modes": ["stochastic", "stochastic"]}, "here.evaluation.modes: expected a list"),
        ({"test_kwargs": 5}, "here.evaluation.test_kwargs: expected keys with values, got 5"),
        ({"test_kwargs": {}}, "here.evaluation.test_kwargs: must differ from environment.kwargs, got {}"),
        ({"test_kwargs": {"a": float("nan")}}, "here.evaluation.test_kwargs.a: expected a finite number"),
        ({"n_envs": 0}, "here.evaluation.n_envs: expected a whole number of at least 1, got 0"),
        ({"test_kwarg": {}}, "did you mean 'test_kwargs'"),
    ],
)
def test_wrong_settings_are_named(evaluation, message):
    with pytest.raises(UsageError, match=message):
        make_config({"total_timesteps": 9, "evaluation": evaluation}, "here", **WHO)


def test_suites_lay_test_keywords_over_each_other_and_may_take_them_away(tmp_path):
    path = write_suite(
        tmp_path,
        defaults={**SETTINGS, "environment": {"kwargs": {"sutton_barto_reward": False}}},
        environments={
            "CartPole-v1": {},
            "Pendulum-v1": {"evaluation": {"test_kwargs": {"g": 9.0}}},
            "Acrobot-v1": {"evaluation": {"test_kwargs": None, "modes": None}},
        },
    )
    evaluations = {run.env_id: run.evaluation for run in load_suite(path).runs}
    assert evaluations["CartPole-v1"]["test_kwargs"] == TEST
    assert evaluations["Pendulum-v1"]["test_kwargs"] == {**TEST, "g": 9.0}
    assert set(evaluations["Acrobot-v1"]) == {"every", "episodes", "seed"}


@pytest.mark.parametrize(
    ("env_id", "kwargs", "test_kwargs", "message"),
    [
        ("CartPole-v1", {}, {"levels": 3}, "PPO on CartPole-v1: evaluation.test_kwargs: .*levels"),
        (
            "FrozenLake-v1",
            {"map_name": "4x4"},
            {"map_name": "8x8"},
            r"evaluation.test_kwargs: must leave the observation space as it is, Discrete\(16\); .* Discrete\(64\)",
        ),
    ],
)
def test_test_environments_that_cannot_work_are_found_before_anything_runs(
    tmp_path, env_id, kwargs, test_kwargs, message
):
    settings = {**SETTINGS, "environment": {"kwargs": kwargs}, "evaluation": {"test_kwargs": test_kwargs}}
    suite = load_suite(write_suite(tmp_path, defaults=settings, environments={env_id: {}}))
    with pytest.raises(UsageError, match=message):
        check_runs(suite.runs, str(suite.path))


def test_environments_of_an_evaluation():
    def envs(episodes=None, split="train", **evaluation):
        settings = {"total_timesteps": 9, "evaluation": evaluation}
        settings["environment"] = {"kwargs": {"g": 10.0}}
        env = make_evaluation_env(make_config(settings, "here", **{**WHO, "env_id": "Pendulum-v1"}), episodes, split)
        return env.num_envs, env.get_attr("g")[0]

    assert envs(episodes=100) == (5, 10.0), "as many as divide the episodes, up to eight"
    assert envs(episodes=100, n_envs=25) == (25, 10.0)
    assert envs(n_envs=25) == (10, 10.0), "no more than episodes"
    assert envs(split="test", test_kwargs={"g": 9.0}) == (5, 9.0)


def test_another_test_distribution_is_another_run(run):
    config = RunConfig.from_json(run.config)
    results = run.path.parents[3]
    assert plan_run(config, results).action == "skip"
    changed = plan_run(make_config({**SETTINGS, "evaluation": {"every": 256, "episodes": 4}}, "here", **WHO), results)
    assert (changed.action, changed.path) == ("conflict", run.path)
    assert "evaluation.test_kwargs" in changed.detail


# --- runs ------------------------------------------------------------------------------------------------------------


def test_every_checkpoint_is_evaluated_on_both_distributions(run):
    frame = run.read_eval()
    assert frame.columns.tolist() == ["timesteps", "mode", "episode", "return", "length", "split"]
    assert frame.groupby(["timesteps", "split"]).size().to_dict() == {
        (step, split): 4 for step in (0, 256, 512, 768) for split in ("test", "train")
    }
    assert set(frame["mode"]) == {"stochastic"}
    train, test = (frame[frame["split"] == split].reset_index() for split in ("train", "test"))
    assert (train["return"] == train["length"]).all()
    assert (test.loc[test["length"] < 500, "return"] == -1).all()
    assert train["length"].tolist() != test["length"].tolist(), "seeds of their own"
    results = load_results(run.path.parents[3])
    assert results.modes == ["stochastic, test", "stochastic, train"]
    assert results.final("PPO", "CartPole-v1", "stochastic, test").tolist() == [-1.0]


def test_the_training_distribution_is_judged_as_without_the_other(run, tmp_path):
    alone = make_run(tmp_path / "seed_3", test_kwargs=None)
    execute(alone)
    both = run.read_eval()
    pd.testing.assert_frame_equal(
        both[both["split"] == "train"].drop(columns="split").reset_index(drop=True), alone.read_eval()
    )
    assert "split" not in (alone.path / "eval.csv").read_text()


def test_a_stopped_run_goes_on_with_both(run, tmp_path):
    stopped = make_run(tmp_path / "seed_3")
    stop = StopRequest()

    def ask(timesteps, results):
        assert set(results) == {"stochastic, train", "stochastic, test"}
        stop.requested = timesteps == 512

    with pytest.raises(Stopped):
        execute(stopped, reporter=Reporter(evaluated=ask), stop=stop)
    execute(RunDirectory(stopped.path))
    assert (stopped.path / "eval.csv").read_bytes() == (run.path / "eval.csv").read_bytes()


# --- what is shown ---------------------------------------------------------------------------------------------------


def rows_of(output: str) -> dict[str, list[str]]:
    return {line.split("  ")[0]: line.split() for line in output.splitlines() if line.startswith(("stoch", "determ"))}


def test_evaluate_shows_both_distributions_apart(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["evaluate", str(run.path), "--episodes", "4"]) == 0
    both = rows_of(capsys.readouterr().out)
    assert list(both) == ["stochastic, train", "stochastic, test"], "the run's modes"
    assert both["stochastic, test"][3] == "-1.00"
    assert main(["evaluate", str(run.path), "--episodes", "4", "--split", "test", "--modes", "deterministic"]) == 0
    assert list(rows_of(capsys.readouterr().out)) == ["deterministic, test"]
    assert main(["evaluate", str(run.path), "--episodes", "4", "--split", "train"]) == 0
    assert rows_of(capsys.readouterr().out) == {"stochastic, train": both["stochastic, train"]}, "as with the other"


def test_evaluate_records_the_first_distribution(run, capsys, tmp_path):
    video = tmp_path / "a.gif"
    options = ["--episodes", "2", "--split", "test", "--video", str(video), "--video-length", "3"]
    assert main(["evaluate", str(run.path), *options]) == 0
    assert video.stat().st_size > 100
    assert f"video: {video}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "tset"], "--split must be train or test, got 'tset'"),
        (["--n-envs", "0"], "--n-envs must be at least 1, got 0"),
    ],
)
def test_evaluate_refuses_what_it_cannot_play(run, capsys, options, message):
    assert main(["evaluate", str(run.path), *options]) == 2
    assert message in capsys.readouterr().err


def test_evaluate_says_if_there_is_no_test_distribution(tmp_path, capsys):
    run = make_run(tmp_path / "seed_3", test_kwargs=None)
    run.model.write_bytes(b"")
    assert main(["evaluate", str(run.path), "--split", "test"]) == 2
    assert "PPO on CartPole-v1, seed 3 has no test distribution" in capsys.readouterr().err


def test_evaluate_help_teaches_splits(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    assert "--split" in text
    assert "test distribution" in text


def test_progress_and_the_last_line_show_both(run, tmp_path):
    text = io.StringIO()
    with TrainingProgress(Console(file=text, width=80), 768) as progress:
        execute(make_run(tmp_path / "seed_3"), reporter=progress.reporter)
    head, first, *_ = text.getvalue().splitlines()
    assert head.split("  ")[-1] == " steps/s"
    assert head.index("stochastic, train") < head.index("stochastic, test")
    assert "-1.00 ± 0.00" in first
    assert len(head) <= 80
    job = Job(RunConfig.from_json(run.config), run.path, lambda: run)
    assert _final_return(job).endswith(", test -1.00 ")


def test_train_takes_modes_and_test_keywords(in_tmp):
    short = ["--timesteps", "128", "--n-steps", "64", "--batch-size", "64", "--n-epochs", "1", "--device", "cpu"]
    more = ["--eval-mode", "stochastic", "--test-kwarg", "sutton_barto_reward=true", "--eval-episodes", "2"]
    assert main(["train", "ppo", "CartPole-v1", *short, *more]) == 0
    config = RunDirectory("results/local/runs/PPO/CartPole-v1/seed_0").config
    assert config["evaluation"]["modes"] == ["stochastic"]
    assert config["evaluation"]["test_kwargs"] == TEST


def test_bench_checks_the_new_settings(in_tmp, capsys):
    path = write_suite(in_tmp, defaults=SETTINGS)
    assert main(["bench", str(path), "--dry-run"]) == 0
    for evaluation, options, message in (
        ({"modes": ["greedy"]}, ["--dry-run"], "PPO on CartPole-v1.evaluation.modes: expected a list"),
        ({"test_kwargs": [1]}, ["--dry-run"], "defaults.evaluation.test_kwargs: expected keys with values"),
        ({"test_kwargs": {"g": 1}}, [], "PPO on CartPole-v1: evaluation.test_kwargs: "),
    ):
        path.write_text(yaml.safe_dump({**TINY, "defaults": {**SETTINGS, "evaluation": evaluation}}))
        assert main(["bench", str(path), *options]) == 2
        assert message in capsys.readouterr().err
    assert not (in_tmp / "results").exists()
