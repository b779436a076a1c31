"""Suites are data: every name in them is checked, with the closest valid one, before anything runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from command_line import TINY, write_suite
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from benchmarks import budgets
from maxent_onpolicy import PPO, RPO, SAC, TRPO, MaxEntPPO, MaxEntTRPO
from maxent_onpolicy.cli.build import check_runs, make_evaluation_env, make_training_env
from maxent_onpolicy.cli.plan import select
from maxent_onpolicy.cli.registry import (
    ALGORITHMS,
    build_hyperparameters,
    describe_hyperparameters,
    find_algorithm,
    hyperparameters,
    load_class,
    written_value,
)
from maxent_onpolicy.cli.suite import find_suite, list_suites, load_suite
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.envs.normalize import VecNormalize
from maxent_onpolicy.evaluation.cells import read_cells

SUITES = Path(__file__).parents[2] / "benchmarks" / "suites"
RESULTS = Path(__file__).parents[2] / "results"


def test_every_algorithm_in_the_registry_loads():
    ours = {name: load_class(name) for name in ALGORITHMS if not name.startswith("SB3 ") and name != "GRPO"}
    assert list(ours.values()) == [PPO, RPO, TRPO, SAC, MaxEntPPO, MaxEntTRPO]
    assert [cls.__name__ for cls in ours.values()] == list(ours)
    assert find_algorithm("maxent-ppo").name == find_algorithm("MAXENT_PPO").name == "MaxEntPPO"
    with pytest.raises(UsageError, match=r"unknown algorithm 'MaxEntPP' \(did you mean 'MaxEntPPO'\?\)"):
        find_algorithm("MaxEntPP")


@pytest.mark.parametrize("name", sorted({path.parent.name for path in RESULTS.glob("*/runs")} & {*list_suites()}))
def test_committed_results_know_all_cells_of_their_suite(name):
    planned = load_suite(find_suite(name)).cells
    assert list(read_cells(RESULTS / name).items()) == [(label, tuple(env_ids)) for label, env_ids in planned.items()]


def test_keywords_include_those_passed_on_to_the_base_class():
    known = hyperparameters(MaxEntPPO)
    assert {"tau", "learning_rate", "clip_range", "policy_kwargs", "device"} <= set(known)
    assert not {"env", "seed", "policy", "kwargs", "self"} & set(known)
    texts = describe_hyperparameters(MaxEntPPO)
    assert set(known) <= set(texts), "every keyword is documented"
    assert ":class:" not in "".join(texts.values())


def test_written_values_become_what_the_class_takes():
    built = build_hyperparameters(
        {"learning_rate": "linear:3e-4:0", "tau": "auto", "policy_kwargs": {"activation_fn": "ReLU", "net_arch": [8]}}
    )
    assert isinstance(built["learning_rate"], LinearSchedule)
    assert built["learning_rate"](1.0) == pytest.approx(3e-4)
    assert built["learning_rate"](0.0) == pytest.approx(0)
    assert built["tau"] == "auto"
    assert built["policy_kwargs"] == {"activation_fn": nn.ReLU, "net_arch": [8]}
    until = build_hyperparameters({"tau": "linear:0.05:0.01:0.25"})["tau"]
    assert [until(remaining) for remaining in (1.0, 0.875, 0.75, 0.5, 0.0)] == pytest.approx(
        [0.05, 0.03, 0.01, 0.01, 0.01]
    )
    for wrong in ("linear:3e-4", "lin_3e-4", "linear:a:b", "linear:1:0:0", "linear:1:0:1.5", "linear:1:0:1:1"):
        with pytest.raises(UsageError, match="`learning_rate`: a linear schedule is written linear:START:END"):
            build_hyperparameters({"learning_rate": wrong})
    with pytest.raises(UsageError, match="did you mean 'tanh'"):
        build_hyperparameters({"policy_kwargs": {"activation_fn": "tan"}})


@pytest.mark.parametrize("written", ["linear:0.05:0", "linear:0.1:0.01:0.25", "auto", "0.02"])
def test_schedules_are_shown_as_they_are_written(written):
    assert written_value(build_hyperparameters({"tau": written})["tau"]) == written


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_suites_that_come_with_the_package_can_be_built(path):
    suite = load_suite(path)
    assert suite.name == path.stem
    assert suite.description
    check_runs(suite.runs, str(path))


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_suites_budget_is_what_it_is_measured_to_take(path):
    """One thread each."""
    suite = load_suite(path)
    speeds = budgets.read(RESULTS / "budgets" / "budgets.csv")
    folder = RESULTS / suite.name / "runs"
    assert suite.budget is not None
    assert suite.budget.core_hours > 0
    if folder.is_dir() or suite.name in {each.suite for each in speeds}:
        assert suite.budget.core_hours == pytest.approx(budgets.core_hours(suite, RESULTS, speeds), rel=0.05, abs=0.01)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"core_hour": 1}, "did you mean 'core_hours'"),
        ({"gpu_hours": 1}, "`core_hours` is missing"),
        ({"core_hours": "two"}, "budget.core_hours: expected a number of hours, got 'two'"),
        ({"core_hours": -1}, "budget.core_hours: expected a number of hours, got -1"),
    ],
)
def test_a_budget_that_is_none_is_refused(tmp_path, block, message):
    with pytest.raises(UsageError, match=message):
        load_suite(write_suite(tmp_path, budget=block))


def test_the_reference_has_the_settings_of_the_suite_that_it_checks():
    ours = {(run.label, run.env_id, run.seed): run for run in load_suite(SUITES / "mujoco.yaml").runs}
    for reference in load_suite(SUITES / "mujoco-reference.yaml").runs:
        label = reference.label.removeprefix("SB3 ")
        run = ours[label, reference.env_id, reference.seed]
        of_its_own = {"suite": reference.suite, "label": reference.label, "algorithm": reference.algorithm}
        assert replace(run, **of_its_own, tuning_budget=reference.tuning_budget) == reference


def test_the_quick_suite_compares_three_algorithms_on_two_mujoco_tasks():
    suite = load_suite(find_suite("quick"))
    assert {run.env_id for run in suite.runs} == {"HalfCheetah-v5", "Hopper-v5"}
    assert len(suite.runs) == 3 * 2 * 3
    ablation = next(run for run in suite.runs if run.label == "Reward-augmented PPO")
    assert ablation.algorithm == "MaxEntPPO"
    assert ablation.hyperparameters["reward_augmentation"] is True


def test_settings_are_laid_over_each_other_in_order(tmp_path):
    path = write_suite(
        tmp_path,
        algorithms={
            "PPO": {},
            "Mine": {"algorithm": "maxentppo", "n_envs": 4, "hyperparameters": {"tau": 0.1, "gamma": 0.9}},
        },
        environments={
            "CartPole-v1": {"total_timesteps": 100, "algorithms": {"Mine": {"hyperparameters": {"tau": 0.2}}}},
            "Acrobot-v1": None,
        },
    )
    runs = {(run.label, run.env_id): run for run in load_suite(path).runs}
    cartpole, acrobot = runs["Mine", "CartPole-v1"], runs["Mine", "Acrobot-v1"]
    assert (cartpole.algorithm, cartpole.n_envs, cartpole.total_timesteps) == ("MaxEntPPO", 4, 100)
    assert cartpole.hyperparameters == {**TINY["defaults"]["hyperparameters"], "tau": 0.2, "gamma": 0.9}
    assert (acrobot.hyperparameters["tau"], acrobot.total_timesteps) == (0.1, 768)
    assert runs["PPO", "CartPole-v1"].n_envs == 2


def test_seeds_and_timesteps_can_be_replaced(tmp_path):
    suite = load_suite(write_suite(tmp_path), seeds=(4, 5), timesteps=384)
    assert [run.seed for run in suite.runs] == [4, 5]
    assert {run.total_timesteps for run in suite.runs} == {384}
    assert {run.evaluation["every"] for run in suite.runs} == {128}
    assert [run.evaluation["seed"] for run in suite.runs] == [10_004, 10_005], "no two seeds share evaluations"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algoritms": {}}, r"tiny.yaml: unknown key 'algoritms' \(did you mean 'algorithms'\?\)"),
        ({"defaults": {"total_timestep": 5}}, r"tiny.yaml: defaults: unknown key 'total_timestep' \(did you mean"),
        (
            {"algorithms": {"PPO": {"hyperparameters": {"n_step": 5}}}},
            r"algorithms.PPO.hyperparameters: PPO has no hyperparameter 'n_step' \(did you mean 'n_steps'\?\)",
        ),
        (
            {"defaults": {"total_timesteps": 9, "hyperparameters": {"tau": 0.1}}},
            "tiny.yaml: PPO on CartPole-v1: PPO has no hyperparameter 'tau'",
        ),
        ({"algorithms": {"Mine": {}}}, "algorithms.Mine: unknown algorithm 'Mine'.*needs `algorithm:`"),
        ({"algorithms": {"PPO": {"algorithm": "PP"}}}, r"unknown algorithm 'PP' \(did you mean 'PPO'\?\)"),
        ({"algorithms": {}}, "`algorithms` must name at least one"),
        ({"environments": ["CartPole-v1"]}, "environments: expected keys with values"),
        (
            {"environments": {"CartPole-v1": {"algorithms": {"PP": {}}}}},
            r"environments.CartPole-v1.algorithms: unknown key 'PP' \(did you mean 'PPO'\?\)",
        ),
        ({"name": "../up"}, "tiny.yaml: PPO on CartPole-v1: the suite's name is .* without slashes; got '../up'"),
        ({"name": ""}, "the suite's name is the name of a directory"),
        ({"algorithms": {"..": {"algorithm": "PPO"}}}, r"the label is the name of a directory; got '\.\.'"),
        ({"seeds": 3}, r"`seeds` must be a list such as \[0, 1, 2\], got 3"),
        ({"seeds": [1, 1]}, "holds the same seed twice"),
        ({"seeds": [-1]}, "seeds: expected a whole number of at least 0, got -1"),
        ({"algorithms": {"a/b": {"algorithm": "PPO"}, "a_b": {"algorithm": "PPO"}}}, "would share the directory"),
    ],
)
def test_a_mistake_in_a_suite_is_named_with_file_and_place(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        load_suite(write_suite(tmp_path, **changes))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            {"hyperparameters": {"n_steps": 64, "gamma": 1.5}},
            r"PPO on CartPole-v1: `gamma` must be in \[0, 1\], got 1.5",
        ),
        ({"hyperparameters": {"device": "cpu"}, "policy": "MlpPolicyy"}, "PPO on CartPole-v1: .*MlpPolicyy"),
        ({"environment": {"kwargs": {"colour": 1}}}, "PPO on CartPole-v1: .*colour"),
        ({"environment": {"discretize_bins": 3}}, "PPO on CartPole-v1: DiscretizeActions needs a Box"),
        ({"hyperparameters": {"learning_rate": "linear:-1:0"}}, "`learning_rate`: .* at least 0.* got 'linear:-1:0'"),
        ({"hyperparameters": {"clip_range": "linear:0.2:nan"}}, "`clip_range`: .* at least 0.* got 'linear:0.2:nan'"),
        ({"backend": "gymnasum"}, "did you mean 'gymnasium'"),
    ],
)
def test_settings_that_cannot_work_fail_before_anything_runs(tmp_path, run, message):
    suite = load_suite(write_suite(tmp_path, defaults={**TINY["defaults"], **run}))
    with pytest.raises(UsageError, match=message):
        check_runs(suite.runs, str(suite.path))


def test_suites_are_found_by_name_or_path(in_tmp):
    assert {"quick", "smoke"} <= set(list_suites())
    with pytest.raises(UsageError, match=r"unknown suite 'quikc' \(did you mean 'quick'\?\)"):
        find_suite("quikc")
    with pytest.raises(UsageError, match=r"there is no suite file none.yaml"):
        find_suite("none.yaml")
    own = in_tmp / "benchmarks" / "suites"
    own.mkdir(parents=True)
    (own / "quick.yaml").write_text(yaml.safe_dump(TINY))
    assert find_suite("quick").resolve() == (own / "quick.yaml").resolve(), "the working directory comes first"


def test_only_selects_by_label_environment_seed_or_pattern(tmp_path):
    suite = load_suite(
        write_suite(
            tmp_path,
            seeds=[0, 1],
            algorithms={"PPO": {}, "MaxEntPPO": {}},
            environments={"CartPole-v1": {}, "Acrobot-v1": {}},
        )
    )
    assert len(select(suite.runs, ())) == 8
    assert {run.label for run in select(suite.runs, ("PPO",))} == {"PPO"}
    assert {run.seed for run in select(suite.runs, ("seed_1",))} == {1}
    assert len(select(suite.runs, ("MaxEnt*/CartPole-v1", "Acrobot-v1"))) == 2 + 4
    assert len(select(suite.runs, ("PPO/Acrobot-v1/seed_0",))) == 1
    with pytest.raises(UsageError, match=r"--only 'CartPole' matches no run \(did you mean 'CartPole-v1'\?\)"):
        select(suite.runs, ("CartPole",))
    many = load_suite(write_suite(tmp_path, seeds=list(range(30))))
    with pytest.raises(UsageError, match=r"\(did you mean 'seed_2.*'\?\); --dry-run shows what there is$"):
        select(many.runs, ("seed_2x",))


def test_evaluation_environments_are_frozen_and_pay_raw_reward(tmp_path):
    normal = {"normalize_observation": True, "normalize_reward": True}
    defaults = {**TINY["defaults"], "environment": normal}
    config = load_suite(write_suite(tmp_path, defaults=defaults)).runs[0]
    training, evaluation = make_training_env(config), make_evaluation_env(config, episodes=10)
    assert isinstance(training, VecNormalize)
    assert (training.num_envs, training.training, training.norm_reward) == (2, True, True)
    assert isinstance(evaluation, VecNormalize)
    assert (evaluation.num_envs, evaluation.training, evaluation.norm_reward) == (5, False, False)
