"""Log-probability and entropy of tokens: equal to a plain softmax, in bounded memory."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maxent_onpolicy.llm.entropy import (
    TokenStatistics,
    statistics_from_hidden,
    statistics_from_logits,
    token_entropy_reward,
)


class Sizes(TorchDispatchMode):
    """Records how many numbers each new tensor holds."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.seen += [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return result


def plain(logits, token, temperature=1.0):
    log_prob = (logits / temperature).log_softmax(-1)
    chosen = log_prob.gather(-1, token.unsqueeze(-1)).squeeze(-1)
    return TokenStatistics(chosen, -(log_prob.exp() * log_prob).sum(-1))


def head(batch=(3, 5), width=4, vocabulary=11, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((*batch, width), (vocabulary, width), (vocabulary,))
    )
    return hidden, weight, bias, torch.randint(vocabulary, batch, generator=generator)


def gradients(statistics, inputs):
    weights = torch.arange(1.0, 1 + statistics.entropy.numel(), dtype=statistics.entropy.dtype)
    weights = weights.view(statistics.entropy.shape)
    loss = (weights * statistics.log_prob).sum() + (weights.cos() * statistics.entropy).sum()
    return torch.autograd.grad(loss, inputs)


def test_two_tokens_by_hand():
    # π = (3/4, 1/4) in the first row; the second row is uniform, whatever its level.
    logits = torch.tensor([[math.log(3.0), 0.0], [7.0, 7.0]])
    log_prob, entropy = statistics_from_logits(logits, torch.tensor([1, 0]))
    torch.testing.assert_close(log_prob, torch.tensor([math.log(0.25), math.log(0.5)]))
    torch.testing.assert_close(entropy, torch.tensor([2 * math.log(2) - 0.75 * math.log(3), math.log(2)]))


@pytest.mark.parametrize("chunk", [1, 4, 15, 100])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_equal_to_the_plain_softmax_with_gradients(chunk, temperature):
    hidden, weight, bias, token = head()
    inputs = (hidden, weight, bias)
    wanted = plain(hidden @ weight.T + bias, token, temperature)
    found = statistics_from_hidden(hidden, weight, token, bias, temperature=temperature, chunk=chunk)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradients(found, inputs), gradients(wanted, inputs))

    logits = (hidden @ weight.T + bias).detach().requires_grad_()
    found = statistics_from_logits(logits, token, temperature=temperature, chunk=chunk)
    torch.testing.assert_close(found, wanted)
    wanted = plain(logits, token, temperature)
    torch.testing.assert_close(gradients(found, (logits,)), gradients(wanted, (logits,)))


def test_gradients_agree_with_finite_differences():
    hidden, weight, bias, token = head(batch=(5,), vocabulary=6)
    assert torch.autograd.gradcheck(
        lambda h, w, b: tuple(statistics_from_hidden(h, w, token, b, temperature=0.7, chunk=2)), (hidden, weight, bias)
    )
    logits = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: tuple(statistics_from_logits(z, token, chunk=2)), (logits,))


def test_only_one_of_the_results_may_have_a_gradient():
    hidden, weight, _, token = head()
    wanted = plain(hidden @ weight.T, token)
    found = statistics_from_hidden(hidden, weight, token, chunk=4)
    for name in ("log_prob", "entropy"):
        ours, theirs = (
            torch.autograd.grad(getattr(x, name).sum(), (hidden, weight), retain_graph=True) for x in (found, wanted)
        )
        torch.testing.assert_close(ours, theirs)


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, _, token = head()
    weight = weight.detach()
    statistics_from_hidden(hidden, weight, token).entropy.sum().backward()
    wanted = torch.autograd.grad(plain(hidden @ weight.T, token).entropy.sum(), hidden)[0]
    torch.testing.assert_close(hidden.grad, wanted)
    assert weight.grad is None


def test_no_tensor_is_larger_than_a_chunk_of_logits():
    rows, width, vocabulary, chunk = 90, 4, 100, 8
    hidden, weight, bias, token = head((3, 30), width, vocabulary, torch.float32)
    with Sizes() as sizes:
        result = statistics_from_hidden(hidden, weight, token, bias, chunk=chunk)
        forward = max(sizes.seen)
        (result.log_prob.sum() + result.entropy.sum()).backward()
    assert max(forward, *sizes.seen) == chunk * vocabulary
    assert chunk * vocabulary > max(rows * width, vocabulary * width)  # so no input was taken for the logits

    with Sizes() as sizes:
        plain(hidden @ weight.T + bias, token)
    assert max(sizes.seen) == rows * vocabulary  # what the recorder sees of the plain way


def test_given_logits_are_only_followed_by_their_own_gradient():
    rows, vocabulary, chunk = 90, 100, 8
    logits = torch.randn(3, 30, vocabulary, dtype=torch.bfloat16).requires_grad_()
    flat = logits.view(rows, vocabulary)
    with Sizes() as sizes:
        result = statistics_from_logits(flat, torch.zeros(rows, dtype=torch.long), chunk=chunk)
    assert [size for size in sizes.seen if size > chunk * vocabulary] == [rows * vocabulary]  # a view, [N, V] as [N, V]
    with Sizes() as sizes:
        (gradient,) = torch.autograd.grad(result.log_prob.sum() + result.entropy.sum(), flat)
    assert gradient.dtype == torch.bfloat16
    assert {size for size in sizes.seen if size > chunk * vocabulary} == {rows * vocabulary}


@pytest.mark.parametrize("source", ["hidden", "logits"])
def test_rows_outside_of_the_mask_are_zero_whatever_they_hold(source):
    hidden, weight, _, token = head()
    mask = torch.rand(token.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    assert 0 < mask.sum() < mask.numel()
    wanted = plain(hidden @ weight.T, token)
    spoiled, token = hidden.detach().clone(), torch.where(mask, token, -100)
    spoiled[~mask] = math.nan
    rows = (spoiled if source == "hidden" else spoiled @ weight.detach().T).requires_grad_()
    if source == "hidden":
        found = statistics_from_hidden(rows, weight, token, mask=mask, chunk=2)
    else:
        found = statistics_from_logits(rows, token, mask=mask, chunk=2)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, torch.where(mask, theirs, 0.0))
    (gradient,) = torch.autograd.grad(found.log_prob.sum() + found.entropy.sum(), rows)
    assert torch.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).any()


def test_a_mask_without_tokens_gives_zeros():
    hidden, weight, _, token = head()
    found = statistics_from_hidden(hidden, weight, token, mask=torch.zeros_like(token, dtype=torch.bool))
    assert not any(result.any() for result in found)
    assert not any(gradient.any() for gradient in gradients(found, (hidden, weight)))


def test_tokens_that_were_ruled_out_have_no_probability():
    logits = torch.tensor([[1.0, 2.0, -math.inf], [0.0, -math.inf, -math.inf]]).requires_grad_()
    found = statistics_from_logits(logits, torch.tensor([0, 0]))
    left = plain(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    torch.testing.assert_close(found.log_prob, torch.tensor([left.log_prob.item(), 0.0]))
    torch.testing.assert_close(found.entropy, torch.tensor([left.entropy.item(), 0.0]))
    (found.log_prob.sum() + found.entropy.sum()).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[:, 2].tolist() == [0.0, 0.0]


def test_bfloat16_is_summed_in_float32():
    hidden, weight, bias, token = head(batch=(40,), width=8, vocabulary=300, dtype=torch.bfloat16)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    wanted = plain(logits.double(), token)
    found = statistics_from_hidden(hidden, weight, token, bias, chunk=7)
    assert found.entropy.dtype == found.log_prob.dtype == torch.float32
    torch.testing.assert_close(found, TokenStatistics(*(x.float() for x in wanted)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(statistics_from_logits(logits, token, chunk=7), found, rtol=0, atol=0)
    # In bfloat16 itself the same sums are off by a hundredth or more.
    coarse = plain(logits, token).entropy.double()
    assert (coarse - wanted.entropy).abs().max() > 1e-2
    exact = torch.autograd.grad(wanted.log_prob.sum() + wanted.entropy.sum(), (hidden, weight, bias))
    ours = torch.autograd.grad(found.log_prob.sum() + found.entropy.sum(), (hidden, weight, bias))
    for gradient, reference in zip(ours, exact, strict=True):
        assert gradient.dtype == torch.bfloat16
        assert (gradient - reference).norm() < 0.02 * reference.norm()


def test_the_gradient_of_a_bfloat16_head_is_summed_in_float32():
    # Adding one number over and over in bfloat16, the sum stands still after some hundred times.
    hidden, weight, bias, token = head(batch=(1,), dtype=torch.bfloat16)
    one = torch.autograd.grad(statistics_from_hidden(hidden, weight, token, bias).log_prob.sum(), (weight, bias))
    rows, chosen = hidden.detach().expand(1000, -1), token.expand(1000)
    found = statistics_from_hidden(rows, weight, chosen, bias, chunk=1)
    for total, single in zip(torch.autograd.grad(found.log_prob.sum(), (weight, bias)), one, strict=True):
        torch.testing.assert_close(total, 1000 * single, rtol=2e-2, atol=1e-3)


def test_under_autocast_the_product_is_the_heads_own():
    hidden, weight, bias, token = head(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = torch.nn.functional.linear(hidden, weight, bias)
        found = statistics_from_hidden(hidden, weight, token, bias, chunk=4)
        assert found.log_prob.dtype == torch.float32
        assert [x.dtype for x in gradients(found, (hidden, weight, bias))] == [torch.float32] * 3
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(found, plain(logits.float(), token))


def test_entropy_rewards():
    log_prob = torch.tensor([-0.5, -2.0], requires_grad=True)
    statistics = TokenStatistics(log_prob, 2 * log_prob.exp())
    assert token_entropy_reward(statistics).tolist() == [0.5, 2.0]
    torch.testing.assert_close(token_entropy_reward(statistics, "exact"), statistics.entropy.detach())
    assert not token_entropy_reward(statistics).requires_grad
    assert not token_entropy_reward(statistics, "exact").requires_grad
    with pytest.raises(ValueError, match=r"`kind` must be one of 'sampled', 'exact'; got 'exakt'"):
        token_entropy_reward(statistics, "exakt")


def test_sampled_rewards_average_to_the_exact_one():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64).expand(4, 4)
    statistics = statistics_from_logits(logits, torch.arange(4))
    expected = (statistics.log_prob.exp() * token_entropy_reward(statistics)).sum()
    torch.testing.assert_close(expected, token_entropy_reward(statistics, "exact")[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": torch.full((3, 5), 11)}, r"`token` must be in \[0, 10\], got 11"),
        ({"token": torch.zeros(3, 4, dtype=torch.long)}, r"`token` must have the shape \[3, 5\], got \[3, 4\]"),
        ({"token": torch.zeros(3, 5)}, "`token` must have an integer type, got torch.float32"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, r"`mask` must be bool of the shape \[3, 5\]"),
        ({"mask": torch.ones(3, 5)}, "`mask` must be bool .* got torch.float32"),
        ({"weight": torch.zeros(11, 3)}, r"`hidden` and `weight` must have the shapes \[..., D\] and \[V, D\]"),
        ({"bias": torch.zeros(3)}, r"`bias` must have the shape \[11\], got \[3\]"),
        ({"temperature": 0.0}, r"`temperature` must be in \(0, inf\), got 0.0"),
        ({"chunk": 0}, "`chunk` must be in"),
    ],
)
def test_bad_input_is_named(changes, message):
    hidden, weight, _, token = head()
    arguments = {"hidden": hidden, "weight": weight, "token": token, **changes}
    with pytest.raises(ValueError, match=message):
        statistics_from_hidden(**arguments)


def test_logits_need_a_vocabulary():
    with pytest.raises(ValueError, match=r"`logits` must have the shape \[..., V\], got \[\]"):
        statistics_from_logits(torch.tensor(1.0), torch.tensor(0))
