"""Whole trainings of many seeds at once against each seed's own."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from maxent_onpolicy import PPO, MaxEntPPO, make_vec_env, train_seeds
from maxent_onpolicy.algorithms.train_seeds import SeedsFailedError
from maxent_onpolicy.engine.finite import NonFiniteError
from maxent_onpolicy.envs.normalize import VecNormalize

SHORT: dict[str, Any] = {"n_steps": 64, "n_epochs": 3, "device": "cpu"}


class Log(BaseCallback, KVWriter):
    """Keeps what is logged, and every reward; acts at random, as evaluations do."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self.rewards: list[np.ndarray] = []
        self.draws: list[float] = []

    def _on_training_start(self) -> None:
        self.model.set_logger(Logger(None, [self]))

    def write(self, values: dict[str, Any], *args: Any) -> None:
        self.rows.append({key: value for key, value in values.items() if not key.startswith("time/")})

    def _on_step(self) -> bool:
        self.rewards.append(self.locals["rewards"].copy())
        self.draws.append(torch.rand(()).item() + np.random.rand())
        return True


def close(a: PPO, b: PPO, tolerance: float = 1e-5) -> bool:
    pairs = zip(a.policy.state_dict().values(), b.policy.state_dict().values(), strict=True)
    return max((p - q).abs().max().item() for p, q in pairs) <= tolerance


@pytest.mark.parametrize(
    ("cls", "env", "options"),
    [
        (PPO, "CartPole-v1", {}),
        (MaxEntPPO, "CartPole-v1", {"tau": 0.02, "target_kl": 0.01}),
        (MaxEntPPO, "Pendulum-v1", {"popart": True, "batch_size": 48, "tau": "auto"}),
    ],
)
@pytest.mark.filterwarnings("ignore:`batch_size")
def test_each_model_is_that_of_its_own_run(cls: type[PPO], env: str, options: dict[str, Any]) -> None:
    seeds = [5, 1, 9]

    models = train_seeds(cls, "MlpPolicy", env, seeds, 1000, n_envs=4, **SHORT, **options)

    for seed, model in zip(seeds, models, strict=True):
        alone = cls("MlpPolicy", make_vec_env(env, 4, seed=seed), seed=seed, **SHORT, **options).learn(1000)
        assert type(model) is cls
        assert model.seed == seed
        assert model.num_timesteps == alone.num_timesteps == 1024
        assert close(model, alone)
        torch.testing.assert_close(model.rollout_buffer.action, alone.rollout_buffer.action, rtol=0, atol=1e-4)
        assert [each["r"] for each in model.ep_info_buffer] == pytest.approx([e["r"] for e in alone.ep_info_buffer])


def test_environments_on_a_device_and_large_minibatches() -> None:
    """Above 128 samples a CPU trains models one after the other; that changes nothing else."""
    options = {**SHORT, "n_steps": 16, "batch_size": 256}

    def make(seed: int) -> Any:
        return make_vec_env("CartPole-v1", 32, seed, "torch", device="cpu")

    models = train_seeds(PPO, "MlpPolicy", make, [1, 2], 1024, **options)

    for seed, model in zip((1, 2), models, strict=True):
        alone = PPO("MlpPolicy", make(seed), seed=seed, **options).learn(1024)
        assert close(model, alone)
        assert torch.equal(model.rollout_buffer.action, alone.rollout_buffer.action)


def test_callbacks_loggers_and_normalisation_are_each_models_own() -> None:
    def make(seed: int) -> VecNormalize:
        return VecNormalize(make_vec_env("Pendulum-v1", 2, seed=seed), device="cpu")

    logs: list[Log] = []

    def callback(model: PPO) -> Log:
        logs.append(Log())
        return logs[-1]

    train_seeds(PPO, "MlpPolicy", make, [1, 2], 512, callbacks=callback, **SHORT)

    for seed, log in zip((1, 2), logs, strict=True):
        own = Log()
        PPO("MlpPolicy", make(seed), seed=seed, **SHORT).learn(512, own)
        assert log.draws == own.draws  # exactly: the generators are where they would be
        np.testing.assert_allclose(log.rewards, own.rewards, atol=1e-4)
        assert len(log.rows) == len(own.rows) == 4
        for row, expected in zip(log.rows, own.rows, strict=True):
            assert row == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_values_of_hyperparameters_are_variants() -> None:
    variants = {"tau": [0.0, 0.1, 0.1], "learning_rate": [1e-3, 1e-3, 1e-4], "gae_lambda": [0.9, 0.95, 1.0]}

    models = train_seeds(MaxEntPPO, "MlpPolicy", "CartPole-v1", 3, 256, variants=variants, n_envs=2, **SHORT)

    for index, model in enumerate(models):
        own = {name: values[index] for name, values in variants.items()}
        alone = MaxEntPPO("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=3), seed=3, **SHORT, **own).learn(256)
        assert close(model, alone)
    assert [model.current_tau for model in models] == [0.0, 0.1, 0.1]
    assert not close(models[1], models[2])


def test_models_are_ordinary_afterwards(tmp_path: Path) -> None:
    model, _ = train_seeds(PPO, "MlpPolicy", "CartPole-v1", [1, 2], 256, n_envs=2, **SHORT)
    alone = PPO("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=1), seed=1, **SHORT).learn(256)
    model.save(tmp_path / "model")
    alone.save(tmp_path / "alone")

    # A file holds one model, not the memory that all shared.
    assert (tmp_path / "model.zip").stat().st_size < 1.05 * (tmp_path / "alone.zip").stat().st_size
    loaded = PPO.load(tmp_path / "model", make_vec_env("CartPole-v1", 2, seed=1), device="cpu")
    assert close(loaded, model, 0.0)
    for each in (loaded, model):
        each.set_random_seed(0)
        each.learn(256, reset_num_timesteps=False)
        assert each.num_timesteps == 512
    assert model.predict(np.zeros(4, dtype=np.float32))[0] in (0, 1)


def test_a_model_stopped_by_its_callback_leaves_the_others_alone() -> None:
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.model.seed != 1 or self.num_timesteps < 300

    models = train_seeds(
        PPO, "MlpPolicy", "CartPole-v1", [1, 2], 512, n_envs=2, callbacks=lambda model: Stop(), **SHORT
    )

    alone = PPO("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=2), seed=2, **SHORT).learn(512)
    assert [model.num_timesteps for model in models] == [300, 512]
    assert close(models[1], alone)


class Fragile(gym.Wrapper):
    """Returns NaN once it has been stepped a hundred times."""

    steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        observation, reward, *rest = self.env.step(action)
        return (observation, float("nan") if self.steps > 100 else reward, *rest)


def test_a_model_that_fails_is_reported_and_the_others_are_there() -> None:
    def make(seed: int) -> Any:
        return make_vec_env("CartPole-v1", 2, seed=seed, wrapper=Fragile if seed == 2 else None)

    with pytest.raises(SeedsFailedError, match=r"1 of 3 models failed.*model 1 \(seed 2\): NonFiniteError") as caught:
        train_seeds(PPO, "MlpPolicy", make, [1, 2, 3], 512, **SHORT)

    assert list(caught.value.errors) == [1]
    assert isinstance(caught.value.errors[1], NonFiniteError)
    alone = PPO("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=3), seed=3, **SHORT).learn(512)
    assert close(caught.value.models[2], alone)


def test_the_callers_random_state_is_untouched() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.get_rng_state()

    train_seeds(PPO, "MlpPolicy", "CartPole-v1", [1], 64, **SHORT)

    assert torch.equal(torch.get_rng_state(), expected)
    assert np.random.rand() == np.random.RandomState(0).rand()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "`seeds` must hold at least one"),
        ({"seeds": [1.5]}, "`seeds` must be an integer"),
        ({"seeds": [-1]}, "`seeds` must be in"),
        ({"seed": 3}, "pass `seeds`"),
        ({"callback": None}, "pass `callbacks`"),
        ({"variants": {"tua": [1, 2]}}, "'tua' cannot differ between models .did you mean 'tau'"),
        ({"variants": {"n_steps": [64, 128]}}, "'n_steps' cannot differ between models"),
        ({"variants": {"tau": 0.1}}, "'tau' must be a list"),
        ({"variants": {"tau": []}}, "'tau' must be a list"),
        ({"variants": {"tau": [0.1, 0.2, 0.3]}}, r"`seeds` has 2, `variants\['tau'\]` has 3"),
        ({"variants": {"tau": [0.1, 0.2]}, "tau": 0.1}, "`tau` is given twice"),
        ({"variants": {"tau": [0.1, -1]}}, "`tau` must be in"),
        ({"algorithm": PPO, "variants": {"tau": [0.1, 0.2]}}, "'tau' cannot differ between models"),
        ({"algorithm": "PPO"}, "`algorithm` must be PPO"),
        ({"learning_rat": 1e-3}, "takes no `learning_rat` .did you mean 'learning_rate'"),
        ({"backend": "torch"}, "takes no `backend`; `env` may be a function that gives options"),
        ({"total_timesteps": -1}, "`total_timesteps` must be"),
        ({"env": 3}, "`env` must be an id or a function"),
        ({"env": lambda seed: make_vec_env("CartPole-v1", 1, seed), "n_envs": 2}, "for environments given by id"),
        ({"engine": "eager"}, "cannot be stacked because of `engine='eager'`"),
        ({"policy_kwargs": {"activation_fn": torch.nn.ELU}}, "cannot be stacked because of the activation ELU"),
        ({"use_sde": True, "env": "Pendulum-v1"}, "cannot be stacked because of generalised state-dependent"),
    ],
)
def test_bad_arguments_are_named_before_training(arguments: dict[str, Any], message: str) -> None:
    defaults = {"algorithm": MaxEntPPO, "env": "CartPole-v1", "seeds": [1, 2], "total_timesteps": 64, **SHORT}
    steps: list[int] = []

    class Count(BaseCallback):
        def _on_step(self) -> bool:
            steps.append(1)
            return True

    with pytest.raises(ValueError, match=message):
        train_seeds(policy="MlpPolicy", callbacks=lambda model: Count(), **{**defaults, **arguments})

    assert not steps
