"""Batched MuJoCo equals Gymnasium's -v5 tasks: observations bit for bit, rewards to the last digit, ends and infos."""

import gymnasium as gym
import numpy as np
import pytest
from stepping import comparable

from maxent_onpolicy.envs import make_vec_env
from maxent_onpolicy.envs.make import _without_known_mujoco_warnings
from maxent_onpolicy.envs.mujoco_batch import MujocoBatchVecEnv

SLOW = pytest.mark.slow
TASKS = [
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "Pusher",
    "Reacher",
    "Swimmer",
    "Walker2d",
]
HUMANOID_PARTS = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
OPTIONS = {
    "Ant": [
        {
            "include_cfrc_ext_in_observation": False,
            "exclude_current_positions_from_observation": False,
            "frame_skip": 3,
        },
        {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0, "main_body": "torso", "healthy_reward": 2},
        {"contact_force_range": (-0.01, 0.02), "main_body": 3, "forward_reward_weight": 0.3, "ctrl_cost_weight": 2.0},
        {"healthy_z_range": (0.5, 0.8), "reset_noise_scale": 0.01},
        {"terminate_when_unhealthy": False, "healthy_z_range": (0.5, 0.8), "contact_cost_weight": 1.0},
    ],
    "HalfCheetah": [
        {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 0.7, "frame_skip": 2},
        {"forward_reward_weight": np.float64(0.3), "ctrl_cost_weight": np.float64(0.1), "reset_noise_scale": 0.0},
    ],
    "Hopper": [
        {"exclude_current_positions_from_observation": False, "healthy_angle_range": (-0.1, 0.1), "healthy_reward": 3},
        {"healthy_state_range": (-2.0, 2.0), "healthy_z_range": (1.0, 1.5), "ctrl_cost_weight": 0.5},
        {"terminate_when_unhealthy": False, "forward_reward_weight": 2, "reset_noise_scale": 0.1},
        {"healthy_angle_range": (float("nan"), 0.2)},
    ],
    "Humanoid": [
        {f"include_{part}_in_observation": False for part in HUMANOID_PARTS},
        {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0, "healthy_z_range": (1.3, 1.5)},
        {"contact_cost_weight": 1.0, "contact_cost_range": (0.5, 3.0), "terminate_when_unhealthy": False},
        {"exclude_current_positions_from_observation": False, "forward_reward_weight": 3, "healthy_reward": 1},
        {"ctrl_cost_weight": 1.0, "reset_noise_scale": 0.1},
    ],
    "HumanoidStandup": [
        {f"include_{part}_in_observation": False for part in HUMANOID_PARTS[1:]},
        {"include_cinert_in_observation": False, "exclude_current_positions_from_observation": False},
        {"impact_cost_weight": 0, "include_cfrc_ext_in_observation": False, "ctrl_cost_weight": 2.0},
        {"impact_cost_weight": 1.0, "impact_cost_range": (0.5, 3.0), "uph_cost_weight": 3, "reset_noise_scale": 0.1},
    ],
    "InvertedDoublePendulum": [{"healthy_reward": 3, "reset_noise_scale": 0.02}, {"frame_skip": 2}],
    "InvertedPendulum": [{"reset_noise_scale": 0.05, "frame_skip": 1}],
    "Pusher": [{"reward_near_weight": 2.0, "reward_dist_weight": 0.3, "reward_control_weight": 3}],
    "Reacher": [{"reward_dist_weight": 0.3, "reward_control_weight": 3, "frame_skip": 4}],
    "Swimmer": [
        {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 0.5, "forward_reward_weight": 2},
        {"reset_noise_scale": 0.5},
    ],
    "Walker2d": [
        {"exclude_current_positions_from_observation": False, "healthy_z_range": (1.0, 1.3), "healthy_reward": 3},
        {"terminate_when_unhealthy": False, "healthy_angle_range": (-0.1, 0.1), "xml_file": "walker2d.xml"},
        {"forward_reward_weight": 3, "ctrl_cost_weight": 0.5, "reset_noise_scale": 0.05},
    ],
}
ALL_OPTIONS = [(task, options) for task in TASKS for options in OPTIONS[task]]


def make_env(task, **kwargs):
    with _without_known_mujoco_warnings():
        return gym.make(f"{task}-v5", **kwargs)


def assert_equal_infos(infos, expected_infos):
    for index, expected in enumerate(expected_infos):
        info, expected = comparable(infos[index]), comparable(expected)
        assert list(info) == list(expected)
        for name, value in expected.items():
            assert type(info[name]) is type(value), name
            if isinstance(value, dict):
                assert info[name] == value, name
            else:
                np.testing.assert_allclose(info[name], value, rtol=0, atol=1e-12, err_msg=name)


def check_parity(task, n_envs, steps=60, limit=15, dtype=np.float32, num_threads=2, **options):
    """Step both; return how many episodes were truncated and how many terminated."""
    kwargs = {"max_episode_steps": limit} | options
    vec_env = MujocoBatchVecEnv(make_env(task, **kwargs), n_envs, num_threads=num_threads)
    expected_env = make_vec_env(f"{task}-v5", n_envs, backend="gymnasium", **kwargs)
    assert vec_env.observation_space == expected_env.observation_space
    assert vec_env.action_space == expected_env.action_space
    assert vec_env.seed(5) == expected_env.seed(5)
    np.testing.assert_array_equal(vec_env.reset(), expected_env.reset(), strict=True)
    exact_rewards = []
    add = vec_env.episodes.add
    vec_env.episodes.add = lambda reward: exact_rewards.append(reward) or add(reward)
    rng, low, high = np.random.default_rng(0), vec_env.action_space.low, vec_env.action_space.high
    truncations = terminations = 0
    for _ in range(steps):
        actions = rng.uniform(1.2 * low, 1.2 * high, size=(n_envs, *low.shape)).astype(dtype)
        observation, reward, done, infos = vec_env.step(actions)
        expected_observation, expected_reward, expected_done, expected_infos = expected_env.step(actions)
        np.testing.assert_array_equal(observation, expected_observation, strict=True)
        np.testing.assert_array_equal(reward, expected_reward, strict=True)
        np.testing.assert_array_equal(done, expected_done, strict=True)
        assert_equal_infos(infos, expected_infos)
        assert_equal_infos(vec_env.reset_infos, expected_env.reset_infos)
        for index, env in enumerate(expected_env.envs):
            if not done[index]:
                assert abs(exact_rewards[-1][index] - env.rewards[-1]) <= 1e-12
        cut_off = sum(info["TimeLimit.truncated"] for info in infos)
        truncations, terminations = truncations + cut_off, terminations + done.sum() - cut_off
    return truncations, terminations


@pytest.mark.parametrize(
    ("n_envs", "num_threads"), [(16, 2), *(pytest.param(*few, marks=SLOW) for few in ((1, 2), (3, 1), (3, 2)))]
)
@pytest.mark.parametrize("task", TASKS)
def test_equals_gymnasium(task, n_envs, num_threads):
    # The pendulums fall within a few random actions.
    limit = 4 if "Pendulum" in task else 15
    truncations, terminations = check_parity(task, n_envs, num_threads=num_threads, limit=limit)
    assert truncations > 0
    assert terminations > 0 or n_envs < 16 or task not in ("Hopper", "InvertedPendulum", "InvertedDoublePendulum")


@pytest.mark.parametrize(
    ("task", "options"), ALL_OPTIONS, ids=[f"{task}-{i}" for i, (task, _) in enumerate(ALL_OPTIONS)]
)
def test_every_option_is_honoured(task, options):
    check_parity(task, 2, **options)


def test_options_cover_every_constructor_argument():
    """An argument that a new version of Gymnasium adds must not be ignored in silence."""
    elsewhere = {"xml_file", "frame_skip", "default_camera_config", "kwargs"}
    for task in TASKS:
        constructor = type(make_env(task).unwrapped).__init__
        code = constructor.__code__
        arguments = set(code.co_varnames[1 : code.co_argcount]) - elsewhere
        assert arguments <= set().union(*OPTIONS[task]), task


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
@pytest.mark.parametrize("task", ["HalfCheetah", "Humanoid", "Reacher"])
def test_actions_of_other_types(task, dtype):
    check_parity(task, 2, steps=30, dtype=dtype)


def test_without_a_time_limit():
    assert check_parity("InvertedPendulum", 2, steps=300, limit=-1)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_equals_gymnasium_over_whole_episodes(task):
    check_parity(task, 2, steps=2100, limit=None)


@pytest.mark.parametrize("task", ["HalfCheetah", "Ant"])
def test_the_number_of_threads_changes_nothing(task):
    results = []
    for num_threads in (1, 2, 5):
        vec_env = MujocoBatchVecEnv(make_env(task), 5, num_threads=num_threads)
        vec_env.seed(0)
        observations = [vec_env.reset()]
        for actions in np.random.default_rng(1).uniform(-1, 1, size=(40, *vec_env._action_shape)):
            observations.append(vec_env.step(actions)[0])
        results.append(np.array(observations))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.filterwarnings("ignore:.*NaN value")
def test_actions_that_are_not_finite_are_treated_as_in_gymnasium(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file
    vec_env, expected_env = (make_vec_env("Hopper-v5", 2, seed=0, backend=name) for name in ("auto", "gymnasium"))
    np.testing.assert_array_equal(vec_env.reset(), expected_env.reset())
    actions = np.array([[np.nan, 0, 0], [1e20, -1e20, 1e20]])
    for _ in range(3):
        for value, expected in zip(vec_env.step(actions)[:3], expected_env.step(actions)[:3], strict=True):
            np.testing.assert_array_equal(value, expected)
