"""``make_vec_env``: every id, reproducible, and errors that help."""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.monitor import Monitor

import maxent_onpolicy
from maxent_onpolicy.envs import DiscretizeActions, GymVecEnv, make_vec_env
from maxent_onpolicy.envs import make as make_module
from maxent_onpolicy.envs.make import Backend
from maxent_onpolicy.envs.mujoco_batch import MujocoBatchVecEnv
from maxent_onpolicy.envs.toys import ConstantRewardEnv


def rollout(vec_env, steps=30):
    observations = [vec_env.reset()]
    for _ in range(steps):
        actions = np.stack([space.sample() for space in vec_env.get_attr("action_space")])
        observations.append(vec_env.step(actions)[0])
    return np.array(observations)


def test_same_seed_same_episodes():
    first, second, other = (rollout(make_vec_env("Hopper-v5", 2, seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[:, 0], first[:, 1])


def test_environment_i_is_seeded_with_seed_plus_i():
    first, second = rollout(make_vec_env("Hopper-v5", 2, seed=3)), rollout(make_vec_env("Hopper-v5", 1, seed=4))
    np.testing.assert_array_equal(first[:, 1], second[:, 0])


def test_equals_sb3():
    np.testing.assert_array_equal(
        rollout(make_vec_env("Walker2d-v5", 2, seed=1)), rollout(sb3_make_vec_env("Walker2d-v5", 2, seed=1))
    )


def test_no_seed_follows_the_global_generator():
    results = []
    for _ in range(2):
        np.random.seed(8)
        results.append(make_vec_env("CartPole-v1", 2).reset())
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "Swimmer-v5", "gymnasium:CartPole-v1"])
def test_ids(env_id):
    vec_env = make_vec_env(env_id, 2, seed=0)
    assert isinstance(vec_env, MujocoBatchVecEnv if env_id == "Swimmer-v5" else GymVecEnv)
    assert vec_env.num_envs == 2
    assert vec_env.render_mode == "rgb_array"
    assert rollout(vec_env, 3).shape[:2] == (4, 2)


def test_ids_without_a_version_are_the_latest():
    assert make_vec_env("HalfCheetah").get_attr("spec")[0].id == "HalfCheetah-v5"


def test_public_name():
    assert maxent_onpolicy.make_vec_env is make_vec_env


def test_classes_and_functions():
    by_class = make_vec_env(ConstantRewardEnv, 2, seed=0, reward=3.0)
    by_function = make_vec_env(lambda: ConstantRewardEnv(reward=3.0), 2, seed=0)
    for vec_env in (by_class, by_function):
        vec_env.reset()
        assert vec_env.step([0, 0])[1].tolist() == [3.0, 3.0]


def test_keywords_reach_the_environment():
    vec_env = make_vec_env("HalfCheetah-v5", 1, ctrl_cost_weight=0.7, max_episode_steps=5)
    assert vec_env.get_attr("_ctrl_cost_weight") == [0.7]
    assert vec_env.get_attr("spec")[0].max_episode_steps == 5


def test_layers_are_monitor_wrapper_discretisation():
    wrapper = lambda env: TimeLimit(env, 9)  # noqa: E731
    env = make_vec_env("Pendulum-v1", 1, seed=0, wrapper=wrapper, discretize_bins=5).envs[0]
    assert isinstance(env, DiscretizeActions)
    assert isinstance(env.env, TimeLimit)
    assert isinstance(env.env.env, Monitor)
    assert env.action_space == spaces.MultiDiscrete([5])


def test_monitor_can_be_left_out():
    assert make_vec_env("CartPole-v1", 1, monitor=False).env_is_wrapped(Monitor) == [False]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"env_id": "HalfCheeta-v5"}, ["'HalfCheeta-v5'", "HalfCheetah-v5"]),
        ({"env_id": "CartPole-v7"}, ["CartPole-v1"]),
        ({"env_id": "procgen-coinrun-v0"}, ["'procgen:coinrun'"]),
        ({"env_id": "HalfCheetah-v2"}, ["mujoco-py", "'HalfCheetah-v5'"]),
        ({"env_id": "Walker2d-v3"}, ["'Walker2d-v5'"]),
        ({"env_id": "CartPole-v1", "backend": "gymnasum"}, ["`backend`", "'auto'", "did you mean 'gymnasium'"]),
        ({"env_id": "CartPole-v1", "n_envs": 0}, ["`n_envs`", "at least 1", "got 0"]),
        ({"env_id": "CartPole-v1", "n_envs": 1.5}, ["`n_envs`", "1.5"]),
        ({"env_id": "CartPole-v1", "seed": -1}, ["`seed`", "-1"]),
        ({"env_id": "HalfCheetah-v5", "ctrl_cost_wieght": 1}, ["ctrl_cost_wieght", "did you mean 'ctrl_cost_weight'"]),
        ({"env_id": "CartPole-v1", "discretize_bins": 7}, ["Box action space"]),
        ({"env_id": ConstantRewardEnv()}, ["`env_id` is an environment"]),
    ],
)
def test_errors_name_what_is_allowed(arguments: dict[str, Any], words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        make_vec_env(**arguments)
    for word in words:
        assert word in str(caught.value)


def test_version_4_points_at_version_5():
    with pytest.warns(UserWarning, match="'Hopper-v5'"):
        make_vec_env("Hopper-v4")


@pytest.mark.parametrize(
    ("module", "env_id", "package"),
    [
        ("mujoco", "HalfCheetah-v5", "maxent-onpolicy[mujoco]"),
        ("Box2D", "LunarLander-v3", "maxent-onpolicy[box2d]"),
    ],
)
def test_missing_package_names_what_to_install(monkeypatch, module, env_id, package):
    for name in list(sys.modules):
        if name.startswith(("gymnasium.envs.mujoco", "gymnasium.envs.box2d", module)):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install '{package.replace('[', '.')[:-1]}"):
        make_vec_env(env_id)


def test_auto_takes_the_preferred_backend_that_serves(monkeypatch):
    made = []
    fast = Backend(
        make=lambda request: made.append(request) or make_module.make_gym_vec_env(request),
        serves=lambda request: request.env_id == "CartPole-v1" and request.wrapper is None,
        preference=1,
    )
    monkeypatch.setitem(make_module.BACKENDS, "fast", fast)
    make_vec_env("CartPole-v1", 2, seed=3)
    assert (made[0].n_envs, made[0].seed) == (2, 3)
    make_vec_env("Acrobot-v1")
    make_vec_env("CartPole-v1", wrapper=lambda env: env)
    make_vec_env("CartPole-v1", backend="gymnasium")
    assert len(made) == 1
    with pytest.raises(ValueError, match="`backend='fast'` cannot make 'Acrobot-v1' as asked; gymnasium can"):
        make_vec_env("Acrobot-v1", backend="fast")


def test_registered_environments_of_the_user():
    gym.register("MaxEntOnPolicyToy-v0", entry_point=ConstantRewardEnv, max_episode_steps=4)
    try:
        vec_env = make_vec_env("MaxEntOnPolicyToy-v0", 1, seed=0, length=100)
        vec_env.reset()
        dones = [bool(vec_env.step([0])[2][0]) for _ in range(4)]
        assert dones == [False, False, False, True]
    finally:
        del gym.registry["MaxEntOnPolicyToy-v0"]


def test_mujocos_remarks_on_gymnasiums_own_models_are_not_shown(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    make_vec_env("HalfCheetah-v5", 2).close()
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ("a", "`seed` must be an integer of at least 0, got 'a'"),
        (1.5, "`seed` must be an integer of at least 0, got 1.5"),
        (2**32, r"`seed` must be in \[0, 2\*\*32 - n_envs\], got 4294967296"),
    ],
)
def test_a_wrong_seed_is_named(seed, message):
    with pytest.raises(ValueError, match=message):
        make_vec_env("CartPole-v1", seed=seed)
