"""Rollouts of several models in one loop whose callbacks listen, which stop or fail, or cannot take part."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from together_helpers import Drift, assert_same, make_env, maker, train, train_alone
from torch import Tensor

from maxent_onpolicy import PPO, MaxEntPPO
from maxent_onpolicy.engine.finite import NonFiniteError
from maxent_onpolicy.envs.normalize import VecNormalize


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
