"""Algorithms of other libraries in our commands: trained, evaluated, stopped and continued by the same protocol."""

import sys

import pytest
import stable_baselines3
from command_line import run_command, write_suite
from sb3_contrib import TRPO

from maxent_onpolicy.algorithms.train_seeds import why_not_stacked
from maxent_onpolicy.cli import build, runner
from maxent_onpolicy.cli.config import make_config
from maxent_onpolicy.cli.main import main
from maxent_onpolicy.cli.registry import describe_hyperparameters, find_algorithm, hyperparameters, load_class
from maxent_onpolicy.cli.runner import Reporter, Stopped, execute
from maxent_onpolicy.cli.suite import load_suite
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.protocol import evaluate_policy
from maxent_onpolicy.evaluation.runs import RunDirectory

SAC = {"learning_starts": 64, "buffer_size": 1000, "batch_size": 16, "train_freq": [16, "step"], "device": "cpu"}
PPO = {"n_steps": 64, "batch_size": 64, "n_epochs": 1, "device": "cpu"}
CASES = {
    "SB3 SAC": ("Pendulum-v1", 1, SAC | {"policy_kwargs": {"net_arch": [8]}}),
    "SB3 PPO": ("CartPole-v1", 2, PPO | {"learning_rate": "linear:1e-3:0"}),
    "SB3 TRPO": ("CartPole-v1", 2, {"n_steps": 64, "batch_size": 64, "device": "cpu"}),
}
CLASSES = {"SB3 PPO": stable_baselines3.PPO, "SB3 SAC": stable_baselines3.SAC, "SB3 TRPO": TRPO}


def make_run(path, algorithm, **changes):
    env_id, n_envs, kwargs = CASES[algorithm]
    settings = {
        "total_timesteps": 768,
        "n_envs": n_envs,
        "hyperparameters": kwargs,
        "environment": {"normalize_observation": True},
        "evaluation": {"every": 300, "episodes": 2},
    }
    who = {"suite": "s", "label": algorithm, "algorithm": algorithm, "env_id": env_id, "seed": 1}
    return RunDirectory.create(path, make_config(settings | changes, "test", **who).to_json(), {})


@pytest.mark.parametrize("name", CLASSES)
def test_names_stand_for_the_other_librarys_class(name):
    assert load_class(name) is CLASSES[name]
    assert find_algorithm(name.lower().replace(" ", "-")).name == find_algorithm(name.replace(" ", "_")).name == name


@pytest.mark.parametrize("name", CLASSES)
def test_keywords_are_known_and_described(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    cls = load_class(name)
    known, texts = hyperparameters(cls), describe_hyperparameters(cls)
    assert {"learning_rate", "policy_kwargs", "device"} <= set(known)
    assert not {"env", "seed", "policy", "replay_buffer_class", "rollout_buffer_class", "action_noise"} & set(known)
    assert set(known) <= set(texts)
    assert not [text for text in texts.values() if ":param" in text]
    with pytest.raises(SystemExit):
        main(["train", name, "--help"])
    output = capsys.readouterr().out
    assert f"hyperparameters of {name}" in output
    assert max(map(len, output.splitlines())) <= 80


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(UsageError, match="SB3 TRPO needs a package that is not installed: pip install sb3-contrib"):
        load_class("SB3 TRPO")


def test_a_mistake_says_how_to_see_the_keywords(tmp_path):
    path = write_suite(tmp_path, algorithms={"SB3 PPO": {"hyperparameters": {"popart": True}}})
    with pytest.raises(
        UsageError, match=r"SB3 PPO has no hyperparameter 'popart'.*`maxent-onpolicy train SB3-PPO --help`"
    ):
        load_suite(path)


@pytest.mark.parametrize("algorithm", CASES)
def test_a_run_is_evaluated_and_logged_as_ours_are(tmp_path, algorithm):
    # SB3's off-policy algorithms log every four episodes, of 200 steps each.
    run = make_run(tmp_path / "seed_1", algorithm, total_timesteps=832)
    seen = []
    execute(run, reporter=Reporter(evaluated=lambda timesteps, results: seen.append(timesteps)))
    assert run.completed
    assert run.status["timesteps"] >= 832
    evaluations = run.read_eval()
    assert sorted(set(evaluations["timesteps"])) == seen
    assert seen[:3] == [0, 300, 600]
    assert set(evaluations["mode"]) == {"deterministic", "stochastic"}
    log = run.read_train()
    assert log["timesteps"].is_monotonic_increasing
    own = {"SB3 SAC": "train/ent_coef", "SB3 PPO": "train/loss", "SB3 TRPO": "train/kl_divergence_loss"}
    assert own[algorithm] in log
    assert log["rollout/ep_rew_mean"].notna().any()
    assert main(["evaluate", str(run.path), "--episodes", "2"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", CASES)
def test_a_stopped_run_goes_on_from_its_checkpoint_and_says_what_is_lost(tmp_path, algorithm, monkeypatch):
    run = make_run(tmp_path / "seed_1", algorithm)
    stop = runner.StopRequest()

    def stop_soon(timesteps, results):
        stop.requested = timesteps >= 300

    with pytest.raises(Stopped):
        execute(run, reporter=Reporter(evaluated=stop_soon), stop=stop)
    assert run.status["state"] == "interrupted"
    at = run.status["timesteps"]
    assert 300 <= at < 768

    loaded = []
    load = runner.continue_stock
    monkeypatch.setattr(runner, "continue_stock", lambda *args: loaded.append(load(*args)) or loaded[0])
    messages = []
    # As when the process is killed a second time.
    with pytest.raises(Stopped):
        execute(run, reporter=Reporter(message=messages.append, evaluated=stop_soon), stop=runner.StopRequest(True))
    execute(run, reporter=Reporter(message=messages.append))
    assert run.completed
    library = "sb3_contrib's TRPO" if algorithm == "SB3 TRPO" else f"stable_baselines3's {algorithm[4:]}"
    for message in messages:
        assert f"goes on with new episodes, not bit for bit: files of {library} hold neither" in message
        assert ("no replay buffer, which 64 steps" in message) == (algorithm == "SB3 SAC")
    model = loaded[0][0]
    assert model.num_timesteps >= at
    if algorithm == "SB3 SAC":
        assert model.learning_starts == at + 64
    assert sorted(set(run.read_eval()["timesteps"]))[:3] == [0, 300, 600]
    assert not run.read_eval().duplicated(["timesteps", "mode", "episode"]).any()


def test_the_statistics_of_a_stopped_run_go_on(tmp_path):
    run = make_run(tmp_path / "seed_1", "SB3 PPO")
    stop = runner.StopRequest()

    def stop_soon(timesteps, results):
        stop.requested = timesteps >= 300

    with pytest.raises(Stopped):
        execute(run, reporter=Reporter(evaluated=stop_soon), stop=stop)
    config = runner.RunConfig.from_json(run.config)
    model = runner._continued(run, config, Reporter(message=lambda text: None))
    # One more for each environment's first observation, and those that the reset of the new episodes gives.
    assert model.get_vec_normalize_env().obs_rms.count >= run.status["timesteps"]
    assert build.make_training_env(config).obs_rms.count < 1


def test_state_dependent_exploration_of_an_off_policy_algorithm_is_left_as_it_was():
    env = build.make_vec_env("Pendulum-v1", 1, seed=0)
    model = stable_baselines3.SAC("MlpPolicy", env, use_sde=True, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    before = model.actor.action_dist.exploration_mat
    results = evaluate_policy(model, build.make_vec_env("Pendulum-v1", 2, seed=0), 2, seed=1)
    assert model.actor.action_dist.exploration_mat is before
    assert (results["stochastic"].returns != results["deterministic"].returns).all()


def test_their_seeds_are_not_stacked():
    model = stable_baselines3.PPO("MlpPolicy", "CartPole-v1", device="cpu")
    assert why_not_stacked(model) == "the algorithm stable_baselines3.PPO"


@pytest.mark.slow
def test_a_benchmark_compares_ours_with_theirs(tmp_path):
    small = {"hyperparameters": {"n_steps": 64, "batch_size": 64, "device": "cpu"}}
    path = write_suite(
        tmp_path,
        defaults={"total_timesteps": 256, "n_envs": 2, "evaluation": {"every": 128, "episodes": 2}},
        algorithms={
            "PPO": small,
            "SB3 PPO": small,
            "SB3 TRPO": small,
            "SB3 SAC": {"hyperparameters": SAC, "environments": ["Pendulum-v1"], "total_timesteps": 128},
        },
        environments={"CartPole-v1": {}, "Pendulum-v1": {"n_envs": 1}},
    )
    done = run_command("bench", path, "--results", "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    report = (tmp_path / "results" / "tiny" / "report.md").read_text()
    for label in ("SB3 PPO", "SB3 SAC", "SB3 TRPO"):
        assert label in report
    folder = tmp_path / "results" / "tiny" / "runs"
    assert len(list(folder.glob("*/*/seed_0"))) == 3 * 2 + 1


def test_an_algorithm_is_run_where_the_suite_says(tmp_path):
    suite = load_suite(
        write_suite(
            tmp_path,
            algorithms={"PPO": {}, "RPO": {"environments": ["Pendulum-v1"]}},
            environments={"CartPole-v1": {}, "Pendulum-v1": {}},
        )
    )
    cells = {(run.label, run.env_id) for run in suite.runs}
    assert cells == {("PPO", "CartPole-v1"), ("PPO", "Pendulum-v1"), ("RPO", "Pendulum-v1")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"algorithms": {"PPO": {"environments": ["CartPol-v1"]}}},
            r"algorithms.PPO.environments: the suite has no environment 'CartPol-v1' \(did you mean 'CartPole-v1'\?\)",
        ),
        ({"algorithms": {"PPO": {"environments": "CartPole-v1"}}}, "must be a list of the suite's environments"),
        ({"algorithms": {"PPO": {"environments": []}}}, "must be a list of the suite's environments"),
        (
            {
                "algorithms": {"PPO": {"environments": ["CartPole-v1"]}},
                "environments": {"CartPole-v1": {}, "Acrobot-v1": {"algorithms": {"PPO": {}}}},
            },
            "environments.Acrobot-v1.algorithms: 'PPO' is not run there",
        ),
    ],
)
def test_a_mistake_in_a_restriction_is_named(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        load_suite(write_suite(tmp_path, **changes))
