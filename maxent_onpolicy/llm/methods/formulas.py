"""The methods' mathematics as functions of tensors and numbers, without state."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def fill(
    mask: Bool[Tensor, "B T"], values: Float[Tensor, " N"], elsewhere: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """``values`` in place of ``elsewhere[mask]``, in its order; the rest of ``elsewhere`` as it is."""
    return elsewhere.masked_scatter(mask, values.to(elsewhere.dtype))


def row_means(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Mean of each row inside ``mask``; NaN for a row without a token inside."""
    return torch.where(mask, values, 0.0).sum(1) / mask.sum(1)


def turn_means(
    values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], turn: Int[Tensor, "B T"]
) -> tuple[Float[Tensor, "B K"], Bool[Tensor, "B K"]]:
    """Mean of each turn's tokens, and which completions have a turn of that number.

    Args:
        values: ``[B, T]``.
        mask: ``[B, T]``.
        turn: ``[B, T]`` from 0; anything outside of ``mask``.

    Returns:
        ``[B, K]`` for ``K`` turns, 0 where there is none, and ``[B, K]`` whether there is one.
    """
    index = torch.where(mask, turn, 0)
    turns = int(index.max()) + 1
    total = values.new_zeros(len(values), turns).scatter_add(1, index, torch.where(mask, values, 0.0))
    count = values.new_zeros(len(values), turns).scatter_add(1, index, mask.to(values.dtype))
    return total / count.clamp(min=1), count > 0


def group_sums(values: Float[Tensor, " B"], group: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """For each completion the sum over all that answer the same prompt."""
    same = group.unsqueeze(0) == group.unsqueeze(1)
    return torch.where(same, values.unsqueeze(0), 0.0).sum(1)


def covariance(advantage: Float[Tensor, " N"], log_prob: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Each token's part ``(A − Ā)(log π − mean log π)`` in the covariance that lowers entropy (arXiv:2505.22617)."""
    return (advantage - advantage.mean()) * (log_prob - log_prob.mean())


def largest(values: Float[Tensor, " N"], count: int) -> Bool[Tensor, " N"]:
    """Whether each value is among the ``count`` largest."""
    chosen = torch.zeros_like(values, dtype=torch.bool)
    chosen[values.topk(count).indices] = True
    return chosen


def draw(candidates: Bool[Tensor, " N"], count: int, seed: int) -> Bool[Tensor, " N"]:
    """Choose at most ``count`` of the candidates at random, the same for the same ``seed``."""
    places = candidates.nonzero().flatten()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).to(places.device)
    chosen = torch.zeros_like(candidates)
    chosen[places[order[:count]]] = True
    return chosen


def rising_share(start: float, done: int, horizon: int | None) -> float:
    """A share that rises linearly from ``start`` to 1 over ``horizon`` batches; it stays without a ``horizon``."""
    return start if horizon is None else start + (1 - start) * min(done / horizon, 1.0)


def epo_phase_weight(epoch: int, horizon: int | None) -> float:
    """``1 − 0.2·(1 − e^{−2x})`` in the first half of training, ``0.8·e^{−3x}`` in the second, x from 0 to 1 in each.

    EPO's (arXiv:2509.22576, the authors' code); 1 without a ``horizon``.
    """
    if horizon is None:
        return 1.0
    half = horizon // 2
    if epoch <= half:
        return 1 - 0.2 * (1 - math.exp(-2 * epoch / max(half, 1)))
    return 0.8 * math.exp(-3 * (min(epoch, horizon) - half) / (horizon - half))


def add_turn_means(
    sums: Sequence[float],
    counts: Sequence[int],
    entropy: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    turn: Int[Tensor, "B T"],
) -> tuple[list[float], list[int]]:
    """Add the mean entropy of each turn's tokens to the ``sums`` of earlier batches, and 1 to their ``counts``."""
    inside, number = entropy[mask], turn[mask]
    missing = [0] * (int(number.max()) + 1 - len(sums))
    sums, counts = [*sums, *missing], [*counts, *missing]
    for each in number.unique().tolist():
        sums[each] += inside[number == each].mean().item()
        counts[each] += 1
    return sums, counts


def history_means(sums: Sequence[float], counts: Sequence[int]) -> list[float | None]:
    """Each turn's mean over the batches that had it, of what :func:`add_turn_means` returns; ``None`` if none had."""
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def turn_range_excess(
    entropy: Float[Tensor, " N"], turn: Int[Tensor, " N"], past: Sequence[float | None], low: float, high: float
) -> Float[Tensor, " N"]:
    """Nats by which each token's entropy leaves ``(low·h, high·h)``, h what its turn had before; 0 without a past.

    Args:
        entropy: ``[N]``.
        turn: ``[N]`` from 0.
        past: h by number of the turn; ``None`` for one that was never seen, as is one beyond the end.
        low: factor of the lower end.
        high: factor of the upper end.
    """
    known = [(low * each, high * each) if each is not None else (-math.inf, math.inf) for each in past]
    table = entropy.new_tensor([*known, (-math.inf, math.inf)])
    start, stop = table[turn.clamp(max=len(past))].unbind(-1)
    return (start - entropy).clamp(min=0) + (entropy - stop).clamp(min=0)


def nucleus_entropy(logits: Float[Tensor, "*shape V"], top_p: float = 0.8) -> Float[Tensor, "*shape"]:
    """Entropy in nats among the likeliest tokens only, their probabilities scaled to sum to 1.

    SIREN's (arXiv:2509.25133). As in the authors' code the nucleus ends before the token with which its probability
    reaches ``top_p``; so the entropy is 0 where one token alone has that much.
    """
    log_prob = logits.log_softmax(-1).sort(-1, descending=True).values
    inside = log_prob.exp().cumsum(-1) < top_p
    log_prob = torch.where(inside, log_prob, -torch.inf)
    scaled = log_prob - torch.where(inside.any(-1, keepdim=True), log_prob, 0.0).logsumexp(-1, keepdim=True)
    return -torch.where(inside, scaled.exp() * torch.where(inside, scaled, 0.0), 0.0).sum(-1)


def peak_entropy(entropy: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], quantile: float) -> Float[Tensor, ""]:
    """Mean over completions of the mean entropy of tokens above the completion's own quantile (SIREN).

    A completion whose tokens are all at the quantile, as one of a single token is, does not count; nor is there
    anything to count if all are like that: then 0.
    """
    inside = torch.where(mask, entropy.detach(), torch.nan)
    above = inside > torch.nanquantile(inside, quantile, dim=1, keepdim=True)
    some = above.any(1)
    means = torch.where(above, entropy, 0.0).sum(1) / above.sum(1).clamp(min=1)
    return means.sum() / some.sum().clamp(min=1)


def signed_entropy(entropy: Float[Tensor, " N"], pivot: float) -> Float[Tensor, " N"]:
    """HAPO's ĥ in [−1, 1]: how far ``log H`` is above (below) its quantile, as a share of the largest distance.

    The released code divides the negative side by its negative minimum, so that ĥ is positive on both sides; we keep
    the sign that its formulas for clip ranges and advantages ask for. Its division by a deviation cancels.
    """
    logs = entropy.clamp(min=1e-8).log()
    distance = logs - torch.quantile(logs, pivot, interpolation="nearest")
    above, below = distance.max().clamp(min=1e-8), distance.min().abs().clamp(min=1e-8)
    return torch.where(distance > 0, distance / above, distance / below)


def widest(values: Float[Tensor, " N"], size: int) -> Bool[Tensor, " N"]:
    """Which ``size`` of the values have the largest variance: always some of the smallest and some of the largest."""
    order = values.argsort()
    ordered = values[order].double()
    ordered = ordered - ordered.mean()
    zero = ordered.new_zeros(1)
    first, second = torch.cat([zero, ordered.cumsum(0)]), torch.cat([zero, ordered.square().cumsum(0)])
    low = torch.arange(size + 1, device=values.device)  # how many of the smallest; the others are the largest
    high = len(values) - size + low
    total = first[low] + first[-1] - first[high]
    variance = (second[low] + second[-1] - second[high]) / size - (total / size).square()
    count = int(variance.argmax())
    chosen = torch.zeros_like(values, dtype=torch.bool)
    chosen[order[:count]] = True
    chosen[order[len(values) - size + count :]] = True
    return chosen


def mixed_value_at_risk(
    score: Float[Tensor, " N"], low: float, high: float, weight: float, epsilon: float = 1e-6
) -> Float[Tensor, " N"]:
    """RiskPO's advantage of the scores of one bundle (arXiv:2510.00911, the authors' code).

    With the scores' quantiles ``q_α`` and ``q_β`` it is ``(w·C + R)/(w + 1)``, ``C = −max(q_α − x, 0)/α`` for the lower
    tail and ``R = (max(x − q_α, 0) − max(x − q_β, 0) + q_α − q_β)/(β − α)`` for the range above it, over the scores'
    deviation.

    Args:
        score: ``[N]`` of the same prompts.
        low: α.
        high: β.
        weight: w.
        epsilon: keeps divisions finite, as in the code.
    """
    quantile_low, quantile_high = (torch.quantile(score, each) for each in (low, high))
    tail = -(quantile_low - score).clamp(min=0) / (low + epsilon)
    middle = (score - quantile_low).clamp(min=0) - (score - quantile_high).clamp(min=0) + quantile_low - quantile_high
    mixed = (weight * tail + middle / (high - low + epsilon)) / (weight + 1)
    scale = score.std() if len(score) > 1 else torch.ones_like(score[0])
    return mixed / (scale + epsilon)
