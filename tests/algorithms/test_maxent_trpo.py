"""TRPO with the entropy critic: identities, normalisation, the ablation, temperature."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from noise_env import Noise
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv

from maxent_onpolicy import PPO, TRPO, MaxEntPPO, MaxEntTRPO, train_seeds
from maxent_onpolicy.algorithms.train_seeds import SeedsFailedError
from maxent_onpolicy.envs.toys import ConstantRewardEnv

ENGINES = ["eager", "packed"]
SMALL = {"n_steps": 32, "batch_size": 32, "n_critic_updates": 2, "device": "cpu", "seed": 0}


def noise(n_envs=2, **kwargs):
    return DummyVecEnv([lambda i=i: Noise(limit=5 + 2 * i, **kwargs) for i in range(n_envs)])


def rollout(model):
    model.set_random_seed(0)
    _, callback = model._setup_learn(10_000)
    model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, model.n_steps)
    return model.rollout_buffer


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kwargs", [{}, {"popart": True}, {"kl_reduction": "sum"}, {"sub_sampling_factor": 2}], ids=str)
def test_without_temperature_it_is_trpo_bit_for_bit(kwargs, engine):
    without = TRPO("MlpPolicy", noise(), engine=engine, **SMALL, **kwargs).learn(192).policy.state_dict()
    with_head = MaxEntTRPO("MlpPolicy", noise(), engine=engine, tau=0, **SMALL, **kwargs).learn(192)
    for name, value in without.items():
        assert torch.equal(with_head.policy.state_dict()[name], value), name


def test_defaults_are_those_of_ppo():
    trpo, ppo = (kind("MlpPolicy", noise(), device="cpu") for kind in (MaxEntTRPO, MaxEntPPO))
    names = ("current_tau", "entropy_gamma", "entropy_gae_lambda", "entropy_vf_coef", "initial_tau")
    for name in (*names, "advantage_normalization"):
        assert getattr(trpo, name) == getattr(ppo, name)
    assert [type(layer) for layer in trpo.policy.entropy_trunk] == [type(layer) for layer in ppo.policy.entropy_trunk]


@pytest.mark.parametrize(("base", "kind"), [(TRPO, MaxEntTRPO), (PPO, MaxEntPPO)])
def test_an_entropy_critic_of_its_own_leaves_the_task_alone(base, kind):
    """Bit for bit, where the temperature is below what a float32 can add and the gradient's norm is not bounded."""
    kwargs = {"n_steps": 32, "batch_size": 32, "device": "cpu", "seed": 0, "engine": "eager"}
    kwargs |= {"max_grad_norm": 1e9} if base is PPO else {}
    with_critic = kind("MlpPolicy", noise(), tau=1e-30, **kwargs).learn(192).policy.state_dict()
    for name, value in base("MlpPolicy", noise(), **kwargs).learn(192).policy.state_dict().items():
        assert torch.equal(with_critic[name], value), name


def test_a_trace_of_zero_is_zero():
    zero = MaxEntTRPO("MlpPolicy", noise(), entropy_gae_lambda=0.0, **SMALL)
    assert zero.entropy_gae_lambda == 0.0


def head(model, critic):
    return getattr(model.policy, f"{critic}_net")


@pytest.mark.parametrize("engine", ENGINES)
def test_reward_augmentation_takes_the_same_step_with_shared_discount_and_trace(engine):
    """One critic on ``r − τ·log π`` against two, with V = V_r + τ·V_H: GAE is linear."""
    tau = 0.3
    kwargs = {"gamma": 0.9, "gae_lambda": 0.8, "tau": tau, "engine": engine, **SMALL}
    kwargs |= {"policy_kwargs": {"entropy_net_arch": None}, "advantage_normalization": "combined"}
    two = MaxEntTRPO("MlpPolicy", noise(), entropy_gamma=0.9, entropy_gae_lambda=0.8, **kwargs)
    one = MaxEntTRPO("MlpPolicy", noise(), reward_augmentation=True, **kwargs)
    with torch.no_grad():
        for name in ("weight", "bias"):
            both = getattr(head(two, "value"), name) + tau * getattr(head(two, "entropy_value"), name)
            getattr(head(one, "value"), name).copy_(both)
    first, second = rollout(two), rollout(one)
    soft = first.advantage + tau * first.entropy_advantage
    torch.testing.assert_close(soft, second.advantage, rtol=0, atol=1e-5)
    states = torch.get_rng_state(), np.random.get_state()
    for model in (two, one):
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        model.train()
    for ours, theirs in zip(two.policy.actor_parameters(), one.policy.actor_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert two.logger.name_to_value["train/is_line_search_success"] == 1


def test_the_ablation_has_the_same_networks_without_the_entropy_critic():
    kwargs = {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [16, 12]}}, **SMALL}
    two = MaxEntTRPO("MlpPolicy", noise(), **kwargs).policy.state_dict()
    one = MaxEntTRPO("MlpPolicy", noise(), reward_augmentation=True, **kwargs).policy.state_dict()
    assert {name: value.shape for name, value in two.items() if "entropy" not in name} == {
        name: value.shape for name, value in one.items()
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_the_combined_advantage_is_normalised_by_its_own_statistics(engine):
    """At a temperature where entropy dominates: the task's deviation would leave it hundreds of times larger."""
    model = MaxEntTRPO("MlpPolicy", noise(), tau=1000.0, advantage_normalization="combined", engine=engine, **SMALL)
    buffer = rollout(model)
    soft = buffer.advantage + 1000.0 * buffer.entropy_advantage
    batch = next(buffer.get())
    followed = model._policy_advantage(batch)
    assert followed.mean().abs() < 1e-5
    assert followed.std() == pytest.approx(1)
    assert soft.std() / buffer.advantage.std() > 100
    # So a temperature that large is the same as following entropy alone.
    expected = batch.entropy_advantage
    expected = (expected - expected.mean()) / expected.std()
    torch.testing.assert_close(followed, expected, rtol=0, atol=0.02)


def test_advantages_that_are_normalised_apart():
    model = MaxEntTRPO("MlpPolicy", noise(), tau=0.5, advantage_normalization="separate", **SMALL)
    batch = next(rollout(model).get())
    task, entropy = ((part - part.mean()) / part.std() for part in (batch.advantage, batch.entropy_advantage))
    torch.testing.assert_close(model._policy_advantage(batch), task + 0.5 * entropy)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("own", [False, True], ids=["head", "network of its own"])
def test_the_entropy_critic_learns_the_closed_form(own, engine):
    """A reward of zero leaves the policy uniform over 4 choices: V_H = log 4/(1 − γ_H)."""
    arch = {"entropy_net_arch": [16] if own else None}
    model = MaxEntTRPO(
        "MlpPolicy",
        ConstantRewardEnv(spaces.Discrete(4), reward=0.0, length=5, end="never"),
        tau=1.0,
        entropy_gamma=0.8,
        learning_rate=3e-3,
        n_steps=200,
        batch_size=50,
        seed=0,
        device="cpu",
        engine=engine,
        policy_kwargs={"net_arch": {"pi": [8], "vf": [32, 32]}} | arch,
    ).learn(2_000 if engine == "eager" else 4_000)
    with torch.no_grad():
        predicted = model.policy.predict_entropy_values(torch.zeros(1, 1)).item()
    assert predicted == pytest.approx(math.log(4) / 0.2, rel=0.05)
    assert model.logger.name_to_value["train/entropy_value_loss"] < 0.05


@pytest.mark.parametrize("engine", ENGINES)
def test_temperature_moves_towards_the_target_and_schedules_are_followed(engine):
    wants_more = MaxEntTRPO("MlpPolicy", noise(), tau="auto", target_entropy=100.0, engine=engine, **SMALL).learn(128)
    wants_less = MaxEntTRPO("MlpPolicy", noise(), tau="auto", target_entropy=-100.0, engine=engine, **SMALL).learn(128)
    assert wants_more.current_tau > 0.01 > wants_less.current_tau
    falling = MaxEntTRPO("MlpPolicy", noise(), tau=LinearSchedule(0.4, 0.0, 1.0), engine=engine, **SMALL).learn(128)
    assert falling.logger.name_to_value["train/tau"] == pytest.approx(0.2)


def test_popart_follows_both_critics():
    model = MaxEntTRPO("MlpPolicy", noise(), popart=True, **SMALL).learn(64)
    for critic in ("value", "entropy_value"):
        target = getattr(model.rollout_buffer, f"{critic}_target")
        mean, std = head(model, critic).moments
        torch.testing.assert_close(mean, target.mean())
        torch.testing.assert_close(std, target.std(unbiased=False))


@pytest.mark.parametrize("algorithm", [TRPO, MaxEntTRPO])
def test_several_seeds_are_trained_one_after_another(algorithm):
    shared = {name: value for name, value in SMALL.items() if name != "seed"}
    kwargs = {"variants": {"target_kl": [0.01, 0.02]}, **shared}
    models = train_seeds(algorithm, "MlpPolicy", lambda seed: noise(), [0, 1], 128, **kwargs)
    for seed, target_kl in ((0, 0.01), (1, 0.02)):
        alone = algorithm("MlpPolicy", noise(), target_kl=target_kl, **SMALL | {"seed": seed}).learn(128)
        for ours, theirs in zip(models[seed].policy.parameters(), alone.policy.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_of_several_seeds_one_may_fail():
    class Breaks(BaseCallback):
        def _on_step(self):
            assert self.model.seed != 1, "on purpose"
            return True

    shared = {name: value for name, value in SMALL.items() if name != "seed"}
    with pytest.raises(SeedsFailedError, match=r"1 of 3 models failed.*seed 1.*on purpose") as failure:
        train_seeds(TRPO, "MlpPolicy", lambda _: noise(), [0, 1, 2], 64, callbacks=lambda _: Breaks(), **shared)
    assert [model.num_timesteps for model in failure.value.models] == [64, 2, 64]
