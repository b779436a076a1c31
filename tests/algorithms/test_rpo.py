"""RPO: the shifted mean against CleanRL's formulation, its identities, its generator, its refusals."""

import copy
import logging

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from noise_env import Noise
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.distributions import Normal

from maxent_onpolicy import PPO, RPO, MaxEntPPO, make_vec_env
from maxent_onpolicy.algorithms.rpo import alpha_for, env_id_of
from maxent_onpolicy.engine.mean_shift import MeanShift, shifted
from maxent_onpolicy.evaluation.protocol import evaluate_policy

SETTINGS = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "seed": 3, "device": "cpu"}


def pendulum(**kwargs):
    return make_vec_env("Pendulum-v1", 2, seed=3, **kwargs)


def parameters(model):
    return [parameter.detach().clone() for parameter in model.policy.parameters()]


def assert_same(first, second):
    for a, b in zip(parameters(first), parameters(second), strict=True):
        assert torch.equal(a, b)


def rollout(algorithm, **kwargs):
    model = algorithm("MlpPolicy", pendulum(), engine="eager", **SETTINGS | kwargs)
    _, callback = model._setup_learn(1000)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model


def reference_loss(model, batch, shift):
    """One minibatch's loss as in CleanRL's RPO: the mean is shifted, the actions are those of the rollout."""
    policy = model.policy
    features = policy.extract_features(batch.observation)
    latent_pi, latent_vf = policy.mlp_extractor(features)
    output = policy.action_net(latent_pi)
    if model.policy.action_dist.__class__.__name__ == "GaussianDistribution":
        mean, log_std = output.chunk(2, dim=-1)
    else:
        mean, log_std = output, policy.log_std.expand_as(output)
    distribution = Normal(mean + shift, log_std.exp())
    log_ratio = distribution.log_prob(batch.action).sum(1) - batch.log_prob
    ratio = log_ratio.exp()
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    policy_loss = torch.max(-advantage * ratio, -advantage * torch.clamp(ratio, 0.8, 1.2)).mean()
    value_loss = (policy.value_net(latent_vf).flatten() - batch.value_target).square().mean()
    loss = policy_loss - 0.01 * distribution.entropy().sum(1).mean() + 0.5 * value_loss
    clipped = ((ratio - 1).abs() > 0.2).float()
    return loss, {"approx_kl": ((ratio - 1) - log_ratio).mean(), "clip_fraction": clipped.mean()}


@pytest.mark.parametrize("policy_kwargs", [{}, {"state_dependent_std": True}], ids=["free std", "std of the state"])
def test_loss_and_gradient_are_those_of_a_shifted_mean(policy_kwargs):
    model = rollout(RPO, rpo_alpha=0.3, ent_coef=0.01, policy_kwargs=policy_kwargs)
    batch = next(model.rollout_buffer.get(32))
    shift = model.mean_shift().draw(32)
    moved = next(shifted(iter([batch]), model.mean_shift()))
    loss, metrics = model._loss(moved, model._clip_ranges())
    gradient = torch.autograd.grad(loss, list(model.policy.parameters()))
    expected_loss, expected_metrics = reference_loss(model, batch, shift)
    expected = torch.autograd.grad(expected_loss, list(model.policy.parameters()))
    torch.testing.assert_close(loss, expected_loss)
    for ours, theirs in zip(gradient, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    for name, value in expected_metrics.items():
        torch.testing.assert_close(metrics[name], value.detach(), atol=1e-6, rtol=1e-4)
    # Without the shift it would be another loss.
    assert abs(reference_loss(model, batch, 0.0)[0].item() - loss.item()) > 1e-4


@pytest.mark.parametrize("engine", ["eager", "packed"])
@pytest.mark.parametrize("algorithm", [RPO, MaxEntPPO])
def test_alpha_zero_is_the_plain_algorithm_bit_for_bit(algorithm, engine):
    plain = PPO if algorithm is RPO else MaxEntPPO
    kwargs = SETTINGS | {"engine": engine}
    first = plain("MlpPolicy", pendulum(), **kwargs).learn(256)
    second = algorithm("MlpPolicy", pendulum(), rpo_alpha=0.0, **kwargs).learn(256)
    assert second.mean_shift() is None
    assert_same(first, second)


def test_the_first_rollout_and_the_generators_are_those_of_ppo():
    """The shifts come from a generator of their own: only what the update learns is another."""
    plain, model = rollout(PPO), rollout(RPO)
    for name in ("action", "log_prob", "value", "reward"):
        assert torch.equal(getattr(plain.rollout_buffer, name), getattr(model.rollout_buffer, name))
    after = []
    for each in (plain, model):
        np.random.seed(1), torch.manual_seed(1)
        each.train()
        after.append((np.random.random(), torch.rand(()).item()))
    assert after[0] == after[1]
    assert not torch.equal(parameters(plain)[0], parameters(model)[0])


def test_shifts_are_uniform_within_alpha_and_fresh():
    shifts = [MeanShift(0.3, 4, seed=7, epoch=epoch, device=torch.device("cpu")).draw(20_000) for epoch in (0, 1)]
    for shift in shifts:
        assert shift.shape == (20_000, 4)
        assert shift.abs().max() <= 0.3
        # Standard errors: 0.3/√3/√80000 = 6e-4 of the mean; of the variance 0.03, 1e-4.
        assert abs(shift.mean().item()) < 3e-3
        assert shift.var().item() == pytest.approx(0.3**2 / 3, abs=6e-4)
        assert torch.histc(shift, 10, -0.3, 0.3).min() > 7_500  # of 8,000 each
        assert abs(torch.corrcoef(shift.T)[0, 1].item()) < 0.03
    assert not torch.equal(*shifts)
    other_seed = MeanShift(0.3, 4, seed=8, epoch=0, device=torch.device("cpu")).draw(20_000)
    assert not torch.equal(other_seed, shifts[0])


def test_every_minibatch_and_every_epoch_is_shifted_anew():
    seen = []

    class Recording(RPO):
        def _loss(self, batch, clip):
            seen.append(batch.action.clone())
            return super()._loss(batch, clip)

    model = rollout(Recording, n_epochs=2)
    model.rollout_buffer.action.zero_()
    model.train()
    shifts = torch.stack(seen)
    assert shifts.shape == (8, 32, 1)  # 2 epochs of 4 minibatches
    assert len(torch.unique(shifts)) > 250
    assert torch.unique(shifts.mean(dim=(1, 2))).numel() == 8


def test_small_draws_equal_a_large_one():
    """What the eager engine draws for each minibatch is what the others draw for an epoch."""
    small, large = (MeanShift(0.5, 3, seed=1, epoch=2, device=torch.device("cpu")) for _ in range(2))
    parts = torch.cat([small.draw(count) for count in (32, 1, 64, 15)])
    assert torch.equal(parts, large.draw(112))


@pytest.mark.parametrize("engine", ["eager", "packed"])
def test_continues_bit_for_bit(tmp_path, engine):
    kwargs = SETTINGS | {"engine": engine, "tau": "auto", "rpo_alpha": 0.2}
    whole = MaxEntPPO("MlpPolicy", pendulum(), **kwargs).learn(512)
    MaxEntPPO("MlpPolicy", pendulum(), **kwargs).learn(256).save(tmp_path / "model")
    resumed = MaxEntPPO.load(tmp_path / "model", env=pendulum(), resume=True, device="cpu")
    resumed.learn(256, reset_num_timesteps=False)
    assert_same(whole, resumed)


def test_a_model_without_a_seed_keeps_its_shifts(tmp_path):
    models = [RPO("MlpPolicy", pendulum(), **SETTINGS | {"seed": None}) for _ in range(2)]
    draws = [model.mean_shift().draw(8) for model in models]
    assert not torch.equal(*draws)
    models[0].save(tmp_path / "model")
    assert torch.equal(RPO.load(tmp_path / "model", device="cpu").mean_shift().draw(8), draws[0])


def test_a_new_seed_gives_new_shifts(tmp_path):
    model = RPO("MlpPolicy", pendulum(), **SETTINGS)
    before = model.mean_shift().draw(8)
    model.set_random_seed(11)
    after = model.mean_shift().draw(8)
    assert not torch.equal(before, after)
    model.save(tmp_path / "model")
    assert torch.equal(RPO.load(tmp_path / "model", device="cpu").mean_shift().draw(8), after)
    assert not torch.equal(RPO.load(tmp_path / "model", device="cpu", seed=12).mean_shift().draw(8), after)


def test_evaluation_and_copies_do_not_move_the_shifts():
    model = RPO("MlpPolicy", pendulum(), **SETTINGS)
    before = model.mean_shift().draw(8)
    model.predict(model.env.reset())
    evaluate_policy(model, pendulum(), 2, seed=1)
    assert torch.equal(model.mean_shift().draw(8), before)
    assert torch.equal(copy.deepcopy(model).mean_shift().draw(8), before)


@pytest.mark.parametrize(
    ("env_id", "alpha"),
    [
        *((f"{task}-v{version}", 0.01) for task in ("Ant", "Hopper", "Reacher", "Pusher") for version in (2, 5)),
        ("InvertedDoublePendulum-v4", 0.01),
        ("gymnasium.envs.mujoco:Hopper-v5", 0.01),
        ("somewhere/Ant-v0", 0.01),
        ("HalfCheetah-v5", 0.5),
        ("InvertedPendulum-v5", 0.5),
        ("AntMaze_UMaze-v4", 0.5),
        (None, 0.5),
    ],
)
def test_the_automatic_bound_is_that_of_the_task(env_id, alpha):
    assert alpha_for(env_id) == alpha


@pytest.mark.parametrize(
    ("make_env", "env_id"),
    [
        (lambda: make_vec_env("Hopper-v5", 1, seed=0), "Hopper-v5"),
        (lambda: make_vec_env("Hopper-v5", 1, seed=0, backend="gymnasium"), "Hopper-v5"),
        (lambda: DummyVecEnv([lambda: gym.make("Pendulum-v1")]), "Pendulum-v1"),
        (lambda: DummyVecEnv([lambda: Noise()]), None),
        (lambda: make_vec_env("Pendulum-v1", 1, seed=0, backend="torch", device="cpu"), None),
    ],
)
def test_the_environments_id_is_found(make_env, env_id):
    assert env_id_of(make_env()) == env_id


def test_what_was_chosen_is_said(caplog, capsys):
    with caplog.at_level(logging.INFO):
        model = RPO("MlpPolicy", make_vec_env("Hopper-v5", 1, seed=0), **SETTINGS, verbose=1)
    assert model.rpo_alpha == 0.01
    message = "rpo_alpha='auto' is 0.01 for Hopper-v5, as 0.5 is known to fail there"
    assert message in caplog.text
    assert message in capsys.readouterr().out
    assert RPO("MlpPolicy", pendulum(), **SETTINGS).rpo_alpha == 0.5


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "Auto", "0.5", None])
def test_a_bad_bound_is_named(value):
    with pytest.raises(ValueError, match="`rpo_alpha` must be"):
        RPO("MlpPolicy", pendulum(), rpo_alpha=value)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"policy_kwargs": {"action_distribution": "beta"}}, "BetaDistribution"),
        ({"policy_kwargs": {"action_distribution": "tanh_gaussian"}}, "TanhGaussianDistribution"),
        ({"use_sde": True, "policy_kwargs": {"squash_output": True}}, "with squashed actions"),
    ],
)
def test_a_distribution_that_has_no_mean_to_shift_is_refused(kwargs, named):
    with pytest.raises(ValueError, match=f"`rpo_alpha=0.5`.*{named}"):
        MaxEntPPO("MlpPolicy", pendulum(), rpo_alpha=0.5, **kwargs)
    MaxEntPPO("MlpPolicy", pendulum(), rpo_alpha=0, **kwargs)


@pytest.mark.parametrize("space", [spaces.Discrete(2), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)])
def test_discrete_actions_are_refused(space):
    class Chooses(Noise):
        def __init__(self):
            super().__init__()
            self.action_space = space

    env = DummyVecEnv([Chooses])
    with pytest.raises(ValueError, match=r"`rpo_alpha='auto'`.*continuous actions.*rpo_alpha=0"):
        RPO("MlpPolicy", env)
    assert RPO("MlpPolicy", env, rpo_alpha=0, **SETTINGS).learn(64).num_timesteps == 64


def test_state_dependent_exploration_is_shifted_too():
    models = [RPO("MlpPolicy", pendulum(), use_sde=True, rpo_alpha=a, **SETTINGS).learn(128) for a in (0.0, 0.5)]
    assert not torch.equal(parameters(models[0])[0], parameters(models[1])[0])


@pytest.mark.slow
def test_learns_to_swing_up():
    env = make_vec_env("Pendulum-v1", 8, seed=0)
    kwargs = {"n_steps": 256, "batch_size": 128, "learning_rate": 1e-3, "gamma": 0.9, "gae_lambda": 0.95}
    model = RPO("MlpPolicy", env, rpo_alpha=0.5, use_sde=True, sde_sample_freq=4, seed=0, device="cpu", **kwargs)
    model.learn(120_000)
    returns = evaluate_policy(model, make_vec_env("Pendulum-v1", 4, seed=100), 20, seed=100)["deterministic"].returns
    assert returns.mean() > -300  # a random policy's is about -1,200
