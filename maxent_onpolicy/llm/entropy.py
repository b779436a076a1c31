"""Log-probability and entropy of each token, a few rows of the vocabulary at a time.

A language model's logits ``[B, T, V]`` are by far its largest tensor. Here no more than ``chunk`` rows of them exist at
any moment, in the forward and in the backward pass, which computes them anew.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from maxent_onpolicy.estimators.entropy import EntropyReward, sampled_entropy_reward
from maxent_onpolicy.validation import check_choice, check_integer, check_range


class TokenStatistics(NamedTuple):
    """``log π`` of the chosen token and the entropy of the softmax (nats), in float32 (float64 for float64 inputs)."""

    log_prob: Tensor
    entropy: Tensor


def statistics_from_hidden(
    hidden: Float[Tensor, "*batch D"],
    weight: Float[Tensor, "V D"],
    token: Int[Tensor, "*batch"],
    bias: Float[Tensor, " V"] | None = None,
    mask: Bool[Tensor, "*batch"] | None = None,
    temperature: float = 1.0,
    chunk: int = 256,
) -> TokenStatistics:
    """Statistics of ``softmax((hidden·weightᵀ + bias)/temperature)`` without ever holding all logits.

    The product is taken in the inputs' type (under autocast in its type), as the model's own head does; all sums after
    it in float32. So is the sum of the weight's gradient over chunks, which costs one ``[V, D]`` in float32. First
    derivatives only.

    Args:
        hidden: ``[*batch, D]`` state *from which* each token was chosen: the one a position earlier than the token.
        weight: ``[V, D]`` of the language-model head.
        token: ``[*batch]`` in ``[0, V)`` within ``mask``.
        bias: ``[V]`` of the head.
        mask: ``[*batch]``; rows where it is False are not computed, have zeros and pass no gradient. ``None``: all are.
        temperature: of the policy that these are the probabilities of: the one that sampled.
        chunk: most rows of logits at a time.

    Returns:
        Both ``[*batch]``.

    Raises:
        ValueError: if a shape, a token, the temperature or the chunk is out of order.
    """
    if weight.dim() != 2 or hidden.dim() < 1 or hidden.shape[-1] != weight.shape[1]:
        got = f"hidden {list(hidden.shape)}, weight {list(weight.shape)}"
        raise ValueError(f"`hidden` and `weight` must have the shapes [..., D] and [V, D], got {got}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"`bias` must have the shape {list(weight.shape[:1])}, got {list(bias.shape)}")
    temperature = _checked(hidden, token, mask, weight.shape[0], temperature, chunk)
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)

    def compute(rows: Tensor, chosen: Tensor) -> Any:
        return _FromHidden.apply(rows.to(dtype), weight, bias, chosen, temperature, chunk)

    return _within(mask, hidden, token, compute)


def statistics_from_logits(
    logits: Float[Tensor, "*batch V"],
    token: Int[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"] | None = None,
    temperature: float = 1.0,
    chunk: int = 256,
) -> TokenStatistics:
    """Statistics of ``softmax(logits/temperature)`` where the logits exist already.

    Adds ``chunk`` rows in float32; with gradients also the gradient of the logits, in their own type. Logits of
    ``−inf`` (tokens that were ruled out) have probability 0 and add nothing to the entropy. First derivatives only.

    Args:
        logits: ``[*batch, V]`` from which each token was chosen.
        token: ``[*batch]`` in ``[0, V)`` within ``mask``.
        mask: ``[*batch]``; elsewhere zeros without a gradient. ``None``: all rows count. Copies the rows that it picks.
        temperature: of the policy that these are the probabilities of: the one that sampled.
        chunk: most rows in float32 at a time.

    Returns:
        Both ``[*batch]``.

    Raises:
        ValueError: if a shape, a token, the temperature or the chunk is out of order.
    """
    if logits.dim() < 1:
        raise ValueError(f"`logits` must have the shape [..., V], got {list(logits.shape)}")
    temperature = _checked(logits, token, mask, logits.shape[-1], temperature, chunk)

    def compute(rows: Tensor, chosen: Tensor) -> Any:
        return _FromLogits.apply(rows, chosen, temperature, chunk)

    return _within(mask, logits, token, compute)


def token_entropy_reward(statistics: TokenStatistics, kind: EntropyReward = "sampled") -> Float[Tensor, "*batch"]:
    """Entropy reward of each token in nats, without a gradient.

    ``"sampled"`` is ``−log π`` of the chosen token (Choe & Kim, arXiv:2407.18143), ``"exact"`` its expectation, the
    entropy of the softmax.

    Raises:
        ValueError: if ``kind`` is neither.
    """
    check_choice("kind", kind, ("sampled", "exact"))
    if kind == "exact":
        return statistics.entropy.detach()
    return sampled_entropy_reward(statistics.log_prob.detach())


def _checked(
    rows: Tensor, token: Tensor, mask: Tensor | None, vocabulary: int, temperature: float, chunk: int
) -> float:
    """Check what both functions share; return the temperature as a float."""
    check_integer("chunk", chunk, low=1)
    batch = rows.shape[:-1]
    if token.shape != batch:
        raise ValueError(f"`token` must have the shape {list(batch)}, got {list(token.shape)}")
    if token.is_floating_point() or token.dtype == torch.bool:
        raise ValueError(f"`token` must have an integer type, got {token.dtype}")
    if mask is not None and (mask.shape != batch or mask.dtype != torch.bool):
        raise ValueError(f"`mask` must be bool of the shape {list(batch)}, got {mask.dtype} {list(mask.shape)}")
    outside = (token < 0) | (token >= vocabulary)
    if mask is not None:
        outside &= mask
    if outside.any():
        raise ValueError(f"`token` must be in [0, {vocabulary - 1}], got {int(token[outside][0])}")
    return check_range("temperature", temperature, low=0, low_open=True)


def _within(
    mask: Tensor | None, rows: Tensor, token: Tensor, compute: Callable[[Tensor, Tensor], Any]
) -> TokenStatistics:
    """Compute the rows within the mask as one list ``[N]``, and give the results the batch's shape."""
    token = token.long()
    if mask is None:
        results = compute(rows.reshape(-1, rows.shape[-1]), token.reshape(-1))
        return TokenStatistics(*(result.view(token.shape) for result in results))
    results = compute(rows[mask], token[mask])
    return TokenStatistics(*(result.new_zeros(mask.shape).masked_scatter(mask, result) for result in results))


def _chunks(length: int, chunk: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk, length)) for start in range(0, length, chunk))


def _sum_type(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _forward_rows(logits: Tensor, token: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability, entropy and ``log Σ exp`` of rows ``[R, V]`` of logits of any type."""
    scaled = logits.to(_sum_type(logits.dtype)) / temperature
    log_sum = scaled.logsumexp(-1)
    log_prob = scaled.gather(-1, token.unsqueeze(-1)).squeeze(-1) - log_sum
    # −p·log p by itself, not log Σ exp − Σ p·z, is 0 and not NaN where a logit is −inf.
    entropy = torch.special.entr(scaled.sub_(log_sum.unsqueeze(-1)).exp_()).sum(-1)
    return log_prob, entropy, log_sum


def _backward_rows(
    logits: Tensor, token: Tensor, temperature: float, entropy: Tensor, log_sum: Tensor, grads: tuple[Tensor, Tensor]
) -> Tensor:
    """Gradient of the loss with respect to rows ``[R, V]`` of logits, in the type of sums.

    ``∂ log π(a)/∂z_j = 1[j = a] − p_j`` and ``∂H/∂z_j = −p_j·log p_j − p_j·H`` for ``z = logits/temperature``.
    """
    grad_log_prob, grad_entropy = (grad.unsqueeze(-1) for grad in grads)
    scaled = logits.to(_sum_type(logits.dtype)) / temperature
    probability = scaled.sub_(log_sum.unsqueeze(-1)).exp_()
    gradient = torch.special.entr(probability).mul_(grad_entropy)
    gradient.sub_(probability.mul_(grad_log_prob + grad_entropy * entropy.unsqueeze(-1)))
    gradient.scatter_add_(-1, token.unsqueeze(-1), grad_log_prob)
    return gradient.div_(temperature)


class _FromLogits(torch.autograd.Function):
    """Statistics of rows of logits ``[N, V]``; the backward pass computes probabilities anew."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, token: Tensor, temperature: float, chunk: int) -> tuple[Tensor, Tensor]:
        log_prob, entropy, log_sum = (token.new_empty(len(token), dtype=_sum_type(logits.dtype)) for _ in range(3))
        for part in _chunks(len(token), chunk):
            log_prob[part], entropy[part], log_sum[part] = _forward_rows(logits[part], token[part], temperature)
        ctx.save_for_backward(logits, token, entropy, log_sum)
        ctx.temperature, ctx.chunk = temperature, chunk
        return log_prob, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        logits, token, entropy, log_sum = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for part in _chunks(len(token), ctx.chunk):
            saved = entropy[part], log_sum[part], (grads[0][part], grads[1][part])
            gradient[part] = _backward_rows(logits[part], token[part], ctx.temperature, *saved)
        return gradient, None, None, None


class _FromHidden(torch.autograd.Function):
    """Statistics of hidden states ``[N, D]`` under a head; the backward pass computes the logits anew."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, token: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        log_prob, entropy, log_sum = (token.new_empty(len(token), dtype=_sum_type(hidden.dtype)) for _ in range(3))
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _chunks(len(token), chunk):
                logits = F.linear(hidden[part], weight, bias)
                log_prob[part], entropy[part], log_sum[part] = _forward_rows(logits, token[part], temperature)
        ctx.save_for_backward(hidden, weight, bias, token, entropy, log_sum)
        ctx.temperature, ctx.chunk = temperature, chunk
        return log_prob, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, token, entropy, log_sum = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        sums = _sum_type(weight.dtype)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=sums) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=sums) if needs_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _chunks(len(token), ctx.chunk):
                logits = F.linear(hidden[part], weight, bias)
                saved = entropy[part], log_sum[part], (grads[0][part], grads[1][part])
                gradient = _backward_rows(logits, token[part], ctx.temperature, *saved)
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
                gradient = gradient.to(weight.dtype)
                if grad_hidden is not None:
                    grad_hidden[part] = gradient @ weight
                if grad_weight is not None and weight.dtype == sums:
                    grad_weight.addmm_(gradient.T, hidden[part])  # without another [V, D] for each chunk
                elif grad_weight is not None:
                    grad_weight += gradient.T @ hidden[part]
        found = (grad_hidden, grad_weight, grad_bias)
        return (*(None if grad is None else grad.to(weight.dtype) for grad in found), None, None, None)
