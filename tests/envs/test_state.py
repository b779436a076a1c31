"""Restored environments continue bit by bit as the saved ones would have."""

import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import (
    FrameStackObservation,
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    StickyAction,
)
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecMonitor,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env import VecNormalize as SB3VecNormalize
from stepping import actions_for, assert_equal_steps, check_continues

from maxent_onpolicy.envs import GymVecEnv, VecNormalize, make_vec_env
from maxent_onpolicy.envs.mujoco_state import get_data_state, set_data_state
from maxent_onpolicy.envs.state import (
    get_env_state,
    set_env_state,
    state_from_bytes,
    state_to_bytes,
)
from maxent_onpolicy.envs.toys import ConstantRewardEnv, TwoStateEnv

MUJOCO = [
    "Ant-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Pusher-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
]
OTHERS = [
    "Acrobot-v1",
    "Blackjack-v1",
    "CartPole-v1",
    "FrozenLake-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
]


@pytest.mark.parametrize("env_id", [*MUJOCO, *OTHERS])
def test_continues_exactly_across_episode_ends(env_id):
    kwargs = {"max_episode_steps": 30} if env_id in MUJOCO else {"max_episode_steps": 60}
    ended = check_continues(lambda: make_vec_env(env_id, 2, seed=3, **kwargs), before=20, after=80)
    assert ended >= 2


@pytest.mark.parametrize("before", [0, 1, 2])
def test_continues_exactly_from_the_first_steps(before):
    check_continues(lambda: make_vec_env("Ant-v5", 1, seed=3), before=before, after=20)


def test_continues_exactly_into_an_environment_that_is_elsewhere():
    actions = actions_for(make_vec_env("Ant-v5", 2), 60)
    saved, used = make_vec_env("Ant-v5", 2, seed=0), make_vec_env("Ant-v5", 2, seed=9)
    saved.reset()
    used.reset()
    for action in actions[:20]:
        saved.step(action)
        used.step(-action)
    used.set_state(saved.get_state())
    assert_equal_steps([saved.step(a) for a in actions[20:]], [used.step(a) for a in actions[20:]])


CONTINUE = """
import sys
import numpy as np
from maxent_onpolicy.envs import make_vec_env
from maxent_onpolicy.envs.state import set_env_state, state_from_bytes
folder = sys.argv[1]
vec_env = make_vec_env("Humanoid-v5", 1)
set_env_state(vec_env, state_from_bytes(open(folder + "/state", "rb").read()))
steps = [vec_env.step(action) for action in np.load(folder + "/actions.npy")]
np.savez(folder + "/result.npz", observation=[step[0] for step in steps], reward=[step[1] for step in steps])
"""


def test_continues_exactly_in_another_process(tmp_path):
    vec_env = make_vec_env("Humanoid-v5", 1, seed=3)
    vec_env.reset()
    actions = actions_for(vec_env, 60)
    for action in actions[:10]:
        vec_env.step(action)
    (tmp_path / "state").write_bytes(state_to_bytes(get_env_state(vec_env)))
    np.save(tmp_path / "actions.npy", actions[10:])
    steps = [vec_env.step(action) for action in actions[10:]]
    subprocess.run([sys.executable, "-c", CONTINUE, str(tmp_path)], check=True)
    with np.load(tmp_path / "result.npz") as result:
        np.testing.assert_array_equal(result["observation"], [step[0] for step in steps])
        np.testing.assert_array_equal(result["reward"], [step[1] for step in steps])


def test_a_state_can_be_restored_twice():
    vec_env = make_vec_env("Hopper-v5", 1, seed=0)
    vec_env.reset()
    actions = actions_for(vec_env, 30)
    state = vec_env.get_state()
    first = [vec_env.step(action) for action in actions]
    vec_env.set_state(state)
    assert_equal_steps(first, [vec_env.step(action) for action in actions])


def test_integration_state_alone_is_not_enough():
    """Ant reads ``xpos`` before it steps: this is why all arrays are kept."""
    left, right = gym.make("Ant-v5").unwrapped, gym.make("Ant-v5").unwrapped
    left.reset(seed=0)
    right.reset(seed=1)
    for _ in range(5):
        left.step(np.full(8, 0.5))
    size = mujoco.mj_stateSize(left.model, mujoco.mjtState.mjSTATE_INTEGRATION)
    integration = np.empty(size)
    mujoco.mj_getState(left.model, left.data, integration, mujoco.mjtState.mjSTATE_INTEGRATION)
    everything = get_data_state(left.data)
    expected = left.step(np.full(8, 0.5))

    mujoco.mj_setState(right.model, right.data, integration, mujoco.mjtState.mjSTATE_INTEGRATION)
    assert right.step(np.full(8, 0.5))[1] != expected[1]
    set_data_state(right.data, everything)
    result = right.step(np.full(8, 0.5))
    assert result[1] == expected[1]
    np.testing.assert_array_equal(result[0], expected[0])


def test_kept_mujoco_arrays_are_the_ones_of_fixed_size():
    """MuJoCo's own header says which arrays of MjData live in the arena."""
    header = (Path(mujoco.HEADERS_DIR) / "mjxmacro.h").read_text()
    blocks = re.findall(r"#define (MJDATA_\w+)[^\n]*\\\n((?:[^\n]*\\\n)*[^\n]*)", header)
    fields = {name: set(re.findall(r"X\w*\s*\(\s*\w+,\s*(\w+),", body)) for name, body in blocks}
    arena = set().union(*(names for block, names in fields.items() if block.startswith("MJDATA_ARENA_POINTERS_")))
    env = gym.make("Humanoid-v5").unwrapped
    env.reset(seed=0)
    kept = set(get_data_state(env.data)["arrays"])
    assert arena
    assert not kept & arena
    assert fields["MJDATA_POINTERS"] - kept == {"plugin_data"}


def test_mujoco_state_of_another_model_is_refused():
    hopper, ant = gym.make("Hopper-v5").unwrapped, gym.make("Ant-v5").unwrapped
    with pytest.raises(ValueError, match="another model"):
        set_data_state(ant.data, get_data_state(hopper.data))


def test_mujoco_state_of_another_version_is_refused():
    data = gym.make("Hopper-v5").unwrapped.data
    with pytest.raises(ValueError, match=r"saved with MuJoCo 1\.2\.3"):
        set_data_state(data, {**get_data_state(data), "mujoco": "1.2.3"})


class RandomMass(gym.Wrapper):
    """Randomises the model at every reset, as domain randomisation does."""

    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        self.unwrapped.model.body_mass[1:] *= self.np_random.uniform(0.8, 1.2)
        self.unwrapped.model.opt.gravity[2] = -self.np_random.uniform(8, 10)
        self.unwrapped.model.opt.timestep = self.np_random.uniform(0.001, 0.003)
        return observation, info


def test_randomised_models_are_restored():
    make = lambda: make_vec_env("Hopper-v5", 2, seed=0, wrapper=RandomMass)  # noqa: E731
    assert check_continues(make, before=15, after=60) >= 2


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda env: FrameStackObservation(env, 3),
        NormalizeObservation,
        NormalizeReward,
        RecordEpisodeStatistics,
        lambda env: StickyAction(env, 0.5),
    ],
    ids=["stack", "normalise", "reward", "statistics", "sticky"],
)
def test_gymnasium_wrappers_are_restored(wrapper):
    monitor = wrapper is not RecordEpisodeStatistics  # both write info["episode"]
    make = lambda: make_vec_env("CartPole-v1", 2, seed=0, wrapper=wrapper, monitor=monitor)  # noqa: E731
    assert check_continues(make, before=30, after=60) >= 2


class ImageEnv(ConstantRewardEnv):
    """A toy with image observations drawn from its generator."""

    def __init__(self, channels_first=False):
        super().__init__(length=7)
        shape = (1, 36, 36) if channels_first else (36, 36, 1)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def _observation(self):
        return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8)


VEC_WRAPPERS = {
    "normalise": lambda env: VecNormalize(env, device="cpu"),
    "sb3_normalise": SB3VecNormalize,
    "monitor": VecMonitor,
    "stack_of_normalise": lambda env: VecFrameStack(VecNormalize(env, device="cpu"), 3),
}


@pytest.mark.parametrize("wrapper", VEC_WRAPPERS.values(), ids=VEC_WRAPPERS.keys())
@pytest.mark.parametrize("base", [GymVecEnv, DummyVecEnv])
def test_vec_env_wrappers_are_restored(wrapper, base):
    def make():
        vec_env = base([lambda: gym.make("CartPole-v1") for _ in range(2)])
        vec_env.seed(0)
        return wrapper(vec_env)

    assert check_continues(make, before=30, after=60) >= 2


def test_image_wrappers_are_restored():
    make = lambda: VecFrameStack(VecTransposeImage(make_vec_env(ImageEnv, 2, seed=0)), 2)  # noqa: E731
    assert check_continues(make, before=10, after=20) >= 2


def test_step_tensor_of_normalise_is_restored():
    make = lambda: VecNormalize(make_vec_env("CartPole-v1", 2, seed=0), device="cpu")  # noqa: E731
    vec_env, new = make(), make()
    vec_env.reset()
    actions = [torch.as_tensor(action) for action in actions_for(vec_env, 60)]
    for action in actions[:20]:
        vec_env.step_tensor(action)
    set_env_state(new, state_from_bytes(state_to_bytes(get_env_state(vec_env))))
    for action in actions[20:]:
        expected, result = vec_env.step_tensor(action), new.step_tensor(action)
        assert torch.equal(expected.observation, result.observation)
        assert torch.equal(expected.reward, result.reward)


def test_seeds_waiting_for_the_next_reset_are_restored():
    vec_env, new = make_vec_env(TwoStateEnv, 4, seed=0), make_vec_env(TwoStateEnv, 4)
    vec_env.seed(77)
    new.set_state(vec_env.get_state())
    np.testing.assert_array_equal(vec_env.reset(), new.reset())
