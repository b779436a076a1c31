"""Losses against hand-worked numbers and torch's own functions."""

import math

import pytest
import torch
from torch.nn import functional as F

from maxent_onpolicy.estimators.losses import (
    clip_value,
    clipped_surrogate,
    entropy_loss,
    explained_variance,
    normalize_advantage,
    value_loss,
)


def test_normalised_advantage_has_zero_mean_and_unit_deviation():
    normalised = normalize_advantage(torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(normalised, torch.tensor([-1.0, 0.0, 1.0]))


def test_a_single_advantage_is_left_alone():
    assert normalize_advantage(torch.tensor([5.0])).tolist() == [5.0]


def test_golden_clipped_surrogate():
    # Ratios 1.5, 0.5, 1.0 with ε = 0.2. A > 0 at 1.5 is clipped to 1.2; A > 0 at 0.5 stays 0.5 (the minimum).
    ratio = torch.tensor([1.5, 0.5, 1.0])
    loss, metrics = clipped_surrogate(ratio.log(), torch.zeros(3), torch.tensor([1.0, 2.0, -3.0]), 0.2)
    assert loss.item() == pytest.approx(-(1.2 + 1.0 - 3.0) / 3)
    assert metrics.clip_fraction.item() == pytest.approx(2 / 3)
    expected_kl = ((0.5 - math.log(1.5)) + (-0.5 - math.log(0.5)) + 0) / 3
    assert metrics.approx_kl.item() == pytest.approx(expected_kl)


def test_negative_advantages_are_clipped_from_below_only():
    # A < 0: at ratio 0.5 the clipped 0.8·A is the smaller one; at 1.5 the unclipped.
    loss, _ = clipped_surrogate(torch.tensor([0.5, 1.5]).log(), torch.zeros(2), torch.tensor([-1.0, -1.0]), 0.2)
    assert loss.item() == pytest.approx((0.8 + 1.5) / 2)


def test_the_surrogates_gradient_vanishes_where_it_is_clipped():
    log_prob = torch.tensor([math.log(1.5), 0.0], requires_grad=True)
    clipped_surrogate(log_prob, torch.zeros(2), torch.tensor([1.0, 1.0]), 0.2)[0].backward()
    assert log_prob.grad[0].item() == 0.0
    assert log_prob.grad[1].item() == pytest.approx(-0.5)


def test_identical_policies_have_no_divergence():
    log_prob = torch.randn(10)
    _, metrics = clipped_surrogate(log_prob, log_prob, torch.randn(10), 0.2)
    assert metrics.approx_kl.item() == 0.0
    assert metrics.clip_fraction.item() == 0.0


def test_value_loss_is_the_mean_squared_error_in_units_of_the_targets():
    value, target = torch.randn(8), torch.randn(8)
    torch.testing.assert_close(value_loss(value, target), F.mse_loss(value, target))
    torch.testing.assert_close(value_loss(value, target, torch.tensor(2.0)), F.mse_loss(value / 2, target / 2))


def test_clipped_values_stay_near_the_old_ones():
    clipped = clip_value(torch.tensor([0.0, 1.0, 5.0]), torch.tensor([1.0, 1.0, 1.0]), 0.5)
    assert clipped.tolist() == [0.5, 1.0, 1.5]


def test_entropy_loss_falls_back_to_log_probabilities():
    log_prob, entropy = torch.tensor([-1.0, -3.0]), torch.tensor([0.5, 1.5])
    assert entropy_loss(log_prob, entropy).item() == -1.0
    assert entropy_loss(log_prob, None).item() == -2.0


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [([1.0, 2.0, 3.0], 1.0), ([2.0, 2.0, 2.0], 0.0), ([11.0, 12.0, 13.0], 1.0), ([3.0, 2.0, 1.0], -3.0)],
)
def test_explained_variance(prediction, expected):
    assert explained_variance(torch.tensor(prediction), torch.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(expected)


def test_explained_variance_of_a_constant_target_is_undefined():
    assert math.isnan(explained_variance(torch.randn(4), torch.ones(4)).item())
