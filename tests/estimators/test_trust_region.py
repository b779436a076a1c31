"""Trust-region mathematics against hand-worked numbers, identities and torch's own functions."""

import math

import pytest
import torch
from torch import distributions

from maxent_onpolicy.estimators.trust_region import (
    backtracking_line_search,
    bernoulli_kl,
    beta_kl,
    categorical_kl,
    conjugate_gradient,
    flat_gradient,
    gaussian_kl,
    hessian_vector_product,
    mean_kl,
    step_length,
)


def positive_definite(size, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=dtype)
    return root @ root.T + torch.eye(size, dtype=dtype), torch.randn(size, generator=generator, dtype=dtype)


def test_conjugate_gradients_solve_what_the_direct_solver_solves():
    matrix, target = positive_definite(12)
    expected = torch.linalg.solve(matrix, target)
    torch.testing.assert_close(conjugate_gradient(matrix, target, 50, 1e-20), expected)
    torch.testing.assert_close(conjugate_gradient(lambda v: matrix @ v, target, 50, 1e-20), expected)
    start = torch.ones_like(target)
    torch.testing.assert_close(conjugate_gradient(matrix, target, 50, 1e-20, start), expected)
    assert start.eq(1).all()


def test_as_many_steps_as_dimensions_are_enough():
    matrix, target = positive_definite(6, seed=3)
    torch.testing.assert_close(conjugate_gradient(matrix, target, 6), torch.linalg.solve(matrix, target))


def test_the_first_step_of_conjugate_gradients_is_the_steepest_descents():
    # A = diag(1, 3), b = (1, 1): α = bᵀb/bᵀAb = 2/4.
    result = conjugate_gradient(torch.diag(torch.tensor([1.0, 3.0])), torch.ones(2), max_steps=1)
    assert result.tolist() == [0.5, 0.5]


def test_the_solver_stops_at_its_tolerance():
    matrix, target = positive_definite(20, seed=1)
    products = []

    def product(vector):
        products.append(vector)
        return matrix @ vector

    loose = conjugate_gradient(product, target, 100, tolerance=1e-2)
    n_loose = len(products)
    residual = target - matrix @ loose
    assert residual.square().sum() < 1e-2
    tight = conjugate_gradient(product, target, 100, tolerance=1e-18)
    assert len(products) - n_loose > n_loose
    assert (target - matrix @ tight).norm() < 1e-2 * residual.norm()


def test_a_zero_target_is_solved_without_a_step():
    assert conjugate_gradient(torch.eye(3), torch.zeros(3)).tolist() == [0, 0, 0]


def test_products_with_the_hessian_are_those_of_the_whole_matrix():
    torch.manual_seed(0)
    x, direction = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)

    def function(parameters):
        return (parameters.sin() * parameters.roll(1)).sum() + parameters.prod()

    pieces = [x[:2].clone().requires_grad_(), x[2:].clone().requires_grad_()]
    gradient = flat_gradient(function(torch.cat(pieces)), pieces, create_graph=True)
    expected = torch.autograd.functional.hessian(function, x)
    torch.testing.assert_close(gradient.detach(), torch.autograd.functional.jacobian(function, x))
    for _ in range(2):  # the graph is kept
        torch.testing.assert_close(hessian_vector_product(gradient, pieces, direction), expected @ direction)


def test_what_an_output_does_not_depend_on_has_a_gradient_of_zero():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, 1, requires_grad=True)
    assert flat_gradient((2 * used).sum(), [unused, used]).tolist() == [0, 0, 0, 2, 2]


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def gaussian():
    return draw(7, 3), draw(7, 3).exp()


def categorical():
    return (draw(7, 4).log_softmax(-1),)


def bernoulli():
    return (draw(7, 3),)


def beta():
    return 1 + draw(7, 3).exp(), 1 + draw(7, 3).exp()


FAMILIES = {
    "gaussian": (gaussian_kl, gaussian, distributions.Normal),
    "categorical": (categorical_kl, categorical, lambda logits: distributions.Categorical(logits=logits)),
    "bernoulli": (bernoulli_kl, bernoulli, lambda logits: distributions.Bernoulli(logits=logits)),
    "beta": (beta_kl, beta, distributions.Beta),
}


@pytest.mark.parametrize(("kl", "parameters", "family"), FAMILIES.values(), ids=FAMILIES)
def test_divergences_are_torchs(kl, parameters, family):
    torch.manual_seed(0)
    new, old = parameters(), parameters()
    torch.testing.assert_close(kl(*new, *old), distributions.kl_divergence(family(*new), family(*old)))
    torch.testing.assert_close(kl(*new, *new), torch.zeros_like(kl(*new, *new)), atol=1e-12, rtol=0)
    assert (kl(*new, *old) > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_where_both_are_the_same_the_hessian_is_the_fisher_information(family):
    """``E[∇log p ∇log pᵀ]`` over samples, to Monte-Carlo accuracy."""
    kl, parameters, make = FAMILIES[family]
    torch.manual_seed(1)
    old = [part[0] for part in parameters()]
    sizes = [part.numel() for part in old]

    def split(flat):
        parts = flat.split(sizes, dim=-1)
        return [part.log_softmax(-1) for part in parts] if family == "categorical" else parts

    flat = torch.cat(old)
    hessian = torch.autograd.functional.hessian(lambda x: kl(*split(x), *old).sum(), flat)
    rows = flat.expand(100_000, -1).clone().requires_grad_()
    action = make(*split(flat.expand(100_000, -1))).sample()
    (scores,) = torch.autograd.grad(make(*split(rows)).log_prob(action).sum(), rows)
    torch.testing.assert_close(hessian, scores.T @ scores / len(rows), atol=0.05 * hessian.abs().max().item(), rtol=0)


def test_golden_divergences():
    # Unit Gaussians a distance of 2 apart: 2²/2. σ = 2 against 1: (4 − 1 − log 4)/2.
    one, zero = torch.ones(1), torch.zeros(1)
    assert gaussian_kl(2 * one, one, zero, one).item() == pytest.approx(2.0)
    assert gaussian_kl(zero, 2 * one, zero, one).item() == pytest.approx((3 - math.log(4)) / 2)
    fair, biased = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.75, 0.25]).log()
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert categorical_kl(biased, fair).item() == pytest.approx(expected)
    assert bernoulli_kl(torch.tensor(math.log(3.0)), torch.tensor(0.0)).item() == pytest.approx(expected)


def test_a_choice_that_is_impossible_in_both_counts_nothing():
    new, old = torch.tensor([0.0, -torch.inf]), torch.tensor([0.0, -torch.inf])
    assert categorical_kl(new, old).item() == 0


def test_dimensions_are_averaged_or_added_up():
    kl = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert mean_kl(kl, "mean").item() == 3
    assert mean_kl(kl, "sum").item() == 6
    assert mean_kl(kl[:, 0], "sum").item() == mean_kl(kl[:, 0], "mean").item() == 2


def test_the_full_step_uses_up_the_quadratic_trust_region():
    matrix, direction = positive_definite(4, seed=2)
    curvature = float(direction @ matrix @ direction)
    step = step_length(curvature, 0.02) * direction
    assert float(0.5 * step @ matrix @ step) == pytest.approx(0.02)


@pytest.mark.parametrize("curvature", [0.0, -1.0, float("nan"), float("inf")])
def test_without_curvature_there_is_no_step(curvature):
    assert step_length(curvature, 0.01) == 0


def test_the_line_search_takes_the_first_fraction_that_meets_both_conditions():
    tried = []

    def evaluate(fraction):
        tried.append(fraction)
        return 2 * fraction, fraction**2

    found = backtracking_line_search(evaluate, objective=0.1, max_kl=0.2, shrink=0.5, max_tries=10)
    assert tried == [1.0, 0.5, 0.25]
    assert found == (True, 0.25, 0.5, 0.0625, 3)


@pytest.mark.parametrize(
    "reached", [(1.0, 0.5), (0.0, 0.1), (-1.0, 0.1), (float("nan"), 0.1), (1.0, float("nan")), (1.0, 0.2)]
)
def test_a_step_that_never_meets_the_conditions_is_refused(reached):
    found = backtracking_line_search(lambda _: reached, objective=0.0, max_kl=0.2, shrink=0.8, max_tries=3)
    assert found == (False, 0.0, 0.0, 0.0, 3)
