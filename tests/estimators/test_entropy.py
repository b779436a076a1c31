"""Entropy rewards, the entropy advantage and the temperature."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_advantages import column, flags, random_rollout

from maxent_onpolicy.estimators.advantages import gae
from maxent_onpolicy.estimators.entropy import (
    advantage_share,
    augmented_reward,
    center,
    entropy_advantage,
    normalized_soft_advantage,
    sampled_entropy_reward,
    soft_advantage,
    temperature_loss,
)
from maxent_onpolicy.estimators.losses import normalize_advantage


def test_golden_entropy_advantage():
    # h = [1, 2, 4], γ_H = 0.5, λ_H = 0.5; step 1 terminates, step 2 is cut off at a state worth 6.
    advantage, target = entropy_advantage(
        entropy_reward=column(1, 2, 4),
        entropy_value=column(1, 1, 2),
        next_entropy_value=column(1, 50, 6),
        terminated=flags(0, 1, 0),
        done=flags(0, 1, 1),
        entropy_gamma=0.5,
        entropy_gae_lambda=0.5,
    )
    # δ = [1 + 0.5 − 1, 2 − 1, 4 + 3 − 2]; A_0 = 0.5 + 0.25·1.
    torch.testing.assert_close(advantage, column(0.75, 1.0, 5.0))
    torch.testing.assert_close(target, column(1.75, 2.0, 7.0))


def test_a_lambda_of_zero_means_zero():
    data = random_rollout(1)
    advantage, _ = entropy_advantage(
        data["reward"], data["value"], data["next_value"], data["terminated"], data["done"], 0.9, 0.0
    )
    delta = data["reward"] + 0.9 * data["next_value"] * ~data["terminated"] - data["value"]
    torch.testing.assert_close(advantage, delta)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    tau=st.floats(0, 2),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
)
def test_reward_augmentation_equals_the_soft_advantage_with_shared_discount_and_trace(seed, tau, gamma, gae_lambda):
    task, entropy = random_rollout(seed), random_rollout(seed + 1)
    shared = {"terminated": task["terminated"], "done": task["done"], "gamma": gamma, "gae_lambda": gae_lambda}
    task_advantage = gae(task["reward"], task["value"], task["next_value"], **shared).advantage
    entropy_part = entropy_advantage(
        entropy["reward"], entropy["value"], entropy["next_value"], task["terminated"], task["done"], gamma, gae_lambda
    ).advantage
    augmented = gae(
        augmented_reward(task["reward"], entropy["reward"], tau),
        task["value"] + tau * entropy["value"],
        task["next_value"] + tau * entropy["next_value"],
        **shared,
    ).advantage
    torch.testing.assert_close(soft_advantage(task_advantage, entropy_part, tau), augmented, rtol=0, atol=1e-6)


@pytest.mark.parametrize("truncated", [False, True])
def test_constant_entropy_has_the_closed_form_value(truncated):
    # A policy of constant entropy H in a task without an end: V_H = H/(1 − γ_H), wherever it is cut off.
    entropy, gamma = math.log(4), 0.9
    value = torch.full((20, 3), entropy / (1 - gamma), dtype=torch.float64)
    done = torch.zeros(20, 3, dtype=torch.bool)
    done[::7] = truncated
    advantage, target = entropy_advantage(
        torch.full_like(value, entropy), value, value, torch.zeros_like(done), done, gamma, 0.7
    )
    torch.testing.assert_close(advantage, torch.zeros_like(value))
    torch.testing.assert_close(target, value)


def test_sampled_entropy_reward_is_minus_log_prob():
    assert sampled_entropy_reward(torch.tensor([-1.5, 0.25])).tolist() == [1.5, -0.25]


def test_centered_rewards_have_zero_mean_and_keep_their_differences():
    reward = torch.tensor([[1.0, 2.0], [4.0, 9.0]])
    centered = center(reward)
    assert centered.mean().item() == pytest.approx(0.0, abs=1e-7)
    torch.testing.assert_close(centered[1] - centered[0], reward[1] - reward[0])


def test_normalisation_after_combining_and_before():
    advantage, entropy = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([3.0, -1.0, 1.0])
    combined = normalized_soft_advantage(advantage, entropy, 0.5, "combined")
    torch.testing.assert_close(combined, normalize_advantage(torch.tensor([2.5, 1.5, 6.5])))
    separate = normalized_soft_advantage(advantage, entropy, 0.5, "separate")
    torch.testing.assert_close(separate, normalize_advantage(advantage) + 0.5 * normalize_advantage(entropy))
    # Scaling the task's reward changes nothing there, unlike with "combined".
    torch.testing.assert_close(normalized_soft_advantage(100 * advantage, entropy, 0.5, "separate"), separate)


def test_combined_advantage_is_scaled_by_its_own_deviation():
    advantage, entropy = torch.randn(100), 50 * torch.randn(100)
    assert normalized_soft_advantage(advantage, entropy, 1.0).std().item() == pytest.approx(1.0, abs=1e-5)


def test_share_of_the_entropy_advantage():
    advantage, entropy = torch.tensor([1.0, -3.0]), torch.tensor([2.0, 2.0])
    assert advantage_share(advantage, entropy, 1.0).item() == pytest.approx(0.5)
    assert advantage_share(advantage, entropy, 0.0).item() == 0.0
    assert advantage_share(torch.zeros(2), entropy, 0.1).item() == 1.0
    assert advantage_share(torch.zeros(2), torch.zeros(2), 0.1).item() == 0.0


@pytest.mark.parametrize(("entropy", "direction"), [(0.2, 1), (3.0, -1)])
def test_descending_the_temperature_loss_moves_tau_towards_the_target(entropy, direction):
    log_tau = torch.tensor(math.log(0.1), requires_grad=True)
    loss, gap = temperature_loss(log_tau, torch.full((5,), entropy), target_entropy=1.0)
    loss.backward()
    assert gap.item() == pytest.approx(entropy - 1.0)
    assert loss.item() == pytest.approx(0.1 * (entropy - 1.0))
    assert -log_tau.grad.sign().item() == direction


def test_the_temperature_loss_does_not_reach_the_policy():
    entropy = torch.tensor([1.0], requires_grad=True)
    temperature_loss(torch.tensor(0.0, requires_grad=True), entropy, 0.5).loss.backward()
    assert entropy.grad is None
