"""Running moments and PopArt as functions of their state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maxent_onpolicy.estimators.normalisation import (
    PopArtState,
    RunningMoments,
    popart_moments,
    popart_rescale,
    popart_update,
    running_moments_update,
)


def nothing_seen() -> PopArtState:
    return PopArtState(*(torch.zeros((), dtype=torch.float64) for _ in range(3)))


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 30), offset=st.floats(-1e3, 1e3))
def test_running_moments_do_not_depend_on_how_samples_are_batched(seed, cut, offset):
    samples = offset + torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    zero = torch.zeros(2, dtype=torch.float64)
    state = RunningMoments(zero, zero, torch.tensor(0.0, dtype=torch.float64))
    for batch in (samples[:cut], samples[cut:]):
        state = running_moments_update(state, batch)
    torch.testing.assert_close(state.mean, samples.mean(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state.var, samples.var(0, unbiased=False), rtol=1e-6, atol=1e-9)
    assert state.count == 30


def test_an_empty_batch_changes_nothing():
    state = RunningMoments(torch.zeros(2), torch.ones(2), torch.tensor(1e-4))
    assert running_moments_update(state, torch.empty(0, 2)) is state


def test_before_the_first_update_popart_is_the_identity():
    mean, std = popart_moments(nothing_seen())
    assert (mean.item(), std.item()) == (0.0, 1.0)


def test_the_first_update_takes_the_batchs_own_moments():
    target = torch.tensor([2.0, 4.0, 9.0], dtype=torch.float64)
    mean, std = popart_moments(popart_update(nothing_seen(), target, beta=0.03))
    assert mean.item() == pytest.approx(5.0)
    assert std.item() == pytest.approx(target.std(unbiased=False).item())


def test_debiased_moments_are_the_weighted_average_of_all_batches():
    beta, batches = 0.1, [torch.tensor([1.0, 3.0]), torch.tensor([10.0, 20.0]), torch.tensor([-4.0, 0.0])]
    state = nothing_seen()
    for batch in batches:
        state = popart_update(state, batch, beta)
    weights = [beta * (1 - beta) ** (2 - i) for i in range(3)]
    mean = sum(w * b.mean().item() for w, b in zip(weights, batches, strict=True)) / sum(weights)
    square = sum(w * b.square().mean().item() for w, b in zip(weights, batches, strict=True)) / sum(weights)
    got_mean, got_std = popart_moments(state)
    assert got_mean.item() == pytest.approx(mean)
    assert got_std.item() == pytest.approx((square - mean**2) ** 0.5)


def test_constant_targets_do_not_blow_up_the_head():
    _, std = popart_moments(popart_update(nothing_seen(), torch.full((5,), 7.0), beta=0.5), min_std=1e-2)
    assert std.item() == pytest.approx(1e-2)


@settings(max_examples=50)
@given(
    old_mean=st.floats(-100, 100),
    old_std=st.floats(0.01, 100),
    new_mean=st.floats(-100, 100),
    new_std=st.floats(0.01, 100),
    seed=st.integers(0, 1000),
)
def test_rescaling_preserves_the_output(old_mean, old_std, new_mean, new_std, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    bias = torch.randn(1, generator=generator, dtype=torch.float64)
    features = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    old = (torch.tensor(old_mean), torch.tensor(old_std))
    new = (torch.tensor(new_mean), torch.tensor(new_std))
    old, new = tuple(x.double() for x in old), tuple(x.double() for x in new)
    before = old[1] * (features @ weight.T + bias) + old[0]
    weight, bias = popart_rescale(weight, bias, old, new)
    after = new[1] * (features @ weight.T + bias) + new[0]
    torch.testing.assert_close(before, after, rtol=1e-8, atol=1e-8)
