"""Procgen's VecEnv: settings and actions it refuses, how it is closed, and how many threads step."""

import gymnasium as gym
import numpy as np
import pytest
from procgen_games import NOOP, make
from stable_baselines3.common.vec_env import VecTransposeImage
from stepping import assert_equal_steps

from maxent_onpolicy import PPO
from maxent_onpolicy.cores import CORES
from maxent_onpolicy.envs import make_vec_env
from maxent_onpolicy.envs.procgen.vec_env import _default_threads


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_level": 3}, r"takes no keyword 'num_level' \(did you mean 'num_levels'\?\)"),
        ({"num_thread": 3}, r"takes no keyword 'num_thread' \(did you mean 'num_threads'\?\)"),
        ({"distribution_mode": "extreme"}, "`distribution_mode`: coinrun has 'easy', 'hard', 'exploration'; got 'extr"),
        ({"distribution_mode": "memory"}, "`distribution_mode`: coinrun has .* is for caveflyer, dodgeball, heist"),
        ({"distribution_mode": "eazy"}, r"`distribution_mode` must be one of .*did you mean 'easy'"),
        ({"distribution_mode": "exploration", "num_levels": 3}, "is a single level; leave `num_levels` and"),
        ({"distribution_mode": "exploration", "num_levels": 0, "start_level": 3}, "is a single level"),
        ({"num_levels": -1}, "`num_levels` must be"),
        ({"num_levels": 2.5}, "`num_levels` must be an integer"),
        ({"num_levels": 2**31}, r"`num_levels` must be at most 2\*\*31 - 1"),
        ({"start_level": -1}, "`start_level` must be"),
        (
            {"start_level": 2**31 - 1, "num_levels": 1},
            r"`start_level` \+ `num_levels` must be at most .* 21474",
        ),
        ({"use_backgrounds": 1}, "`use_backgrounds` must be True or False, got 1"),
        ({"center_agent": "no"}, "`center_agent` must be True or False, got 'no'"),
        ({"debug_mode": -1}, "`debug_mode` must be"),
        ({"num_threads": -1}, "`num_threads` must be"),
        ({"render_mode": "human"}, "`render_mode` must be one of None, 'rgb_array'"),
        ({"timeouts": "truncate"}, r"`timeouts` must be one of .*did you mean 'truncation'"),
        ({"discretize_bins": 3}, "`discretize_bins`: Procgen's 15 actions are discrete already, got 3"),
        ({"wrapper": lambda env: env}, "`wrapper`: .* put a VecEnvWrapper around"),
        ({"n_envs": 0}, "`n_envs` must be"),
        ({"seed": -1}, "`seed` must be"),
    ],
)
def test_wrong_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


@pytest.mark.parametrize(
    ("game", "message"),
    [
        ("conrun", r"`game` must be one of 'bigfish', .*'starpilot'; got 'conrun' \(did you mean 'coinrun'\?\)"),
        ("procgen-coinrun-v0", "did you mean 'coinrun'"),
        ("coinrun,maze", "`game` must be one of"),
        ("", "`game` must be one of"),
    ],
)
def test_unknown_games(game, message):
    with pytest.raises(ValueError, match=message):
        make(game)
    with pytest.raises(ValueError, match=r"cannot make 'CartPole-v1' as asked \(it needs an id like 'procgen:coinrun'"):
        make_vec_env("CartPole-v1", backend="procgen")


@pytest.mark.parametrize("env_id", ["procgen-coinrun-v0", "Procgen:coinrun", "coinrun", "CoinRun-v0"])
def test_other_ids_of_a_game_are_told_its_own(env_id):
    with pytest.raises(
        ValueError, match="is registered; Procgen's games are called like 'procgen:coinrun', with one of"
    ):
        make_vec_env(env_id)


@pytest.mark.parametrize(
    "actions",
    [[0, 1], [[0, 1, 2]], 3, [0.0, 1.0, 2.0], [0, -1, 2], [0, 15, 2], [True, False, True], ["a", "b", "c"]],
)
def test_wrong_actions_are_refused_and_the_process_lives(actions):
    vec_env, expected = make(), make()
    vec_env.reset(), expected.reset()
    with pytest.raises(ValueError, match="`actions` must be"):
        vec_env.step(actions)
    noop = np.full(3, NOOP)
    assert_equal_steps([vec_env.step(noop) for _ in range(2)], [expected.step(noop) for _ in range(2)])


def test_reset_comes_first():
    vec_env = make()
    with pytest.raises(gym.error.ResetNeeded):
        vec_env.step(np.zeros(3, dtype=int))
    with pytest.raises(gym.error.ResetNeeded):
        vec_env.get_images()


def test_close_can_be_repeated():
    vec_env = make(num_threads=2)
    vec_env.reset()
    vec_env.step_async(np.zeros(3, dtype=int))
    vec_env.close()
    vec_env.close()
    for use in (vec_env.reset, vec_env.get_state, lambda: vec_env.step(np.zeros(3, dtype=int))):
        with pytest.raises(gym.error.ClosedEnvironmentError):
            use()
    make().close()


def test_default_threads(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [_default_threads(count) for count in (1, 2, 64)] == [0, 2, 8]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert [_default_threads(count) for count in (1, 64)] == [0, 2]
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    for cores, threads in (("3", 3), ("99", 8), ("1", 0), ("", 8), ("many", 8)):
        monkeypatch.setenv(CORES, cores)
        assert _default_threads(64) == threads


def test_no_more_threads_than_games():
    assert make(n_envs=3, num_threads=10**12)._threads == 3
    make(n_envs=3, num_threads=10**12).reset()


def test_a_game_is_named_once():
    with pytest.raises(ValueError, match="`game`: `env_id` 'procgen:coinrun' names it already, got 'maze'"):
        make_vec_env("procgen:coinrun", game="maze")


def test_observations_that_are_overwritten_are_not_learnt_from():
    with pytest.raises(ValueError, match="`env` was made with copy_observations=False"):
        PPO("CnnPolicy", VecTransposeImage(make(copy_observations=False)), n_steps=8, device="cpu")
