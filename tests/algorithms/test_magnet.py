"""Magnets: what they are after some updates, what they do to a policy, and that they are saved."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from noise_env import Noise
from stable_baselines3.common.vec_env import DummyVecEnv

from maxent_onpolicy import PPO, RPO, MaxEntPPO
from maxent_onpolicy.policies.divergence import kl_divergence

SMALL = {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "device": "cpu", "seed": 0, "compile": False}
DISCRETE = spaces.Discrete(3)
UPDATE = 64


def noise(action_space=DISCRETE, **kwargs):
    return DummyVecEnv([lambda: Noise(action_space=copy.deepcopy(action_space), **kwargs)] * 2)


def make(algorithm=PPO, action_space=DISCRETE, **kwargs):
    return algorithm("MlpPolicy", noise(action_space), **SMALL | kwargs)


def weights(policy):
    return {name: value.clone() for name, value in policy.state_dict().items()}


def assert_close(one, other, **kwargs):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, **kwargs)


def differs(one, other):
    return any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("space", [DISCRETE, spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)])
def test_the_uniform_magnet_is_an_entropy_bonus(space):
    magnet = make(action_space=space, magnet="uniform", magnet_coef=0.3, engine="eager").learn(2 * UPDATE)
    bonus = make(action_space=space, ent_coef=0.3, engine="eager").learn(2 * UPDATE)
    assert_close(weights(bonus.policy), weights(magnet.policy), rtol=1e-4, atol=1e-6)
    assert differs(weights(make(action_space=space, engine="eager").learn(2 * UPDATE).policy), weights(magnet.policy))
    assert magnet.logger.name_to_value["train/magnet_kl"] > 0


def test_the_losses_of_magnet_and_bonus_differ_by_a_constant():
    model = make(magnet="uniform", magnet_coef=0.3, engine="eager").learn(UPDATE)
    batch = next(model.rollout_buffer.get(16))
    losses = []
    for magnet, coefficient in (("uniform", 0.0), (None, 0.3)):
        model.magnet, model.ent_coef = magnet, coefficient
        losses.append(model._loss(batch, model._clip_ranges())[0].item())
    assert losses[0] - losses[1] == pytest.approx(0.3 * np.log(3), rel=1e-4)


@pytest.mark.parametrize("kwargs", [{"magnet": "previous"}, {"magnet": "ema"}, {"magnet": "uniform"}])
def test_a_weight_of_zero_changes_nothing(kwargs):
    plain, drawn = make(engine="eager").learn(2 * UPDATE), make(magnet_coef=0.0, engine="eager", **kwargs)
    drawn.learn(2 * UPDATE)
    assert_close(weights(plain.policy), weights(drawn.policy), rtol=0, atol=0)


def test_the_previous_policy_stays_for_its_period():
    model = make(magnet="previous", magnet_period=2)
    seen = []
    for _ in range(4):
        before = weights(model.policy)
        model.learn(UPDATE, reset_num_timesteps=False)
        seen.append((before, weights(model.magnet_policy)))
    (first, after_1), (_, after_2), (third, after_3), (_, after_4) = seen
    for expected, found in ((first, after_1), (first, after_2), (third, after_3), (third, after_4)):
        assert_close(expected, found, rtol=0, atol=0)
    assert differs(first, third)


def test_the_moving_average_is_one():
    model = make(magnet="ema", magnet_decay=0.75)
    average = weights(model.policy)
    for _ in range(3):
        now = weights(model.policy)
        average = {name: 0.75 * value + 0.25 * now[name] for name, value in average.items()}
        model.learn(UPDATE, reset_num_timesteps=False)
        assert_close(average, weights(model.magnet_policy))


@pytest.mark.parametrize("magnet", ["previous", "ema"])
@pytest.mark.parametrize(
    ("algorithm", "space"),
    [(PPO, DISCRETE), (MaxEntPPO, spaces.MultiDiscrete([2, 3])), (RPO, spaces.Box(-1, 1, (2,), np.float32))],
)
def test_a_heavy_magnet_holds_the_policy(algorithm, space, magnet):
    moved = []
    for coefficient in (0.0, 1e3):
        settings = {"magnet": magnet, "magnet_coef": coefficient, "magnet_period": 100, "magnet_decay": 0.9}
        model = make(algorithm, space, **settings, learning_rate=1e-3, n_epochs=10, max_grad_norm=1e9)
        start = copy.deepcopy(model.policy)
        model.learn(UPDATE)
        seen = model.rollout_buffer.flat_observation()
        with torch.no_grad():
            kl = kl_divergence(model.policy.get_distribution(seen), start.get_distribution(seen))
        moved.append(kl.mean().item())
    assert 0 <= moved[1] < 0.1 * moved[0]


def test_the_magnet_is_not_trained():
    model = make(magnet="previous").learn(UPDATE)
    assert not any(parameter.requires_grad for parameter in model.magnet_policy.parameters())
    assert model.magnet_policy.optimizer is None
    assert model.policy.optimizer.state_dict()["state"]


@pytest.mark.parametrize("kwargs", [{"magnet": "previous", "magnet_period": 3}, {"magnet": "ema"}])
def test_a_resumed_run_ends_as_an_uninterrupted_one(kwargs, tmp_path):
    whole = make(MaxEntPPO, **kwargs).learn(2 * UPDATE)
    whole.save(tmp_path / "model")
    whole.learn(3 * UPDATE, reset_num_timesteps=False)
    torch.manual_seed(99)
    resumed = MaxEntPPO.load(tmp_path / "model", env=noise(), device="cpu", resume=True)
    resumed.learn(3 * UPDATE, reset_num_timesteps=False)
    for name in ("policy", "magnet_policy"):
        assert_close(weights(getattr(whole, name)), weights(getattr(resumed, name)), rtol=0, atol=0)


def test_a_file_without_that_magnet_is_refused(tmp_path):
    make(magnet="ema").save(tmp_path / "with")
    make().save(tmp_path / "without")
    with pytest.raises(ValueError, match="`magnet=None` does not fit the parameters"):
        PPO.load(tmp_path / "with", magnet=None)
    with pytest.raises(ValueError, match="`magnet='previous'` does not fit the parameters"):
        PPO.load(tmp_path / "without", magnet="previous")
    assert PPO.load(tmp_path / "without", magnet="uniform").magnet == "uniform"


def test_the_packed_engine_leaves_magnets_to_others():
    model = make(magnet="ema").learn(UPDATE)
    assert model.current_engine.name == "eager"
    assert "The packed engine does not know the magnet (`magnet='ema'`)" in model.engine_message
    with pytest.raises(ValueError, match=r"`engine='packed'` cannot train this model because of the magnet"):
        make(magnet="uniform", engine="packed").learn(UPDATE)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"magnet": "unifrom"}, r"`magnet` must be one of .*got 'unifrom' \(did you mean 'uniform'"),
        ({"magnet_coef": -1.0}, r"`magnet_coef` must be in \[0, inf\), got -1.0"),
        ({"magnet_decay": 1.0}, r"`magnet_decay` must be in \[0, 1\), got 1.0"),
        ({"magnet_period": 0}, r"`magnet_period` must be in \[1, inf\), got 0"),
        (
            {"magnet": "uniform", "action_space": spaces.Box(-1, 1, (2,), np.float32)},
            r"`magnet='uniform'` does not fit this policy: there is no uniform policy over continuous actions",
        ),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)
