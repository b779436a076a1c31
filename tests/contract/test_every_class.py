"""What holds for every public algorithm: seeds, files, spaces, environments, parameters, callbacks, copies."""

import copy
import inspect
import io
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from class_table import CLASSES, algorithm, public_classes, stock
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

ACTION_SPACES = {
    "box": spaces.Box(-2, 2, (3,), np.float32),
    "discrete": spaces.Discrete(4),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
}
BOX = spaces.Box(-1, 1, (4,), np.float32)
OBSERVATION_SPACES = {
    "box": BOX,
    "discrete": spaces.Discrete(5),
    "dict": spaces.Dict({"a": BOX, "b": spaces.Discrete(3)}),
}

every_class = pytest.mark.parametrize("name", CLASSES)


class Random(gym.Env):
    """Random observations, and a reward for the first number of the action."""

    def __init__(self, action: spaces.Space = ACTION_SPACES["box"], observation: spaces.Space = BOX) -> None:
        self.action_space, self.observation_space = copy.deepcopy((action, observation))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        reward = float(np.ravel(action)[0])
        return self.observation_space.sample(), reward, self.steps == 9, self.steps == 20, {}


def make(name: str, env: Any = None, **kwargs: Any) -> Any:
    env = env or Random()
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    return algorithm(name)(policy, env, **{**CLASSES[name].kwargs, "seed": 0, "device": "cpu", **kwargs})


def trained(name: str, env: Any = None, **kwargs: Any) -> Any:
    return make(name, env, **kwargs).learn(CLASSES[name].steps)


def parameters(model: Any) -> dict[str, torch.Tensor]:
    """Everything that learns, with the optimisers' state."""

    def leaves(value: Any, path: str) -> dict[str, torch.Tensor]:
        if isinstance(value, dict):
            return {k: v for key, item in value.items() for k, v in leaves(item, f"{path}.{key}").items()}
        return {path: value.detach().clone()} if isinstance(value, torch.Tensor) else {}

    _, variables = model._get_torch_save_params()
    return leaves(model.get_parameters(), "") | leaves({name: getattr(model, name) for name in variables}, "own")


def differing(one: Any, other: Any) -> list[str]:
    first, second = parameters(one), parameters(other)
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def observations(space: spaces.Space, count: int) -> Any:
    space.seed(1)
    samples = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
    return np.stack(samples)


def test_the_table_has_every_class() -> None:
    assert set(CLASSES) == public_classes()


@every_class
def test_it_takes_the_arguments_of_the_class_whose_place_it_takes(name: str) -> None:
    theirs = inspect.signature(stock(name).__init__).parameters
    ours: dict[str, inspect.Parameter] = {}
    for cls in reversed(algorithm(name).__mro__):
        if cls.__module__.startswith("maxent_onpolicy") and "__init__" in vars(cls):
            ours |= inspect.signature(cls.__init__).parameters
    missing = [key for key in theirs if key not in ours]
    other = [key for key in theirs if key in ours and ours[key].default != theirs[key].default]
    assert missing == []
    assert other == []


@every_class
def test_a_seed_determines_everything(name: str) -> None:
    first, second, other = trained(name), trained(name), trained(name, seed=1)
    assert differing(first, second) == []
    assert len(differing(first, other)) > 0


@every_class
def test_training_moves_every_parameter(name: str) -> None:
    model = make(name)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    assert model.learn(CLASSES[name].steps) is model
    moved = {key for key, value in model.policy.state_dict().items() if not torch.equal(value, before[key])}
    learning = {key for key, value in model.policy.named_parameters() if value.requires_grad}
    assert learning - moved == set()


@every_class
@pytest.mark.parametrize("space", ACTION_SPACES)
def test_it_acts_in_every_action_space_or_refuses_it(name: str, space: str) -> None:
    action_space = ACTION_SPACES[space]
    env = DummyVecEnv([lambda: Random(action_space)] * 2)
    if space not in CLASSES[name].spaces:
        with pytest.raises((ValueError, AssertionError), match=type(action_space).__name__):
            make(name, env)
        return
    model = trained(name, env)
    batch = observations(BOX, 5)
    for deterministic in (True, False):
        actions, state = model.predict(batch, deterministic=deterministic)
        assert state is None
        assert actions.shape == (5, *action_space.shape)
        assert all(action_space.contains(action.astype(action_space.dtype)) for action in actions)
    single, _ = model.predict(batch[0], deterministic=True)
    assert np.shape(single) == action_space.shape
    np.testing.assert_allclose(single, model.predict(batch, deterministic=True)[0][0], rtol=1e-5, atol=1e-6)


@every_class
@pytest.mark.parametrize("space", OBSERVATION_SPACES)
def test_it_sees_every_observation_space(name: str, space: str) -> None:
    model = trained(name, DummyVecEnv([lambda: Random(observation=OBSERVATION_SPACES[space])] * 2))
    actions, _ = model.predict(observations(OBSERVATION_SPACES[space], 5))
    assert actions.shape == (5, 3)


@every_class
def test_an_observation_of_another_shape_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="shape"):
        make(name).predict(np.zeros(7, np.float32))


@every_class
def test_a_file_holds_the_whole_model(name: str, tmp_path: Any) -> None:
    model = trained(name)
    batch = observations(BOX, 5)
    model.save(tmp_path / "model")
    loaded = algorithm(name).load(tmp_path / "model", device="cpu")
    assert differing(model, loaded) == []
    np.testing.assert_array_equal(
        model.predict(batch, deterministic=True)[0], loaded.predict(batch, None, None, True)[0]
    )
    for key in (*CLASSES[name].kwargs, "gamma", "seed", "num_timesteps", "_n_updates"):
        assert getattr(loaded, key) == getattr(model, key), key
    stream = io.BytesIO()
    model.save(stream)
    stream.seek(0)
    assert differing(model, algorithm(name).load(stream, device="cpu")) == []


@every_class
def test_a_loaded_model_goes_on_bit_for_bit(name: str, tmp_path: Any) -> None:
    def make_env() -> DummyVecEnv:
        return DummyVecEnv([Random, Random])

    steps = CLASSES[name].steps
    whole = trained(name, make_env())
    whole.save_checkpoint(tmp_path / "model")
    whole.learn(steps, reset_num_timesteps=False)
    torch.manual_seed(99)
    resumed = algorithm(name).load(tmp_path / "model", env=make_env(), device="cpu", resume=True)
    resumed.learn(steps, reset_num_timesteps=False)
    assert differing(whole, resumed) == []
    assert resumed.num_timesteps == whole.num_timesteps


@every_class
def test_a_loaded_model_may_have_other_environments_in_number(name: str, tmp_path: Any) -> None:
    trained(name).save(tmp_path / "model")
    loaded = algorithm(name).load(tmp_path / "model", env=DummyVecEnv([Random] * 3), device="cpu")
    before = loaded.num_timesteps
    loaded.learn(96, reset_num_timesteps=False)
    assert loaded.n_envs == 3
    assert loaded.num_timesteps == before + 96


@every_class
def test_another_environment_of_the_same_kind_takes_the_first_ones_place(name: str) -> None:
    model = trained(name)
    env = DummyVecEnv([Random])
    model.set_env(env)
    model.learn(CLASSES[name].steps)
    assert model.get_env() is env
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(DummyVecEnv([lambda: Random(observation=OBSERVATION_SPACES["discrete"])]))
    with pytest.raises((ValueError, AssertionError), match="number of environments"):
        model.set_env(DummyVecEnv([Random, Random]))


@every_class
def test_parameters_are_read_and_written(name: str) -> None:
    model, other = trained(name), trained(name, seed=5)
    assert len(differing(model, other)) > 0
    given = copy.deepcopy(model.get_parameters())
    other.set_parameters(given, exact_match=True, device="cpu")
    own = {key for key in parameters(model) if key.startswith("own")}
    assert set(differing(model, other)) <= own, "SB3 keeps variables that are no module's out of this"
    del given["policy"]
    with pytest.raises(ValueError, match="policy"):
        other.set_parameters(given, exact_match=True, device="cpu")
    with pytest.raises(ValueError, match="not_there"):
        other.set_parameters({"not_there": {}}, exact_match=False, device="cpu")


class Listening(BaseCallback):
    """Counts events, and keeps what a callback may read."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.events: Counter[str] = Counter()
        self.seen: dict[str, set[str]] = {}
        self.stop_at = stop_at

    def _note(self, event: str) -> None:
        self.events[event] += 1
        self.seen[event] = set(self.locals)

    def _on_training_start(self) -> None:
        self._note("training_start")

    def _on_rollout_start(self) -> None:
        self._note("rollout_start")

    def _on_step(self) -> bool:
        self._note("step")
        assert len(self.locals["infos"]) == self.training_env.num_envs
        assert np.shape(self.locals["rewards"]) == np.shape(self.locals["dones"]) == (self.training_env.num_envs,)
        assert self.num_timesteps == self.model.num_timesteps
        return self.stop_at is None or self.num_timesteps < self.stop_at

    def _on_rollout_end(self) -> None:
        self._note("rollout_end")

    def _on_training_end(self) -> None:
        self._note("training_end")


@every_class
def test_callbacks_hear_of_everything(name: str) -> None:
    callback = Listening()
    make(name, DummyVecEnv([Random, Random])).learn(128, callback=callback)
    assert callback.events["step"] == 64
    assert callback.events["rollout_start"] == callback.events["rollout_end"] > 0
    assert callback.events["training_start"] == callback.events["training_end"] == 1
    assert {"self", "total_timesteps", "callback"} <= callback.seen["training_start"]
    assert {"self", "env", "actions", "new_obs", "rewards", "dones", "infos"} <= callback.seen["step"]


@every_class
def test_a_callback_stops_training_and_it_can_go_on(name: str) -> None:
    model = make(name)
    callback = Listening(stop_at=40)
    model.learn(1000, callback=callback)
    assert model.num_timesteps == 40
    assert callback.events["training_end"] == 1
    model.learn(64, reset_num_timesteps=False)
    assert model.num_timesteps >= 104


@every_class
def test_steps_are_counted_on_or_anew(name: str) -> None:
    model, steps = trained(name), CLASSES[name].steps
    assert model.num_timesteps == steps
    model.learn(steps, reset_num_timesteps=False)
    assert model.num_timesteps == 2 * steps
    model.learn(steps)
    assert model.num_timesteps == steps


@every_class
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_a_trained_policy_can_be_copied(name: str, copied: Callable, engine: str) -> None:
    model = trained(name, engine=engine)
    batch = observations(BOX, 5)
    expected, _ = model.predict(batch, deterministic=True)
    other = copied(model.policy)
    for value in model.policy.parameters():
        value.data.add_(1.0)
    np.testing.assert_array_equal(other.predict(batch, deterministic=True)[0], expected)
    other.predict(batch)


@every_class
def test_a_trained_policy_moves_between_devices(name: str) -> None:
    model = trained(name)
    policy = copy.deepcopy(model.policy).to("meta")
    assert {value.device.type for value in (*policy.parameters(), *policy.buffers())} == {"meta"}
    model.policy.to("cpu")
    model.learn(CLASSES[name].steps, reset_num_timesteps=False)


@every_class
def test_the_environment_may_be_an_id(name: str) -> None:
    kwargs = {**CLASSES[name].kwargs, "seed": 0, "device": "cpu"}
    model = algorithm(name)("MlpPolicy", "Pendulum-v1", **kwargs).learn(CLASSES[name].steps)
    assert model.num_timesteps == CLASSES[name].steps


BAD = {
    "learning_rate": (-1.0, r"`learning_rate` must be in \[0, inf\), got -1.0"),
    "gamma": (1.5, r"`gamma` must be in \[0, 1\], got 1.5"),
    "batch_size": (0, r"`batch_size` must be in \[1, inf\), got 0"),
    "policy_kwargs": (3, r"`policy_kwargs` must be"),
    "engine": ("pakced", r"`engine` must be one of .*got 'pakced' \(did you mean 'packed'"),
}


@every_class
@pytest.mark.parametrize("argument", BAD)
def test_an_argument_out_of_range_is_named(name: str, argument: str) -> None:
    value, message = BAD[argument]
    with pytest.raises(ValueError, match=message):
        make(name, **{argument: value})


@every_class
def test_an_unknown_argument_or_policy_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="gama"):
        make(name, gama=0.9)
    with pytest.raises(ValueError, match=r"`policy` must be one of .*got 'MlpPolcy' \(did you mean 'MlpPolicy'"):
        algorithm(name)("MlpPolcy", Random())
