"""Rollouts of several models in one loop against each model's own."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from together_helpers import Drift, assert_same, maker, train, train_alone
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maxent_onpolicy import PPO, MaxEntPPO
from maxent_onpolicy.engine.packed import model as packed_model
from maxent_onpolicy.engine.packed import stacked, stacked_evaluation, together
from maxent_onpolicy.engine.packed.arrays import NUMPY, TORCH
from maxent_onpolicy.envs.torch_native import TorchCartPole, TorchPendulum
from maxent_onpolicy.envs.torch_vec_env import TorchVecEnv

DRAWS = ("aten.normal_", "aten.exponential_", "aten.uniform_", "aten.bernoulli")

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
