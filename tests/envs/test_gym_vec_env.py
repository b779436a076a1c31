"""``GymVecEnv`` returns what SB3's ``DummyVecEnv`` returns."""

from ctypes.util import find_library

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecVideoRecorder

from maxent_onpolicy.envs import GymVecEnv, make_vec_env
from maxent_onpolicy.envs.toys import ConstantRewardEnv


class StructuredEnv(gym.Env):
    """Dict or Tuple observations drawn from the generator; ends at random, in both ways."""

    def __init__(self, as_tuple=False):
        parts = [spaces.Box(-1, 1, (3,)), spaces.Discrete(5), spaces.Box(0, 255, (4, 4, 1), np.uint8)]
        names = ("vector", "number", "image")
        self.as_tuple = as_tuple
        self.observation_space = spaces.Tuple(parts) if as_tuple else spaces.Dict(dict(zip(names, parts, strict=True)))
        self.action_space = spaces.MultiBinary(2)

    def _observe(self):
        vector = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        image = self.np_random.integers(0, 255, (4, 4, 1), dtype=np.uint8)
        parts = (vector, int(self.np_random.integers(5)), image)
        return parts if self.as_tuple else dict(zip(("vector", "number", "image"), parts, strict=True))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {"options": options}

    def step(self, action):
        terminated, truncated = self.np_random.random(2) < 0.2
        return self._observe(), self.np_random.random(), bool(terminated), bool(truncated), {"a": [1], "n": {"b": 2}}


def assert_equal_tree(left, right):
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            if key != "t":  # seconds
                assert_equal_tree(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert type(left) is type(right)
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal_tree(one, other)
    else:
        np.testing.assert_array_equal(left, right, strict=isinstance(left, np.ndarray))


MAKERS = {
    "Hopper": lambda: gym.make("Hopper-v5", max_episode_steps=15),
    "Humanoid": lambda: gym.make("Humanoid-v5"),
    "CartPole": lambda: gym.make("CartPole-v1", max_episode_steps=15),
    "Pendulum": lambda: gym.make("Pendulum-v1", max_episode_steps=15),
    "Dict": StructuredEnv,
    "Tuple": lambda: StructuredEnv(as_tuple=True),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_equals_dummy_vec_env(make):
    reference, ours = (cls([lambda: Monitor(make())] * 3) for cls in (DummyVecEnv, GymVecEnv))
    for vec_env in (reference, ours):
        vec_env.seed(5)
        vec_env.set_options({"x": 1})
        vec_env.action_space.seed(0)
    assert_equal_tree(reference.reset(), ours.reset())
    ended = 0
    for _ in range(60):
        actions = np.stack([reference.action_space.sample() for _ in range(3)])
        expected, result = reference.step(actions), ours.step(actions)
        assert_equal_tree(expected, result)
        assert_equal_tree(reference.reset_infos, ours.reset_infos)
        ended += expected[2].sum()
    assert ended


def test_results_are_never_written_to_again():
    vec_env = GymVecEnv([lambda: Monitor(gym.make("CartPole-v1", max_episode_steps=3)) for _ in range(2)])
    vec_env.seed(0)
    first = vec_env.reset()
    steps = [vec_env.step(np.array([0, 1])) for _ in range(6)]
    arrays = [first, *(step[0] for step in steps)]
    assert all(not np.shares_memory(one, other) for i, one in enumerate(arrays) for other in arrays[:i])
    assert all(not np.shares_memory(steps[0][part], steps[1][part]) for part in (1, 2))
    assert steps[2][3][0] is not steps[5][3][0]
    assert [step[2].tolist() for step in steps] == [[False] * 2, [False] * 2, [True] * 2] * 2


def test_final_observation_survives_an_environment_that_reuses_its_array():
    class Reusing(ConstantRewardEnv):
        buffer = np.zeros(1, np.float32)

        def _observation(self):
            self.buffer[0] = self.elapsed / self.length
            return self.buffer

    vec_env = GymVecEnv([lambda: Reusing(length=2)])
    vec_env.reset()
    vec_env.step([0])
    observation, _, done, infos = vec_env.step([0])
    assert done[0]
    assert infos[0]["TimeLimit.truncated"]
    assert infos[0]["terminal_observation"] == 1.0
    assert observation == 0.0


@pytest.mark.parametrize(("end", "truncated"), [("terminated", False), ("truncated", True)])
def test_ends_are_told_apart(end, truncated):
    vec_env = make_vec_env(ConstantRewardEnv, 1, seed=0, length=2, end=end)
    vec_env.reset()
    vec_env.step([0])
    _, _, done, infos = vec_env.step([0])
    assert done[0]
    assert infos[0]["TimeLimit.truncated"] is truncated
    assert infos[0]["episode"]["r"] == 2.0
    assert infos[0]["episode"]["l"] == 2


def test_attributes_and_methods_reach_the_environments():
    vec_env = make_vec_env(ConstantRewardEnv, 3, seed=0)
    vec_env.env_method("reset", indices=[1], seed=4)
    assert vec_env.get_attr("np_random_seed", indices=[1]) == [4]
    assert vec_env.env_method("value", 0, 0.5) == [2.0] * 3
    vec_env.set_attr("label", 7, indices=[0, 2])
    assert [vec_env.envs[i].label for i in (0, 2)] == [7, 7]
    assert vec_env.env_is_wrapped(Monitor) == [True] * 3
    assert vec_env.has_attr("length")
    assert not vec_env.has_attr("no_such_attribute")


class Painted(ConstantRewardEnv):
    """A toy that can be filmed."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    render_mode = "rgb_array"

    def render(self):
        return np.full((16, 16, 3), 25 * self.elapsed, np.uint8)


def test_images_of_all_environments_are_tiled():
    vec_env = make_vec_env(Painted, 2, seed=0)
    vec_env.reset()
    vec_env.step([0, 0])
    image = vec_env.render()
    assert image.shape == (32, 16, 3)
    assert (image == 25).all()


def test_video_recorder(tmp_path):
    pytest.importorskip("moviepy")
    vec_env = VecVideoRecorder(make_vec_env(Painted, 1, seed=0), str(tmp_path), lambda step: step == 0, video_length=5)
    vec_env.reset()
    for _ in range(6):
        vec_env.step([0])
    vec_env.close()
    assert list(tmp_path.glob("*.mp4"))


@pytest.mark.skipif(find_library("EGL") is None, reason="needs the EGL library")
def test_mujoco_images():
    vec_env = make_vec_env("Hopper-v5", 1, seed=0, width=64, height=64)
    vec_env.reset()
    assert vec_env.render().std() > 0
