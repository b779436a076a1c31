"""Entropy ratios, balanced clip bounds and what they do to the surrogate, against numbers worked out by hand."""

import pytest
import torch

from maxent_onpolicy.controllers.formulas import candidates
from maxent_onpolicy.estimators import balanced_bounds, clipped_surrogate, entropy_ratio, within


def test_entropy_ratio_of_discrete_actions_is_the_published_one():
    ratio = entropy_ratio(torch.tensor([0.5, 0.0]), torch.tensor([0.4, 0.0]), discrete=True)
    torch.testing.assert_close(ratio, torch.tensor([1.25, 1.0]))


def test_entropy_ratio_of_continuous_actions_is_that_of_volumes():
    """A Gaussian that is twice as wide in one of three dimensions fills twice the volume, in any unit."""
    for unit in (1e-3, 1.0, 1e3):
        narrow = torch.distributions.Normal(torch.zeros(3), unit * torch.ones(3)).entropy().sum()
        wide = torch.distributions.Normal(torch.zeros(3), unit * torch.tensor([2.0, 1.0, 1.0])).entropy().sum()
        assert entropy_ratio(wide, narrow, discrete=False).item() == pytest.approx(2.0, rel=1e-5)


def test_bounds_of_the_entropy_ratio_are_open():
    assert within(torch.tensor([0.5, 0.8, 1.0, 1.25, 2.0]), 0.5, 1.25).tolist() == [False, True, True, False, False]


LOWS, HIGHS = torch.tensor([0.6, 0.7, 0.8]), torch.tensor([1.2, 1.4, 1.6])


@pytest.mark.parametrize(
    ("ratio", "advantage", "target", "expected"),
    [
        # P = 1.2, M = 1.0: balanced at once.
        ([1.5, 1.0], [1.0, -1.0], 0.5, (0.6, 1.2)),
        # P = 1.2, M = 1.3: the lower bound cannot help, and an upper one of 1.4 gives P = 1.4.
        ([1.5, 1.3], [1.0, -1.0], 0.5, (0.8, 1.4)),
        # P grows to 1.5 only, below M = 2.
        ([1.5, 1.0], [1.0, -2.0], 0.5, (0.8, 1.6)),
        # A share of 1/4 is enough: 1.2 ≥ 2/3.
        ([1.5, 1.0], [1.0, -2.0], 0.25, (0.6, 1.2)),
        # No negative advantage: nothing to balance. No positive one: it cannot be balanced.
        ([1.0, 1.0], [1.0, 2.0], 0.9, (0.6, 1.2)),
        ([1.0, 1.0], [-1.0, -2.0], 0.5, (0.8, 1.6)),
        # A negative sample far below the lower bound counts with it: P = 1.2 ≥ M = 2·0.6, if it is exactly balanced.
        ([1.5, 0.1], [1.0, -2.0], 0.5, (0.6, 1.2)),
    ],
)
def test_bounds_move_until_positive_advantages_have_their_share(ratio, advantage, target, expected):
    bounds = balanced_bounds(torch.tensor(ratio), torch.tensor(advantage), LOWS, HIGHS, target)
    assert [bound.item() for bound in bounds] == pytest.approx(expected)


def searched(ratio, advantage, lows, highs, target):
    """The search as a loop."""

    def share(low, high):
        weight = torch.where(advantage >= 0, ratio.clamp(max=high), ratio.clamp(min=low)) * advantage
        return weight.clamp(min=0).sum() / weight.abs().sum()

    low, high = lows[0], highs[0]
    for low in lows:
        if share(low, high) >= target:
            return low, high
    for high in highs[1:]:
        if share(low, high) >= target:
            break
    return low, high


def test_bounds_of_many_minibatches_are_those_of_a_search_in_each():
    torch.manual_seed(0)
    lows, highs = torch.tensor(candidates(0.6, 0.9, 0.05)), torch.tensor(candidates(1.2, 3.0, 0.05))
    ratio, advantage = (0.8 * torch.randn(200, 8)).exp(), torch.randn(200, 8)
    low, high = balanced_bounds(ratio, advantage, lows, highs, 0.5)
    expected = [searched(r, a, lows, highs, 0.5) for r, a in zip(ratio, advantage, strict=True)]
    assert len({tuple(each) for each in expected}) > 20
    assert [(a.item(), b.item()) for a, b in zip(low, high, strict=True)] == [(a.item(), b.item()) for a, b in expected]


def test_asymmetric_clipping():
    ratio = torch.tensor([0.5, 0.7, 1.3, 1.5])
    loss, metrics = clipped_surrogate(ratio.log(), torch.zeros(4), torch.tensor([-1.0, -1.0, 1.0, 1.0]), 0.4, 0.4)
    symmetric, _ = clipped_surrogate(ratio.log(), torch.zeros(4), torch.tensor([-1.0, -1.0, 1.0, 1.0]), 0.4)
    assert loss.item() == symmetric.item()
    assert metrics.clip_fraction.item() == 0.5
    # max(−r·A, −clip(r)·A): 0.6 (clipped at 0.6), 0.7, −1.2, −1.2
    loss, metrics = clipped_surrogate(ratio.log(), torch.zeros(4), torch.tensor([-1.0, -1.0, 1.0, 1.0]), 0.4, 0.2)
    assert loss.item() == pytest.approx((0.6 + 0.7 - 1.2 - 1.2) / 4)
    assert metrics.clip_fraction.item() == 0.75


def test_samples_that_are_not_kept_count_but_have_no_gradient():
    log_prob = torch.zeros(3, requires_grad=True)
    kept = torch.tensor([True, False, True])
    loss, _ = clipped_surrogate(log_prob, torch.zeros(3), torch.tensor([1.0, 2.0, -3.0]), 0.2, kept=kept)
    loss.backward()
    assert loss.item() == 0.0
    torch.testing.assert_close(log_prob.grad, torch.tensor([-1.0, 0.0, 3.0]) / 3)
