"""Each rule against numbers worked out by hand."""

import math

import pytest
import torch

from maxent_onpolicy.controllers.formulas import (
    adaptive_clip_range,
    additive_step,
    candidates,
    entropy_share,
    kl_adaptive_rate,
    log_space_step,
    reward_plateau,
    schedule_value,
)


@pytest.mark.parametrize(
    ("share", "plateau", "expected"),
    [(0.0, 0.0, 0.2), (1.0, 0.0, 0.3), (0.0, 1.0, 0.14), (0.5, 0.5, 0.22), (1.0, 1.0, 0.24)],
)
def test_clip_range_of_ppo_br(share, plateau, expected):
    assert adaptive_clip_range(0.2, share, plateau, 0.5, 0.3, squash=False) == pytest.approx(expected)


def test_clip_range_of_ppo_br_squashes_both_signals():
    # tanh(1) = 0.76159416: 0.2·(1 + 0.5·0.76159416 − 0.3·0.46211716)
    assert adaptive_clip_range(0.2, 1.0, 0.5, 0.5, 0.3) == pytest.approx(0.2484323863)


def test_share_of_the_entropy_stays_between_0_and_1():
    assert [entropy_share(h, 2.0) for h in (-1.0, 0.0, 0.5, 2.0, 3.0)] == [0.0, 0.0, 0.25, 1.0, 1.0]


def test_plateau_is_1_where_returns_stand_still_and_0_where_they_doubled():
    pairs = ((5.0, 5.0), (0.0, 0.0), (5.0, 10.0), (8.0, 10.0), (-10.0, -8.0), (-1.0, 1.0), (0.0, 3.0))
    assert [reward_plateau(*pair) for pair in pairs] == pytest.approx([1, 1, 0.5, 0.8, 0.8, 0, 0])


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(0.021, 2e-4), (0.02, 3e-4), (0.01, 3e-4), (0.005, 3e-4), (0.0049, 4.5e-4), (0.0, 3e-4), (-1e-9, 3e-4)],
)
def test_learning_rate_follows_the_divergence(kl, expected):
    assert kl_adaptive_rate(3e-4, kl, 0.01, 2.0, 1.5, (1e-5, 1e-2)) == pytest.approx(expected)


def test_learning_rate_stays_within_its_bounds():
    assert kl_adaptive_rate(1.2e-5, 1.0, 0.01, 2.0, 1.5, (1e-5, 1e-2)) == 1e-5
    assert kl_adaptive_rate(9e-3, 1e-6, 0.01, 2.0, 1.5, (1e-5, 1e-2)) == 1e-2


def test_dual_step_is_the_gradient_of_the_temperature_loss():
    log_coef = torch.tensor(math.log(0.1), requires_grad=True)
    (log_coef * (0.7 - 0.2)).backward()
    expected = log_coef.item() - 0.02 * log_coef.grad.item()
    assert log_space_step(math.log(0.1), 0.7, 0.2, 0.02, (1e-6, 1.0)) == pytest.approx(expected, rel=1e-6)
    assert log_space_step(math.log(0.9), -50.0, 0.0, 1.0, (1e-6, 1.0)) == 0.0


def test_additive_step():
    assert additive_step(0.1, 0.19, 0.2, 0.005, (0, 1)) == pytest.approx(0.105)
    assert additive_step(0.1, 0.2, 0.2, 0.005, (0, 1)) == pytest.approx(0.095)
    assert additive_step(0.001, 0.5, 0.2, 0.005, (0, 1)) == 0
    assert additive_step(0.999, 0.0, 0.2, 0.005, (0, 1)) == 1


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", (0.4, 0.4, 0.4)),
        ("linear", (0.4, 0.325, 0.1)),
        ("cosine", (0.4, 0.3560660172, 0.1)),  # 0.1 + 0.3·(1 + cos(π/4))/2
        ("exponential", (0.4, 0.2828427125, 0.1)),  # 0.4·(1/4)^(1/4)
    ],
)
def test_schedules(kind, expected):
    assert [schedule_value(kind, 0.4, 0.1, p) for p in (1.0, 0.75, 0.0)] == pytest.approx(expected)
    assert schedule_value(kind, 0.4, 0.1, -0.1) == pytest.approx(expected[-1])
    early = [schedule_value(kind, 0.4, 0.1, p, end_fraction=0.2) for p in (1.0, 0.95, 0.8, 0.5)]
    assert early == pytest.approx([*expected, expected[-1]])


def test_candidates_end_with_the_bound_itself():
    assert list(candidates(0.6, 0.9, 0.1)) == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert list(candidates(0.6, 0.75, 0.1)) == pytest.approx([0.6, 0.7, 0.75])
    assert list(candidates(0.8, 0.8, 0.1)) == [0.8]
    assert len(candidates(1.2, 3.0, 0.05)) == 37
