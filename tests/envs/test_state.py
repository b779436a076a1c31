"""Restored environments continue bit by bit as the saved ones would have."""

import json
import random
import re
import subprocess
import sys
from collections import OrderedDict, defaultdict, deque, namedtuple
from enum import Enum
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
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecMonitor,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env import VecNormalize as SB3VecNormalize

from maxent_onpolicy.envs import GymVecEnv, VecNormalize, make_vec_env
from maxent_onpolicy.envs.capture import Layer, capture
from maxent_onpolicy.envs.mujoco_state import get_data_state, set_data_state
from maxent_onpolicy.envs.restore import restore
from maxent_onpolicy.envs.state import (
    StateNotRestorableError,
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


def actions_for(vec_env, steps, seed=0):
    vec_env.action_space.seed(seed)
    return [np.stack([vec_env.action_space.sample() for _ in range(vec_env.num_envs)]) for _ in range(steps)]


def comparable(info):
    """An info with its wall-clock time removed."""
    result = dict(info)
    if "episode" in result:
        result["episode"] = {key: value for key, value in result["episode"].items() if key != "t"}
    return result


def assert_equal_tree(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_equal_tree(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal_tree(one, other)
    else:
        np.testing.assert_array_equal(left, right, strict=isinstance(left, np.ndarray))


def assert_equal_steps(steps, other_steps):
    for step, other in zip(steps, other_steps, strict=True):
        assert_equal_tree(list(step[:3]), list(other[:3]))
        assert_equal_tree([comparable(info) for info in step[3]], [comparable(info) for info in other[3]])


def check_continues(make, before, after):
    """Save midway; a new environment must take the same steps from there. Returns how many episodes ended."""
    vec_env = make()
    vec_env.reset()
    actions = actions_for(vec_env, before + after)
    for action in actions[:before]:
        vec_env.step(action)
    data = state_to_bytes(get_env_state(vec_env))
    expected = [vec_env.step(action) for action in actions[before:]]
    new = make()
    set_env_state(new, state_from_bytes(data))
    assert_equal_steps(expected, [new.step(action) for action in actions[before:]])
    return sum(int(step[2].sum()) for step in expected)


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


class Phase(Enum):
    FIRST = 1
    SECOND = 2


class Tracker:
    def __init__(self):
        self.total = 0.0


class ManyKinds(ConstantRewardEnv):
    """Holds one attribute of every kind that is kept."""

    def __init__(self):
        super().__init__()
        self.shared = self.same = np.zeros(3)
        self.queue = deque([1], maxlen=4)
        self.counts = defaultdict(int)
        self.order = OrderedDict(b=1, a=2)
        self.pair = (1, np.float32(0.1), [b"x"])
        self.seen = {3}
        self.fixed = frozenset({"a"})
        self.phase = Phase.FIRST
        self.tracker = Tracker()
        self.statistics = RunningMeanStd(shape=(2,))
        self.tensor = torch.zeros(2)
        self.network = torch.nn.Linear(2, 1)
        self.torch_random = torch.Generator()
        self.python_random = random.Random(0)
        self.old_random = np.random.RandomState(0)
        self.philox = np.random.Generator(np.random.Philox(0))
        self.big = 2**100
        self.numbers = [0.1] * 20
        self.integers = list(range(20))
        self.function = len
        self.cycle = [self]

    def change(self):
        self.shared += 1.5
        self.queue.extend([2, 3, 4, 5])
        self.counts["x"] += 1
        self.order["c"] = 3
        self.pair = (2, np.float32(0.2), [b"y"])
        self.seen.add(4)
        self.fixed = frozenset({"b"})
        self.phase = Phase.SECOND
        self.tracker.total += 2.5
        self.statistics.update(np.ones((4, 2)))
        self.tensor += 1
        with torch.no_grad():
            self.network.weight.fill_(0.25)
        self.torch_random.manual_seed(3)
        self.old_random.rand()
        self.python_random.random()
        self.philox.random()
        self.big += 1
        self.numbers.append(float("inf"))
        self.integers.append(7)


def test_every_kind_of_attribute_is_restored():
    vec_env, new = make_vec_env(ManyKinds, 1, seed=0), make_vec_env(ManyKinds, 1, seed=1)
    vec_env.reset()
    vec_env.env_method("change")
    weight = new.envs[0].unwrapped.network.weight
    set_env_state(new, state_from_bytes(state_to_bytes(get_env_state(vec_env))))
    saved, env = vec_env.envs[0].unwrapped, new.envs[0].unwrapped
    for name in ("queue", "counts", "order", "pair", "seen", "fixed", "phase", "big", "numbers", "integers"):
        assert getattr(env, name) == getattr(saved, name), name
        assert type(getattr(env, name)) is type(getattr(saved, name)), name
    assert env.queue.maxlen == 4
    assert type(env.pair[1]) is np.float32
    assert env.counts["unseen"] == 0
    assert env.tracker.total == 2.5
    np.testing.assert_array_equal(env.shared, np.full(3, 1.5))
    assert env.shared is env.same
    assert env.cycle[0] is env
    np.testing.assert_array_equal(env.statistics.mean, saved.statistics.mean)
    assert torch.equal(env.tensor, saved.tensor)
    assert env.network.weight is weight
    assert torch.equal(weight, torch.full((1, 2), 0.25))
    assert torch.equal(torch.rand(2, generator=env.torch_random), torch.rand(2, generator=saved.torch_random))
    assert env.python_random.random() == saved.python_random.random()
    assert env.old_random.rand() == saved.old_random.rand()
    assert env.philox.random() == saved.philox.random()


def test_environments_may_speak_for_themselves():
    class Custom(ConstantRewardEnv):
        def __init__(self):
            super().__init__()
            self.handle = iter(range(100))  # cannot be read
            self.position = 0

        def get_env_state(self):
            return {"position": self.position, "elapsed": np.array(self.elapsed)}

        def set_env_state(self, state):
            self.position, self.elapsed = state["position"], int(state["elapsed"])

    vec_env, new = make_vec_env(Custom, 1, seed=0), make_vec_env(Custom, 1)
    vec_env.reset()
    vec_env.set_attr("position", 5)
    vec_env.envs[0].unwrapped.position = 5
    vec_env.step([0])
    set_env_state(new, state_from_bytes(state_to_bytes(get_env_state(vec_env))))
    assert (new.envs[0].unwrapped.position, new.envs[0].unwrapped.elapsed) == (5, 1)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (iter([1]), "list_iterator"),
        (np.array([object()]), "Python objects"),
        ({"inner": open(__file__)}, r"\['inner'\]"),  # noqa: SIM115
        (type("SlotsOnly", (), {"__slots__": ("x",)})(), "SlotsOnly"),
        (type("MyDict", (dict,), {})(), "MyDict"),
    ],
)
def test_unreadable_state_is_named(value, why):
    vec_env = make_vec_env(TwoStateEnv, 2, seed=0)
    vec_env.envs[1].unwrapped.payload = value
    with pytest.raises(StateNotRestorableError, match=rf"envs\[1\]\.TwoStateEnv: attribute `payload.*{why}"):
        get_env_state(vec_env)


def test_views_of_one_array_are_refused():
    vec_env = make_vec_env(TwoStateEnv, 1, seed=0)
    buffer = np.zeros(4)
    vec_env.envs[0].unwrapped.buffer, vec_env.envs[0].unwrapped.part = buffer, buffer[:2]
    with pytest.raises(StateNotRestorableError, match="`part` shares its memory with `buffer`"):
        vec_env.get_state()


def test_views_of_mujoco_memory_stay_views():
    class Holder:
        def __init__(self, env):
            self.env = env
            self.position = env.data.qpos[:3]

    saved, new = gym.make("Hopper-v5").unwrapped, gym.make("Hopper-v5").unwrapped
    saved.reset(seed=0)
    left, right = Holder(saved), Holder(new)
    layers = [[Layer("holder", holder, frozenset({"env"})), Layer("env", holder.env)] for holder in (left, right)]
    restore(layers[1], capture(layers[0]))
    assert np.shares_memory(right.position, new.data.qpos)
    np.testing.assert_array_equal(right.position, saved.data.qpos[:3])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: make_vec_env("CartPole-v1", 2), "saved from 1 environments, but there are 2"),
        (lambda: make_vec_env("Acrobot-v1", 1), "AcrobotEnv"),
        (lambda: VecMonitor(make_vec_env(TwoStateEnv, 1, monitor=False)), "VecMonitor"),
        (lambda: make_vec_env("CartPole-v1", 1, monitor=False), "Monitor"),
    ],
)
def test_another_construction_is_refused(make, why):
    state = get_env_state(make_vec_env("CartPole-v1", 1))
    with pytest.raises(StateNotRestorableError, match=why):
        set_env_state(make(), state)


def test_other_formats_are_refused():
    with pytest.raises(StateNotRestorableError, match="format 99"):
        set_env_state(make_vec_env("CartPole-v1", 1), {"format": 99})
    with pytest.raises(ValueError, match="not an environment state"):
        state_from_bytes(b"something else")


def test_vec_envs_in_other_processes_are_refused():
    vec_env = SubprocVecEnv([TwoStateEnv])
    try:
        with pytest.raises(StateNotRestorableError, match="SubprocVecEnv has no `get_state`"):
            get_env_state(vec_env)
    finally:
        vec_env.close()


def test_states_hold_only_arrays_and_json_values():
    vec_env = VecNormalize(make_vec_env("Ant-v5", 1, seed=0), device="cpu")
    vec_env.reset()

    def strip(value):
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items()}
        if isinstance(value, list):
            return [strip(item) for item in value]
        return "array" if type(value) is np.ndarray and not value.dtype.hasobject else value

    assert json.loads(json.dumps(strip(get_env_state(vec_env))))


def test_equal_arrays_are_stored_once():
    def size(n_envs):
        vec_env = make_vec_env("HalfCheetah-v5", n_envs, seed=0)
        vec_env.reset()
        return len(state_to_bytes(vec_env.get_state()))

    assert size(8) < 3 * size(1)


class Holder:
    """One attribute, as a layer of its own."""

    def __init__(self, value=None):
        if value is not None:
            self.value = value


def transfer(saved, present):
    """Restore ``saved`` into an object that holds ``present``, and return what it holds then."""
    target = Holder(present)
    state = capture([Layer("layer", Holder(saved))])
    restore([Layer("layer", target)], state_from_bytes(state_to_bytes({"state": state}))["state"])
    return target.value


OtherPoint = namedtuple("OtherPoint", "x")


@pytest.mark.parametrize(
    ("saved", "present", "why"),
    [
        (Phase.FIRST, 1, "is a builtins.int, but was a .*Phase"),
        (Tracker(), None, "is missing, but was a .*Tracker"),
        (Tracker(), RunningMeanStd(), "RunningMeanStd, but was a .*Tracker"),
        (len, max, "was len and cannot be made again"),
        (OtherPoint(1), (1,), "is a builtins.tuple, but was a .*OtherPoint"),
        (defaultdict(int), {}, "default is not known"),
        (random.Random(0), 3, "but was a random.Random"),
        (spaces.Discrete(2), spaces.Tuple([spaces.Discrete(2)]), "is another space"),
        (gym.make("Hopper-v5").unwrapped.data, np.zeros(2), "is no MjData now"),
        (gym.make("Hopper-v5").unwrapped.model, gym.make("Ant-v5").unwrapped.model, "comes from another model"),
        (gym.make("Hopper-v5").unwrapped.data.qpos, np.zeros(2), "was a view of another library's memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unsuitable_targets_are_named(saved, present, why):
    with pytest.raises(StateNotRestorableError, match=rf"layer: attribute `value` .*{why}"):
        transfer(saved, present)


def test_named_tuples_and_missing_generators_are_made():
    assert transfer(OtherPoint(7), OtherPoint(1)) == OtherPoint(7)
    saved = np.random.default_rng(0)
    assert transfer(saved, None).random() == np.random.default_rng(0).random()
    twister = np.random.Generator(np.random.MT19937(3))
    assert transfer(twister, np.random.default_rng(0)).random() == np.random.Generator(np.random.MT19937(3)).random()


def test_foreign_data_are_refused():
    with pytest.raises(StateNotRestorableError, match="'strange', which this version does not know"):
        restore([Layer("layer", Holder())], [{"layer": "layer", "attributes": {"value": {"kind": "strange"}}}])
    generator = {"kind": "dict", "items": [["bit_generator", "Evil"]]}
    state = {"kind": "generator", "type": "x", "state": generator}
    with pytest.raises(StateNotRestorableError, match="unknown bit generator 'Evil'"):
        restore([Layer("layer", Holder())], [{"layer": "layer", "attributes": {"value": state}}])


def test_rendering_is_left_alone():
    Surface = type("Surface", (), {"__module__": "pygame.surface"})
    saved, present = Holder(Surface()), Holder(Surface())
    kept = present.value
    saved.images, present.images = [Surface()], None
    saved.number, present.number = 1, 2
    restore([Layer("layer", present)], capture([Layer("layer", saved)]))
    assert (present.value, present.images, present.number) == (kept, None, 1)
