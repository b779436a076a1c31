"""What users write is read as they mean it, and mistakes are named with their place."""

import json
from datetime import date

import pytest

from maxent_onpolicy.cli.config import RunConfig, differences, make_config
from maxent_onpolicy.cli.parse import read_assignments, split_hyperparameters
from maxent_onpolicy.cli.values import UsageError, merge, parse_value, read_yaml, set_path

WHO = {"suite": "s", "label": "PPO", "algorithm": "PPO", "env_id": "CartPole-v1", "seed": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e5", 1e5),
        ("-1e-3", -1e-3),
        (".5e1", 5.0),
        ("0.02", 0.02),
        ("300_000", 300_000),
        ("true", True),
        ("null", None),
        ("auto", "auto"),
        ("e5", "e5"),
        ("HalfCheetah-v5", "HalfCheetah-v5"),
        ("linear:3e-4:0", "linear:3e-4:0"),
        ("[64, 64]", [64, 64]),
        ("{pi: [64], vf: [32]}", {"pi": [64], "vf": [32]}),
    ],
)
def test_values_are_what_they_look_like(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_an_unreadable_value_is_named():
    with pytest.raises(UsageError, match=r"cannot read the value '\[64'"):
        parse_value("[64")


def test_merged_keys_lie_under_a_mappings_own(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, z: 4}\nd: *b\n")
    assert read_yaml(path) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 3, "z": 4},
        "d": {"x": 1, "y": 3},
    }
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: 1,\n  y: 2}\n")
    with pytest.raises(UsageError, match=r"suite.yaml, line 3, column 3: the key 'y' is given twice"):
        read_yaml(path)
    path.write_text("a: &a {x: 1}\nb: {<<: *a,\n  <<: *a}\n")
    with pytest.raises(UsageError, match=r"line 3, column 3: the key '<<' is given twice"):
        read_yaml(path)


def test_a_key_given_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text("seeds: [0]\nname: a\nseeds: [1]\n")
    with pytest.raises(UsageError, match=r"suite.yaml, line 3, column 1: the key 'seeds' is given twice"):
        read_yaml(path)


def test_broken_yaml_and_missing_files_are_named(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text("a: [1, 2\nb: 3\n")
    with pytest.raises(UsageError, match=r"suite.yaml, line 2"):
        read_yaml(path)
    with pytest.raises(UsageError, match=r"none.yaml: No such file"):
        read_yaml(tmp_path / "none.yaml")
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match=r"suite.yaml"):
        read_yaml(path)


def test_merge_lays_mappings_over_each_other():
    base = {"a": 1, "h": {"x": 1, "y": [1, 2]}}
    assert merge(base, {"h": {"y": [3]}, "b": 2}) == {"a": 1, "b": 2, "h": {"x": 1, "y": [3]}}
    assert base == {"a": 1, "h": {"x": 1, "y": [1, 2]}}


def test_hyperparameters_are_told_from_options():
    line = ["PPO", "CartPole-v1", "--seed", "1", "--tau", "0.1", "--n-steps=32", "--popart", "--no-normalize-advantage"]
    rest, found = split_hyperparameters(line, {"seed"})
    assert rest == ["PPO", "CartPole-v1", "--seed", "1"]
    assert found == {"tau": 0.1, "n_steps": 32, "popart": True, "normalize_advantage": False}


def test_negative_numbers_and_paths_are_values():
    rest, found = split_hyperparameters(["--target-entropy", "-1.5", "--policy-kwargs.net_arch", "[8]"], {"seed"})
    assert rest == []
    assert found == {"target_entropy": -1.5, "policy_kwargs": {"net_arch": [8]}}


def test_assignments_need_an_equals_sign():
    assert read_assignments(["a=1", "b.c=x"], "--set") == {"a": 1, "b": {"c": "x"}}
    with pytest.raises(UsageError, match="--set expects key=value, got 'tau'"):
        read_assignments(["tau"], "--set")
    with pytest.raises(UsageError, match=r"cannot set 'a.b'"):
        set_path({"a": 1}, "a.b", 2)


def test_a_config_survives_json_exactly():
    settings = {"total_timesteps": 1e5, "hyperparameters": {"learning_rate": 3e-4}, "evaluation": {"seed": 5}}
    config = make_config(settings, "here", **WHO)
    content = json.loads(json.dumps(config.to_json()))
    assert RunConfig.from_json(content) == config
    assert differences(content, config.to_json()) == []
    assert config.total_timesteps == 100_000
    assert config.evaluation == {"every": 10_000, "episodes": 10, "seed": 8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total_timesteps": 0}, "here.total_timesteps: expected a whole number of at least 1, got 0"),
        ({"total_timesteps": True}, "got True"),
        ({}, "here.total_timesteps: expected a whole number of at least 1, got None"),
        ({"total_timesteps": 9, "n_envs": 1.5}, "here.n_envs: expected a whole number"),
        ({"total_timesteps": 9, "n_env": 2}, r"here: unknown key 'n_env' \(did you mean 'n_envs'\?\)"),
        (
            {"total_timesteps": 9, "environment": {"normalise_observation": True}},
            r"here.environment: unknown key 'normalise_observation' \(did you mean 'normalize_observation'\?\)",
        ),
        ({"total_timesteps": 9, "environment": {"normalize_reward": "yes"}}, "expected true or false, got 'yes'"),
        ({"total_timesteps": 9, "evaluation": {"episode": 5}}, "did you mean 'episodes'"),
        ({"total_timesteps": 9, "evaluation": {"episodes": 0}}, "here.evaluation.episodes: expected a whole number"),
        ({"total_timesteps": 9, "hyperparameters": [1]}, r"here.hyperparameters: expected keys with values, got \[1\]"),
        (
            {"total_timesteps": 9, "environment": {"kwargs": {"healthy_z_range": [0.2, float("inf")]}}},
            r"here.environment.kwargs.healthy_z_range\[1\]: expected a finite number, got inf",
        ),
        (
            {"total_timesteps": 9, "hyperparameters": {"tau": date(2020, 1, 1)}},
            "here.hyperparameters.tau: expected text, a number.*quote it",
        ),
        ({"total_timesteps": 9, "policy": 3}, "here.policy: expected text, got 3"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(settings, message):
    with pytest.raises(UsageError, match=message):
        make_config(settings, "here", **WHO)


def test_other_words_about_the_tuning_are_no_difference():
    old = {"tuning_budget": "none", "hyperparameters": {"tau": 0.01}}
    assert differences(old, {"hyperparameters": {"tau": 0.01}}) == []
    assert differences(old, {"hyperparameters": {"tau": 0.01, "tuning_budget": 1}}) == [
        "hyperparameters.tuning_budget: not set → 1"
    ]


def test_differences_name_the_path_and_both_values():
    old = {"seed": 0, "hyperparameters": {"tau": 0.1, "gamma": 0.9}}
    new = {"seed": 0, "hyperparameters": {"tau": 0.2}, "n_envs": 2}
    assert differences(old, new) == [
        "hyperparameters.gamma: 0.9 → not set",
        "hyperparameters.tau: 0.1 → 0.2",
        "n_envs: not set → 2",
    ]


def test_a_config_of_another_make_is_named():
    content = make_config({"total_timesteps": 9}, "here", **WHO).to_json()
    with pytest.raises(UsageError, match="unknown key 'wrapper'"):
        RunConfig.from_json({**content, "wrapper": "x"})
    del content["label"]
    with pytest.raises(UsageError, match=r"config.json lacks label"):
        RunConfig.from_json(content)
