"""Names, settings and search spaces that the Zoo is given."""

import subprocess
import sys

import optuna
import pytest
import rl_zoo3
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

from maxent_onpolicy import PPO, MaxEntPPO
from maxent_onpolicy.cli.registry import ALGORITHMS, load_class
from maxent_onpolicy.zoo import algorithms, register, settings_file
from maxent_onpolicy.zoo.registration import MissingZooError

ENTROPY = {"tau", "entropy_gamma", "entropy_gae_lambda"}


@pytest.fixture(scope="module", autouse=True)
def registered() -> dict[str, type]:
    return register()


def test_what_the_command_line_trains_the_zoo_trains(registered):
    trained = {
        load_class(name) for name, entry in ALGORITHMS.items() if entry.module.startswith("maxent_onpolicy.algorithms")
    }
    assert trained == set(registered.values())
    assert registered["maxent_ppo"] is MaxEntPPO
    assert registered["mop_ppo"] is PPO
    assert registered.items() <= rl_zoo3.ALGOS.items()


def test_the_zoos_own_algorithms_stay_what_they_are():
    for name, module in (("ppo", "stable_baselines3"), ("sac", "stable_baselines3"), ("trpo", "sb3_contrib")):
        assert rl_zoo3.ALGOS[name].__module__.startswith(module)
        assert HYPERPARAMS_SAMPLER[name].__module__ == "rl_zoo3.hyperparams_opt"


def test_registering_again_changes_nothing(registered):
    before = {name: HYPERPARAMS_SAMPLER[name].__self__ for name in registered}
    assert register() == registered
    assert {name: HYPERPARAMS_SAMPLER[name].__self__ for name in registered} == before


def test_without_the_zoo_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    with pytest.raises(MissingZooError, match=r'pip install "maxent-onpolicy\[zoo\]"'):
        register()


def test_settings_of_an_unknown_algorithm():
    with pytest.raises(ValueError, match=r"must be one of .*'maxent_ppo'.*; got 'maxent_pp' \(did you mean"):
        settings_file("maxent_pp")


@pytest.mark.parametrize("name", sorted(algorithms()))
@pytest.mark.parametrize("seed", range(5))
def test_a_stored_trial_gives_the_hyperparameters_that_were_sampled(name, seed):
    """The Zoo reads a finished trial with the converter, from the raw values in its study."""
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    sampled = HYPERPARAMS_SAMPLER[name](trial, 1, 4, {"using_her_replay_buffer": False, "her_kwargs": {}})

    assert HYPERPARAMS_CONVERTER[name](trial.params) == sampled


def test_the_entropy_critic_is_searched_and_the_bonus_is_not():
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    found = HYPERPARAMS_SAMPLER["maxent_ppo"](trial, 1, 4, {"using_her_replay_buffer": False, "her_kwargs": {}})
    assert set(found) >= ENTROPY
    assert "ent_coef" not in found
    assert "ent_coef" not in trial.params
    assert trial.user_attrs["entropy_gamma"] == found["entropy_gamma"] == 1 - trial.params["one_minus_entropy_gamma"]

    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    found = HYPERPARAMS_SAMPLER["mop_ppo"](trial, 1, 4, {"using_her_replay_buffer": False, "her_kwargs": {}})
    assert not set(found) & ENTROPY
    assert "ent_coef" in found


def test_the_zoos_time_limit_is_known_as_one():
    """Importing the Zoo replaces Gymnasium's class: of environments made before, and of those made after."""
    code = """
import gymnasium
before = gymnasium.make("Hopper-v5")
import rl_zoo3
from maxent_onpolicy.envs.mujoco_batch.gymnasium_tasks import task_of, time_limit
after = gymnasium.make("Hopper-v5")
assert type(after) is not type(before)
assert task_of(before) and task_of(after)
assert time_limit(before) == time_limit(after) == 1000
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
