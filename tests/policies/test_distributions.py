"""Action distributions against numerical integration, sampling and independent implementations."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from maxent_onpolicy.policies.distributions import (
    BetaDistribution,
    BoxDistribution,
    GaussianDistribution,
    TanhGaussianDistribution,
    make_box_distribution,
)

BOX = spaces.Box(-2.0, 2.0, (2,), np.float32)


def build(kind: str, parameters: torch.Tensor, log_std: torch.Tensor | None = None) -> BoxDistribution:
    if kind == "beta":
        return BetaDistribution(1).proba_distribution(parameters)
    cls = TanhGaussianDistribution if kind == "tanh_gaussian" else GaussianDistribution
    return cls(1).proba_distribution(parameters, log_std)


CASES = [
    ("gaussian", torch.tensor([[0.3]]), torch.tensor([-0.5])),
    ("tanh_gaussian", torch.tensor([[0.3]]), torch.tensor([-0.5])),
    ("tanh_gaussian", torch.tensor([[-1.2]]), torch.tensor([0.3])),
    ("beta", torch.tensor([[0.7, -0.4]]), None),
    ("beta", torch.tensor([[3.0, 1.0]]), None),
]


@pytest.mark.parametrize(("kind", "parameters", "log_std"), CASES)
def test_densities_integrate_to_one(kind, parameters, log_std):
    # The substitution a = tanh(u) resolves the squashed densities' steep ends.
    u = torch.linspace(-7, 7, 200_001, dtype=torch.float64)
    actions, jacobian = (u, torch.ones_like(u)) if kind == "gaussian" else (torch.tanh(u), 1 - torch.tanh(u) ** 2)
    distribution = build(kind, parameters.double(), None if log_std is None else log_std.double())
    density = distribution.log_prob(actions.unsqueeze(1)).exp() * jacobian
    assert torch.trapezoid(density, u).item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("kind", "parameters", "log_std"), CASES)
def test_mean_log_prob_of_samples_is_the_integrated_entropy(kind, parameters, log_std):
    torch.manual_seed(0)
    u = torch.linspace(-7, 7, 200_001, dtype=torch.float64)
    actions, jacobian = (u, torch.ones_like(u)) if kind == "gaussian" else (torch.tanh(u), 1 - torch.tanh(u) ** 2)
    exact = build(kind, parameters.double(), None if log_std is None else log_std.double())
    log_prob = exact.log_prob(actions.unsqueeze(1))
    integrated = -torch.trapezoid(log_prob.exp() * log_prob * jacobian, u).item()

    sampled = build(kind, parameters.expand(100_000, -1), log_std)
    estimate = -sampled.log_prob(sampled.sample())
    assert estimate.mean().item() == pytest.approx(integrated, abs=4 * estimate.std().item() / 100_000**0.5)
    closed_form = exact.entropy()
    if kind == "tanh_gaussian":
        assert closed_form is None
    else:
        assert closed_form.item() == pytest.approx(integrated, abs=1e-4)


def test_the_tanh_correction_equals_torchs_transformed_distribution():
    mean, log_std = torch.randn(50, 3), torch.randn(3) * 0.3
    ours = TanhGaussianDistribution(3).proba_distribution(mean, log_std)
    theirs = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp().expand_as(mean)), torch.distributions.transforms.TanhTransform()
    )
    actions = torch.tanh(mean + 0.3 * torch.randn(50, 3)).clamp(-0.999, 0.999)
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions).sum(1), rtol=1e-3, atol=1e-3)


def test_saturated_samples_keep_their_log_probability_when_stored():
    torch.manual_seed(0)
    distribution = TanhGaussianDistribution(1).proba_distribution(torch.full((10_000, 1), 6.0), torch.tensor([1.5]))
    actions = distribution.sample()
    stored = torch.as_tensor(actions.numpy().astype(np.float32))
    assert (stored.abs() < 1).all()
    log_prob = distribution.log_prob(stored)
    assert log_prob.isfinite().all()
    torch.testing.assert_close(log_prob, distribution.log_prob(actions), rtol=0, atol=0)


def test_bounded_distributions_cannot_leave_the_interval():
    torch.manual_seed(0)
    beta = BetaDistribution(2).proba_distribution(20 * torch.randn(5_000, 4))
    tanh = TanhGaussianDistribution(2).proba_distribution(20 * torch.randn(5_000, 2), torch.tensor([2.0, 2.0]))
    for distribution in (beta, tanh):
        for action in (distribution.sample(), distribution.mode()):
            assert (action.abs() <= 1).all()
        assert distribution.log_prob(distribution.sample()).isfinite().all()


def test_betas_mode_and_deviation():
    # Concentrations (3, 2): mode 2/3 on [0, 1], deviation sqrt(6/(25·6)) there.
    inverse_softplus = [math.log(math.expm1(value - 1)) for value in (3.0, 2.0)]
    beta = BetaDistribution(1).proba_distribution(torch.tensor([inverse_softplus]))
    assert beta.mode().item() == pytest.approx(2 * 2 / 3 - 1, abs=1e-5)
    assert beta.stddev().item() == pytest.approx(2 * math.sqrt(6 / (25 * 6)), abs=1e-5)


def test_bounds_on_the_log_deviation_hold_and_keep_a_gradient():
    bounds = (-3.0, 0.5)
    raw = torch.tensor([-8.0, 0.0, 8.0], requires_grad=True)
    distribution = GaussianDistribution(3, log_std_bounds=bounds).proba_distribution(torch.zeros(4, 3), raw)
    log_std = distribution.stddev().log()
    assert (log_std >= bounds[0]).all()
    assert (log_std <= bounds[1]).all()
    log_std.sum().backward()
    assert (raw.grad > 0).all()


@pytest.mark.parametrize("log_std", [-2.5, -1.0, 0.0])
def test_the_initial_deviation_is_met_inside_the_bounds(log_std):
    distribution = GaussianDistribution(1, log_std_bounds=(-3.0, 0.5))
    raw = torch.tensor([distribution.raw_log_std(log_std)])
    assert distribution.bound(raw).item() == pytest.approx(log_std, abs=1e-5)


def test_state_dependent_deviation_differs_between_states():
    distribution = GaussianDistribution(2, state_dependent_std=True)
    distribution.proba_distribution(torch.tensor([[0.0, 0.0, -1.0, 1.0], [0.0, 0.0, 0.0, 2.0]]))
    torch.testing.assert_close(distribution.stddev().log(), torch.tensor([[-1.0, 1.0], [0.0, 2.0]]))


@pytest.mark.parametrize(
    ("space", "kwargs", "message"),
    [
        (BOX, {"action_distribution": "betta"}, r"`action_distribution` must be one of .*'betta'.*did you mean 'beta'"),
        (BOX, {"action_distribution": "beta", "state_dependent_std": True}, "do not apply to `action_distribution='be"),
        (BOX, {"log_std_bounds": (1.0, -1.0)}, r"`log_std_bounds\[1\]` must be in \(1, inf\), got -1.0"),
        (spaces.Discrete(3), {"action_distribution": "beta"}, r"continuous actions.*Discrete\(3\)"),
    ],
)
def test_contradictory_options_are_rejected(space, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_box_distribution(space, **kwargs)


def test_sb3_serves_what_needs_nothing_of_ours():
    assert make_box_distribution(BOX) is None
    assert make_box_distribution(spaces.Discrete(3)) is None


@pytest.mark.parametrize("std", [0.05, 1.0, 3.0])
def test_a_saturated_tanh_gaussian_has_little_entropy(std):
    """However far outside its mean is: all actions are one float32, whose density is about 1/ε."""
    for mean in (12.0 + 6 * std, 100.0, -1e4):
        parameters = torch.full((1000, 1), mean, requires_grad=True)
        distribution = TanhGaussianDistribution(1).proba_distribution(parameters, torch.tensor([math.log(std)]))
        log_prob = distribution.log_prob(distribution.sample().detach())
        torch.testing.assert_close(log_prob, torch.full((1000,), -math.log(1.25 * torch.finfo(torch.float32).eps)))
        # What cannot change the action cannot change its probability.
        (gradient,) = torch.autograd.grad(log_prob.sum(), parameters)
        assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("mean", [0.0, 5.0, 7.0, -8.0, 9.0, 12.0])
def test_a_tanh_gaussians_score_is_zero_on_average_up_to_the_bounds(mean):
    """E[∂ log π/∂ mean] = 0, which a density that ignores the rounding of samples violates: by 0.8 for a mean of 9."""
    torch.manual_seed(0)
    parameters = torch.full((200_000, 1), mean, requires_grad=True)
    distribution = TanhGaussianDistribution(1).proba_distribution(parameters, torch.zeros(1))
    log_prob = distribution.log_prob(distribution.sample().detach())
    (score,) = torch.autograd.grad(log_prob.sum(), parameters)
    assert abs(score.mean().item()) < 0.01
