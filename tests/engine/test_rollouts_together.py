"""Rollouts of several models in one loop against each model's own."""

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maxent_onpolicy import PPO, MaxEntPPO, make_vec_env
from maxent_onpolicy.algorithms.train_seeds import train_together
from maxent_onpolicy.engine.finite import NonFiniteError
from maxent_onpolicy.engine.lockstep import Member
from maxent_onpolicy.engine.packed import model as packed_model
from maxent_onpolicy.engine.packed import stacked, stacked_evaluation, together
from maxent_onpolicy.engine.packed.arrays import NUMPY, TORCH
from maxent_onpolicy.envs.normalize import VecNormalize
from maxent_onpolicy.envs.torch_native import TorchCartPole, TorchPendulum
from maxent_onpolicy.envs.torch_vec_env import TorchVecEnv

Make = Callable[[int], PPO]
DRAWS = ("aten.normal_", "aten.exponential_", "aten.uniform_", "aten.bernoulli")


class Drift(TorchVecEnv):
    """A point that actions of any kind push; it is lost outside of a ball."""

    row_settings: ClassVar[tuple[str, ...]] = ()
    ACTIONS: ClassVar[dict[str, spaces.Space]] = {
        "gaussian": spaces.Box(-0.5, 0.5, (2,), np.float32),
        "discrete": spaces.Discrete(3),
        "multi_discrete": spaces.MultiDiscrete([3, 4]),
        "multi_binary": spaces.MultiBinary(3),
    }

    def __init__(self, actions: str, num_envs: int, seed: int) -> None:
        observations = spaces.Box(-9, 9, (3,), np.float32)
        super().__init__(num_envs, observations, self.ACTIONS[actions], 9, "cpu", seed)

    def initial_state(self) -> Tensor:
        return self.uniform(3)

    def transition(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        push = action.reshape(self.num_envs, -1).float().mean(1, keepdim=True)
        following = 1.1 * state + 0.3 * push
        return following, push[:, 0] - following[:, 0], following.square().sum(1) > 6

    def observe(self, state: Tensor) -> Tensor:
        return state.clone()


def make_env(name: str, seed: int, n_envs: int = 8, **options: Any) -> TorchVecEnv:
    if name in Drift.ACTIONS:
        return Drift(name, n_envs, seed)
    return make_vec_env(name, n_envs, seed, "torch", device="cpu", **options)


def maker(
    cls: type[PPO] = PPO, env: str = "CartPole-v1", env_options: Any = None, n_envs: int = 8, **kwargs: Any
) -> Make:
    def make(seed: int) -> PPO:
        settings = {"n_steps": 32, "batch_size": 64, "n_epochs": 2, "device": "cpu", **kwargs}
        return cls("MlpPolicy", make_env(env, seed, n_envs, **(env_options or {})), seed=seed, **settings)

    return make


def generators() -> tuple[list[int], list[int]]:
    return torch.get_rng_state().tolist(), np.random.get_state(legacy=False)["state"]["key"].tolist()


def train(makers: dict[int, Make], steps: int, callbacks: Any = None) -> list[Member]:
    """Train one model a seed together; a member's result is its model and its random state."""

    def training(seed: int, make: Make) -> Any:
        def run(join: Any) -> Any:
            models.append(model := make(seed))
            assert join(model) is None
            model.learn(steps, None if callbacks is None else callbacks(model))
            return model, generators()

        return run

    models: list[PPO] = []
    members = train_together([training(seed, make) for seed, make in makers.items()])
    for member, model in zip(members, models, strict=True):
        member.model = model
    return members


def train_alone(seed: int, make: Make, steps: int, callbacks: Any = None) -> tuple[PPO, Any]:
    model = make(seed)
    model.learn(steps, None if callbacks is None else callbacks(model))
    return model, generators()


def assert_same(result: tuple[PPO, Any], expected: tuple[PPO, Any], tolerance: float = 0.0) -> None:
    (model, random), (alone, own_random) = result, expected
    for name, value in alone.policy.state_dict().items():
        torch.testing.assert_close(model.policy.state_dict()[name], value, rtol=0, atol=tolerance)
    ours, theirs = model.rollout_buffer, alone.rollout_buffer
    for name in ("observation", "action", "reward", "value", "log_prob", "advantage", "episode_start"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=tolerance, atol=tolerance)
    assert torch.equal(ours.terminated, theirs.terminated)
    assert torch.equal(ours.truncated, theirs.truncated)
    assert ours.full
    finals, own_finals = ours.final_observations(), theirs.final_observations()
    assert (finals is None) == (own_finals is None)
    if finals is not None and own_finals is not None:
        for part, own_part in zip(finals, own_finals, strict=True):
            torch.testing.assert_close(part, own_part, rtol=tolerance, atol=tolerance)
    episodes, own_episodes = model.ep_info_buffer, alone.ep_info_buffer
    assert [each["l"] for each in episodes] == [each["l"] for each in own_episodes]
    assert [each["r"] for each in episodes] == pytest.approx([each["r"] for each in own_episodes], abs=10 * tolerance)
    for name, value in alone.device_episodes.get_state().items():
        np.testing.assert_allclose(model.device_episodes.get_state()[name], value, atol=10 * tolerance)
    for name, value in alone.env.get_state().items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(model.env.get_state()[name], value, atol=tolerance)
    np.testing.assert_allclose(model._last_obs, alone._last_obs, atol=tolerance)
    np.testing.assert_array_equal(model._last_episode_starts, alone._last_episode_starts)
    assert model.num_timesteps == alone.num_timesteps
    assert random == own_random


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rollouts were collected in each loop."""
    counts: list[int] = []
    run = stacked.collect_all

    def spy(requests: Any) -> Any:
        if requests:
            counts.append(len(requests))
        return run(requests)

    monkeypatch.setattr(stacked, "collect_all", spy)
    return counts


# The third is the largest difference allowed: an output layer of width one is summed in another order alone.
SETTINGS: dict[str, tuple[type[PPO], dict[str, Any], float]] = {
    "cartpole": (PPO, {}, 1e-5),
    "cartpole_time_limit": (MaxEntPPO, {"env_options": {"max_episode_steps": 11}, "tau": 0.05}, 1e-5),
    "cartpole_float64": (PPO, {"env_options": {"dtype": "float64", "sutton_barto_reward": True}}, 1e-5),
    "pendulum": (MaxEntPPO, {"env": "Pendulum-v1", "popart": True}, 3e-4),
    "pendulum_time_limit": (PPO, {"env": "Pendulum-v1", "env_options": {"max_episode_steps": 7}}, 3e-4),
    "no_time_limit": (PPO, {"env": "Pendulum-v1", "env_options": {"max_episode_steps": None}}, 3e-4),
    "few_envs": (PPO, {"n_envs": 1, "batch_size": 16}, 3e-4),
    "large_minibatches": (PPO, {"batch_size": 256}, 1e-5),
    "gaussian": (
        MaxEntPPO,
        {"env": "gaussian", "policy_kwargs": {"net_arch": [16], "activation_fn": torch.nn.ReLU}},
        1e-5,
    ),
    "bounded_std": (PPO, {"env": "gaussian", "policy_kwargs": {"log_std_bounds": (-2, 1)}}, 1e-5),
    "tanh": (MaxEntPPO, {"env": "gaussian", "policy_kwargs": {"action_distribution": "tanh_gaussian"}}, 1e-5),
    "state_std": (PPO, {"env": "gaussian", "policy_kwargs": {"state_dependent_std": True, "net_arch": []}}, 1e-5),
    "discrete": (PPO, {"env": "discrete", "policy_kwargs": {"net_arch": {"pi": [8], "vf": [32]}}}, 1e-5),
    "multi_discrete": (MaxEntPPO, {"env": "multi_discrete"}, 1e-5),
    "multi_binary": (PPO, {"env": "multi_binary"}, 1e-5),
}
SLOW = {"cartpole_float64", "no_time_limit", "few_envs", "bounded_std", "state_std", "multi_binary"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SETTINGS])
def test_rollouts_together_are_each_models_own(name: str, collected: list[int]) -> None:
    cls, options, tolerance = SETTINGS[name]
    make = maker(cls, **options)
    steps = 3 * 32 * options.get("n_envs", 8)

    members = train(dict.fromkeys((4, 1, 8, 5), make), steps)

    assert collected == [4, 4, 4]
    for seed, member in zip((4, 1, 8, 5), members, strict=True):
        assert_same(member.result, train_alone(seed, make, steps), tolerance)


@pytest.mark.parametrize("arrays", [NUMPY, TORCH], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    "name", ["cartpole", "pendulum", "tanh", "state_std", "multi_discrete", "multi_binary", "own_trunk"]
)
def test_a_device_evaluates_all_rollouts_at_once(name: str, arrays: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = (MaxEntPPO, {"policy_kwargs": {"entropy_net_arch": [16], "net_arch": [32]}, "popart": True}, 1e-5)
    cls, options, tolerance = {**SETTINGS, "own_trunk": trunk}[name]
    evaluate = together.evaluate_together
    evaluated: list[int] = []

    def on_device(models: Any, *rollout: Any) -> Any:
        evaluated.append(len(models))
        with monkeypatch.context() as patch:
            patch.setattr(packed_model, "arrays_for", lambda device: arrays)
            patch.setattr(stacked_evaluation, "COLUMNS", 300)  # several chunks, the last a smaller one
            return evaluate(models, *rollout)

    def never(*args: Any) -> None:
        pytest.fail("evaluated by itself")

    make, seeds = maker(cls, **options), (4, 1, 8)
    with monkeypatch.context() as patch:
        patch.setattr(together, "evaluates_together", lambda device: True)
        patch.setattr(together, "evaluate_together", on_device)
        patch.setattr(stacked, "evaluate_rollout", never)
        members = train(dict.fromkeys(seeds, make), 512)

    assert evaluated == [3, 3]
    for seed, member in zip(seeds, members, strict=True):
        alone = train_alone(seed, make, 512)
        # Adam makes a step of the smallest gradient's rounding.
        assert_same(member.result, alone, max(tolerance, 2e-4))
        torch.testing.assert_close(
            member.result[0].rollout_buffer.value, alone[0].rollout_buffer.value, rtol=0, atol=2e-4
        )
        if cls is MaxEntPPO:
            ours, theirs = (each.rollout_buffer.entropy_value for each in (member.result[0], alone[0]))
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def test_a_single_model_and_one_that_goes_on_alone(collected: list[int]) -> None:
    make = maker(MaxEntPPO)

    (member,) = train({3: make}, 512)
    model, _ = member.result
    torch.manual_seed(0)
    np.random.seed(0)
    model.learn(512, reset_num_timesteps=False)

    assert collected == [1, 1]
    alone, _ = train_alone(3, make, 512)
    torch.manual_seed(0)
    np.random.seed(0)
    alone.learn(512, reset_num_timesteps=False)
    assert_same((model, None), (alone, None), 1e-5)


def test_variants_and_early_stops_do_not_part_the_rollouts(collected: list[int]) -> None:
    kinds = {
        1: {"target_kl": 1e-4},
        2: {"target_kl": None},
        3: {"target_kl": 0.02, "gamma": 0.5, "learning_rate": 1e-2},
    }
    makers = {seed: maker(n_epochs=5, **kind) for seed, kind in kinds.items()}

    members = train(makers, 4 * 256)

    assert collected == [3, 3, 3, 3]
    assert len({member.result[0]._n_updates for member in members}) > 1
    for (seed, make), member in zip(makers.items(), members, strict=True):
        assert_same(member.result, train_alone(seed, make, 4 * 256), 1e-5)


def test_a_device_records_its_steps_once_though_models_stop_early(
    collected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = stacked.Stacked.__init__
    made: list[tuple[int, int]] = []

    def with_torch(self: Any, requests: Any) -> None:
        made.append((len(requests), len(collected)))
        with monkeypatch.context() as patch:
            patch.setattr(packed_model, "arrays_for", lambda device: TORCH)
            make(self, requests)

    monkeypatch.setattr(stacked.Stacked, "__init__", with_torch)
    makers = {seed: maker(n_epochs=5, target_kl=limit) for seed, limit in ((1, 1e-4), (2, None), (3, 0.003))}

    members = train(makers, 4 * 256)

    assert collected == [3, 3, 3, 3]
    assert [each for each in made if each[1] < 4] == [(3, 1)]
    for (seed, own), member in zip(makers.items(), members, strict=True):
        assert_same(member.result, train_alone(seed, own, 4 * 256), 1e-3)


def test_those_of_other_kinds_are_collected_apart() -> None:
    makers = {
        1: maker(env="Pendulum-v1", env_options={"g": 5.0}),
        2: maker(env="Pendulum-v1"),
        3: maker(),
        4: maker(n_steps=16),
        5: maker(n_envs=4),
        6: maker(policy_kwargs={"net_arch": [8]}),
        7: maker(),
    }

    members = train(makers, 512)

    for (seed, make), member in zip(makers.items(), members, strict=True):
        assert_same(member.result, train_alone(seed, make, 512), 1e-4)


class Listener(BaseCallback):
    """Draws random numbers, as evaluations do, keeps what it sees, and may stop."""

    def __init__(self, stop_at: int = 10**9) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.seen: list[float] = []

    def _on_step(self) -> bool:
        self.seen += [torch.rand(()).item(), float(self.locals["values"].sum()), self.locals["rewards"].sum()]
        return self.num_timesteps < self.stop_at


class Boundaries(BaseCallback):
    """Acts between rollouts only."""

    every_step = False

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def _on_rollout_start(self) -> None:
        torch.rand(3)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        numbers = ("n_steps", "new_obs", "dones", "rewards", "actions", "clipped_actions", "values", "log_probs")
        self.seen.append([np.asarray(self.locals[name]).astype(float) for name in numbers])
        self.seen.append([self.n_calls, self.num_timesteps, len(self.locals["infos"])])


def test_models_whose_callbacks_listen_collect_by_themselves(collected: list[int]) -> None:
    callbacks: dict[int, Listener] = {}

    def listen(model: PPO) -> BaseCallback | None:
        if model.seed in (1, 3):
            callbacks[model.seed] = Listener(400 if model.seed == 3 else 10**9)
        return callbacks.get(model.seed)

    makers = {seed: maker(MaxEntPPO) for seed in (1, 2, 3, 4)}
    members = train(makers, 768, listen)

    # A listener is an epoch late at every meeting: the others do not wait for it.
    assert collected == [2, 2, 2]
    assert [member.result[0].num_timesteps for member in members] == [768, 768, 400, 768]
    for index in (1, 3):
        assert_same(members[index].result, train_alone(index + 1, makers[index + 1], 768), 1e-5)
    own = Listener()
    assert_same(members[0].result, train_alone(1, makers[1], 768, lambda model: own), 1e-5)
    assert callbacks[1].seen == pytest.approx(own.seen, abs=1e-5)


def test_callbacks_between_rollouts_see_what_they_see_alone(collected: list[int]) -> None:
    seen: list[Boundaries] = []

    def between(model: PPO) -> BaseCallback:
        seen.append(Boundaries())
        return CallbackList([seen[-1]])

    make = maker(env="gaussian")
    members = train({1: make, 2: make}, 768, between)

    assert collected == [2, 2, 2]
    for index, member in enumerate(members):
        assert_same(member.result, train_alone(index + 1, make, 768, between), 1e-5)
        assert len(seen[index].seen) == 6
        for ours, theirs in zip(seen[index].seen, seen[-1].seen, strict=True):
            for value, expected in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(value, expected, atol=1e-5)


class Now(Listener):
    """Listens in the second rollout only."""

    rollouts = 0

    @property
    def every_step(self) -> bool:
        return self.rollouts == 2

    def _on_rollout_start(self) -> None:
        self.rollouts += 1

    def _on_step(self) -> bool:
        return super()._on_step() if self.every_step else True


def test_a_callback_may_listen_in_some_rollouts(collected: list[int]) -> None:
    callbacks: list[Now] = []

    def listen(model: PPO) -> BaseCallback:
        callbacks.append(Now())
        return callbacks[-1]

    make = maker()
    members = train({1: make, 2: make}, 768, listen)

    assert collected == [2, 2]
    for index, member in enumerate(members):
        assert_same(member.result, train_alone(index + 1, make, 768, listen), 1e-5)
        assert callbacks[index].seen == pytest.approx(callbacks[-1].seen, abs=1e-5)
        assert callbacks[index].n_calls == callbacks[-1].n_calls == 96


class FromThird(Now):
    """Listens in the first rollout, and from the third on."""

    @property
    def every_step(self) -> bool:
        return self.rollouts != 2


def test_nobody_waits_for_a_model_that_no_longer_takes_part(collected: list[int]) -> None:
    order: list[int] = []

    class Order(FromThird):
        every_step = False

        def _on_rollout_start(self) -> None:
            order.append(self.model.seed)

    def listen(model: PPO) -> BaseCallback:
        return CallbackList([Order(), *([FromThird()] if model.seed == 1 else [])])

    train({1: maker(), 2: maker()}, 256 * 8, listen)

    assert collected == [1, 2, 1, 1, 1, 1, 1, 1]
    assert order[-1] == 2
    assert order.index(1) == 0
    assert set(order[-4:]) == {1, 2}, "one has trained to its end before the other went on"


class Spoil(BaseCallback):
    """Puts NaN where it should not be, before the third rollout."""

    every_step = False

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.rollouts = where, 0

    def _on_rollout_start(self) -> None:
        self.rollouts += 1
        if self.rollouts == 3 and self.where == "parameters":
            self.model.policy.action_net.bias.data[0] = float("nan")
        if self.rollouts == 3 and self.where == "state":
            self.model.env._state[2, 1] = float("nan")

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("where", "env", "message"),
    [
        ("parameters", "CartPole-v1", "action of environment 0 .* step 512: .*diverged .*action_net.bias"),
        ("parameters", "Pendulum-v1", "action of environment 0 .* step 512: .*diverged .*action_net.bias"),
        ("state", "CartPole-v1", "observation of environment 2 is nan at step 520"),
    ],
)
def test_a_model_that_fails_hurts_no_other(where: str, env: str, message: str, collected: list[int]) -> None:
    makers = {seed: maker(env=env) for seed in (1, 2, 3)}

    members = train(makers, 1024, lambda model: Spoil(where if model.seed == 2 else ""))

    assert collected == [3, 3, 3, 2]
    assert isinstance(members[1].error, NonFiniteError)
    with pytest.raises(NonFiniteError, match=message):
        raise members[1].error
    for index in (0, 2):
        assert_same(members[index].result, train_alone(index + 1, makers[index + 1], 1024), 1e-4)


def test_environments_that_raise_for_one_model_hurt_no_other(collected: list[int]) -> None:
    class Strict(Drift):
        row_settings: ClassVar[tuple[str, ...]] = ()

        def transition(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            self.count = getattr(self, "count", 0) + 1
            if self.count % 5 == 0 and state.isnan().any():
                raise ArithmeticError("a state is NaN")
            return super().transition(state, action)

    def make(seed: int) -> PPO:
        return PPO("MlpPolicy", Strict("gaussian", 8, seed), n_steps=32, n_epochs=2, seed=seed, device="cpu")

    members = train({1: make, 2: make, 3: make}, 1024, lambda model: Spoil("state" if model.seed == 2 else ""))

    assert collected == [3, 3, 3, 2]
    assert isinstance(members[1].error, NonFiniteError | ArithmeticError)
    for index in (0, 2):
        assert_same(members[index].result, train_alone(index + 1, make, 1024), 1e-5)


class Unhashable(Drift):
    row_settings = ("options",)
    options: ClassVar[list[int]] = []


class Unstackable(Drift):
    row_settings = ()

    @classmethod
    def stack(cls, envs: Any) -> Any:
        raise RuntimeError("no room")


@pytest.mark.parametrize("cls", [Unhashable, Unstackable])
def test_environments_that_cannot_be_stacked_hurt_no_other(cls: type[Drift]) -> None:
    def make(seed: int) -> PPO:
        kind = cls if seed == 2 else Drift
        return PPO(
            "MlpPolicy", kind("discrete", 8, seed), n_steps=32, batch_size=64, n_epochs=2, seed=seed, device="cpu"
        )

    members = train(dict.fromkeys((1, 2, 3), make), 512)

    assert [member.error for member in members] == [None] * 3
    for seed, member in enumerate(members, 1):
        assert_same(member.result, train_alone(seed, make, 512), 1e-5)


def test_normalised_environments_are_collected_by_themselves(collected: list[int]) -> None:
    def make(seed: int) -> PPO:
        env = VecNormalize(make_env("Pendulum-v1", seed), device="cpu")
        return PPO("MlpPolicy", env, n_steps=16, n_epochs=2, seed=seed, device="cpu")

    members = train({1: make, 2: make}, 256)

    assert collected == []
    for seed, member in zip((1, 2), members, strict=True):
        alone, random = train_alone(seed, make, 256)
        torch.testing.assert_close(member.result[0].rollout_buffer.reward, alone.rollout_buffer.reward)
        assert member.result[1] == random


class Operations(TorchDispatchMode):
    """Counts what this thread asks torch for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(function.overloadpacket)] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "multi_discrete"])
def test_operations_of_a_step_do_not_grow_with_the_models_but_for_their_draws(
    env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stacked.collect_all

    def operations(seeds: int, n_steps: int) -> Counter[str]:
        mode = Operations()

        def counted(requests: Any) -> Any:
            with mode:
                return run(requests)

        monkeypatch.setattr(stacked, "collect_all", counted)
        train({seed: maker(env=env, n_steps=n_steps, batch_size=8 * n_steps) for seed in range(seeds)}, 8 * n_steps)
        return mode.counts

    def of_a_step(seeds: int) -> Counter[str]:
        counts, fewer = operations(seeds, 24), operations(seeds, 14)
        assert not any((counts[name] - fewer[name]) % 10 for name in counts)
        return Counter({name: (counts[name] - fewer[name]) // 10 for name in counts if counts[name] > fewer[name]})

    one, many = of_a_step(1), of_a_step(6)
    draws = sum(one[name] for name in DRAWS)
    assert draws == (3 if env == "multi_discrete" else 2)
    assert sum(many[name] for name in DRAWS) == 6 * draws
    for name in DRAWS:
        one.pop(name, None)
        many.pop(name, None)
    assert many == one
    assert "aten._local_scalar_dense" not in one  # which on a GPU would wait for it


@pytest.mark.parametrize("cls", [TorchPendulum, TorchCartPole])
def test_a_stack_steps_each_environment_as_it_steps_itself(cls: type[TorchVecEnv]) -> None:
    def make() -> list[TorchVecEnv]:
        return [cls(5, max_episode_steps=6, device="cpu", seed=seed) for seed in (1, 2, 3)]

    alone, together = make(), make()
    for env in alone + together:
        env.reset_tensor()
    assert len({env.stack_kind() for env in together}) == 1
    stack = cls.stack(together)
    for index in range(20):
        actions = torch.linspace(-2, 2, 15).roll(index) if cls is TorchPendulum else torch.arange(15) % 2
        whole = stack.step_tensor(actions)
        parts = [env.step_tensor(part) for env, part in zip(alone, actions.chunk(3), strict=True)]
        for name in ("observation", "reward", "terminated", "truncated", "final_observation"):
            expected = torch.cat([getattr(part, name) for part in parts])
            torch.testing.assert_close(getattr(whole, name), expected, rtol=0, atol=1e-6)
        assert len(whole.infos) == 15
    stack.put_back()
    for one, other in zip(alone, together, strict=True):
        for name, value in one.get_state().items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(other.get_state()[name], value, atol=1e-6)
        assert other._state.untyped_storage().size() == one._state.untyped_storage().size()
        assert other.num_envs == 5


def test_only_classes_that_say_so_themselves_are_stacked() -> None:
    class Coupled(TorchCartPole):
        """Its rows see each other, which its parent's promise does not cover."""

    def kind(cls: type[TorchVecEnv], **options: Any) -> Any:
        env = cls(3, device="cpu", **options)
        env.reset_tensor()
        return env.stack_kind()

    assert kind(Coupled) is None
    assert TorchCartPole(3, device="cpu").stack_kind() is None  # no state to step yet
    assert kind(TorchPendulum) == kind(TorchPendulum, seed=4)
    assert kind(TorchPendulum) != kind(TorchPendulum, g=9.0)
    assert kind(TorchPendulum) != kind(TorchPendulum, max_episode_steps=9)


def test_start_states_drawn_from_one_generator_alone_are_an_error() -> None:
    class Careless(Drift):
        row_settings = ()

        def initial_state(self) -> Tensor:
            return torch.rand(self.num_envs, 3, generator=self.generator)

    envs = [Careless("gaussian", 2, seed) for seed in (1, 2)]
    for env in envs:
        env.reset_tensor()
    with pytest.raises(AttributeError, match="generator"):
        Careless.stack(envs).step_tensor(torch.zeros(4, 2))
