"""GAE against hand-worked arrays, its limiting cases and an independent implementation."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer as SB3RolloutBuffer

from maxent_onpolicy.estimators.advantages import gae, successor_values


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def flags(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool).unsqueeze(1)


def random_rollout(seed: int, steps: int = 12, envs: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    terminated = torch.rand(steps, envs, generator=generator) < 0.15
    truncated = (torch.rand(steps, envs, generator=generator) < 0.15) & ~terminated
    normal = lambda: torch.randn(steps, envs, generator=generator, dtype=torch.float64)  # noqa: E731
    return {
        "reward": normal(),
        "value": normal(),
        "next_value": normal(),
        "terminated": terminated,
        "done": terminated | truncated,
    }


def test_golden_values_without_an_episode_end():
    # γ = 0.5, λ = 0.5: δ = r + 0.5·V' − V = [1.5, 3, 2]; A_2 = 2, A_1 = 3 + 0.25·2, A_0 = 1.5 + 0.25·3.5.
    advantage, target = gae(
        reward=column(1, 2, 3),
        value=column(0.5, 2, 3),
        next_value=column(2, 6, 4),
        terminated=flags(0, 0, 0),
        done=flags(0, 0, 0),
        gamma=0.5,
        gae_lambda=0.5,
    )
    torch.testing.assert_close(advantage, column(2.375, 3.5, 2.0))
    torch.testing.assert_close(target, column(2.875, 5.5, 5.0))


def test_golden_values_at_termination_and_truncation():
    # Step 1 terminates: δ_1 = 2 − 2 = 0 ignores V'. Step 3 is cut off: δ_3 = 1 + 0.5·8 − 1 = 4 keeps V' = 8,
    # and takes nothing from step 4, which belongs to the next episode.
    advantage, _ = gae(
        reward=column(1, 2, 0, 1, 5),
        value=column(0, 2, 1, 1, 1),
        next_value=column(2, 100, 1, 8, 2),
        terminated=flags(0, 1, 0, 0, 0),
        done=flags(0, 1, 0, 1, 0),
        gamma=0.5,
        gae_lambda=0.5,
    )
    # δ = [2, 0, −0.5, 4, 5]; A = [2 + 0.25·0, 0, −0.5 + 0.25·4, 4, 5].
    torch.testing.assert_close(advantage, column(2.0, 0.0, 0.5, 4.0, 5.0))


@pytest.mark.parametrize("seed", range(3))
def test_lambda_zero_is_the_td_error(seed):
    data = random_rollout(seed)
    advantage, target = gae(**data, gamma=0.9, gae_lambda=0.0)
    expected = data["reward"] + 0.9 * data["next_value"] * ~data["terminated"]
    torch.testing.assert_close(target, expected)
    torch.testing.assert_close(advantage, expected - data["value"])


@pytest.mark.parametrize("seed", range(3))
def test_lambda_one_is_monte_carlo(seed):
    data = random_rollout(seed)
    # In a real rollout the successor's value is the next step's, inside an episode.
    inside = ~data["done"][:-1]
    data["next_value"][:-1] = torch.where(inside, data["value"][1:], data["next_value"][:-1])
    _, target = gae(**data, gamma=0.9, gae_lambda=1.0)
    steps, envs = data["reward"].shape
    for env in range(envs):
        for start in range(steps):
            discounted, discount = 0.0, 1.0
            for step in range(start, steps):
                discounted += discount * data["reward"][step, env].item()
                discount *= 0.9
                if data["done"][step, env] or step == steps - 1:
                    if not data["terminated"][step, env]:
                        discounted += discount * data["next_value"][step, env].item()
                    break
            assert target[start, env].item() == pytest.approx(discounted)


def test_equals_sb3s_buffer_bit_for_bit():
    steps, envs = 40, 4
    generator = np.random.default_rng(0)
    space = spaces.Box(-1, 1, (2,), np.float32)
    theirs = SB3RolloutBuffer(steps, space, space, gae_lambda=0.95, gamma=0.99, n_envs=envs)
    theirs.rewards = generator.normal(size=(steps, envs)).astype(np.float32)
    theirs.values = generator.normal(size=(steps, envs)).astype(np.float32)
    done = generator.random((steps, envs)) < 0.1
    theirs.episode_starts[1:] = done[:-1]
    last_value = torch.as_tensor(generator.normal(size=envs).astype(np.float32))
    theirs.compute_returns_and_advantage(last_value, done[-1])

    value = torch.as_tensor(theirs.values)
    empty = torch.empty(0, dtype=torch.int64)
    next_value = successor_values(value, last_value, torch.empty(0), empty, empty)
    flags = torch.as_tensor(done)
    advantage, target = gae(torch.as_tensor(theirs.rewards), value, next_value, flags, flags, 0.99, 0.95)
    np.testing.assert_array_equal(advantage.numpy(), theirs.advantages)
    np.testing.assert_array_equal(target.numpy(), theirs.returns)


def test_perfect_critic_has_no_advantage():
    # Reward 1 for ever: V = 1/(1 − γ) at every state, truncated or not.
    value = torch.full((10, 2), 1 / (1 - 0.9), dtype=torch.float64)
    done = torch.zeros(10, 2, dtype=torch.bool)
    done[4] = True
    advantage, _ = gae(torch.ones_like(value), value, value, torch.zeros_like(done), done, 0.9, 0.95)
    torch.testing.assert_close(advantage, torch.zeros_like(value))


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    scale=st.floats(-5, 5),
)
def test_is_linear_in_rewards_and_values(seed, gamma, gae_lambda, scale):
    first, second = random_rollout(seed), random_rollout(seed + 1)
    flags = {name: first[name] for name in ("terminated", "done")}
    mixed = {name: first[name] + scale * second[name] for name in ("reward", "value", "next_value")}
    one, two, both = (
        gae(**{**data, **flags}, gamma=gamma, gae_lambda=gae_lambda).advantage for data in (first, second, mixed)
    )
    torch.testing.assert_close(both, one + scale * two)


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), step=st.integers(0, 11))
def test_an_episode_end_cuts_the_past_from_the_future(seed, step):
    data = random_rollout(seed)
    data["done"][step] = True
    before = gae(**data, gamma=0.9, gae_lambda=0.8).advantage[: step + 1]
    data["reward"][step + 1 :] += 10.0
    data["value"][step + 1 :] -= 3.0
    after = gae(**data, gamma=0.9, gae_lambda=0.8).advantage[: step + 1]
    torch.testing.assert_close(before, after)


def test_successor_values_use_the_true_final_observation():
    value = torch.arange(6.0).reshape(3, 2)
    next_value = successor_values(
        value,
        last_value=torch.tensor([10.0, 11.0]),
        final_value=torch.tensor([-1.0, -2.0]),
        final_step=torch.tensor([0, 2]),
        final_index=torch.tensor([1, 0]),
    )
    assert next_value.tolist() == [[2.0, -1.0], [4.0, 5.0], [-2.0, 11.0]]
    assert value.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_shapes_must_agree():
    data = random_rollout(0)
    data["value"] = data["value"][:-1]
    with pytest.raises(ValueError, match=r"one shape \[T, B\].*'value': \(11, 3\)"):
        gae(**data, gamma=0.9, gae_lambda=0.9)
