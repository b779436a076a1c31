"""What a state holds, what it cannot hold, and what it refuses to be put into."""

import json
import random
from collections import OrderedDict, defaultdict, deque, namedtuple
from enum import Enum

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    SubprocVecEnv,
    VecMonitor,
)

from maxent_onpolicy.envs import VecNormalize, make_vec_env
from maxent_onpolicy.envs.capture import Layer, capture
from maxent_onpolicy.envs.restore import restore
from maxent_onpolicy.envs.state import (
    StateNotRestorableError,
    get_env_state,
    set_env_state,
    state_from_bytes,
    state_to_bytes,
)
from maxent_onpolicy.envs.toys import ConstantRewardEnv, TwoStateEnv


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
