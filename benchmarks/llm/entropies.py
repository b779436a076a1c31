"""Time log-probabilities and exact entropies of tokens, in chunks and as one would write it first."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.llm.shapes import Shape, memory, peak_memory
from benchmarks.llm.turns import Turn

NAIVE_HIDDEN, NAIVE_LOGITS = "from hidden states, all at once", "from logits, all at once"
Compute = Callable[..., tuple[Any, Any]]


def _naive_hidden(hidden: Any, weight: Any, token: Any) -> tuple[Any, Any]:
    return _naive_logits(hidden @ weight.T, token)


def _naive_logits(logits: Any, token: Any) -> tuple[Any, Any]:
    log_prob = logits.log_softmax(-1)
    return log_prob.gather(-1, token.unsqueeze(-1)).squeeze(-1), -(log_prob.exp() * log_prob).sum(-1)


def _chunked_hidden(hidden: Any, weight: Any, token: Any, chunk: int) -> tuple[Any, Any]:
    from maxent_onpolicy.llm.entropy import statistics_from_hidden

    return tuple(statistics_from_hidden(hidden, weight, token, chunk=chunk))  # type: ignore[return-value]


def _chunked_logits(logits: Any, token: Any, chunk: int) -> tuple[Any, Any]:
    from maxent_onpolicy.llm.entropy import statistics_from_logits

    return tuple(statistics_from_logits(logits, token, chunk=chunk))  # type: ignore[return-value]


WAYS: dict[str, Compute] = {
    NAIVE_HIDDEN: _naive_hidden,
    "from hidden states, 256 rows": partial(_chunked_hidden, chunk=256),
    "from hidden states, 64 rows": partial(_chunked_hidden, chunk=64),
    NAIVE_LOGITS: _naive_logits,
    "from logits, 256 rows": partial(_chunked_logits, chunk=256),
    "from logits, 64 rows": partial(_chunked_logits, chunk=64),
}


def measure(way: str, shape: Shape, rows: int, steps: int, turn: Turn) -> None:
    """Make some forward and backward passes, each when it is its turn.

    Reported are ``seconds`` and ``cpu`` time of each, and the ``memory``, MiB, that they have added to what was there
    before.

    Args:
        way: one of :data:`WAYS`.
        shape: of the head.
        rows: tokens.
        steps: passes.
        turn: to wait for, and to report to.
    """
    import torch

    random = torch.Generator().manual_seed(0)
    token = torch.randint(shape.vocabulary, (rows,), generator=random)
    if "hidden" in way:
        weight = torch.randn(shape.vocabulary, shape.width, generator=random).mul_(shape.width**-0.5)
        inputs = [torch.randn(rows, shape.width, generator=random), weight]
    else:
        inputs = [torch.randn(rows, shape.vocabulary, generator=random)]
    for each in inputs:
        each.requires_grad_()
    before = memory()
    for _ in range(steps):
        for each in inputs:
            each.grad = None
        turn.wait()
        began = time.perf_counter(), time.process_time()
        log_prob, entropy = WAYS[way](*inputs, token)
        (log_prob.mean() + entropy.mean()).backward()
        seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        del log_prob, entropy
        turn.end(seconds=seconds, own=0.0, cpu=cpu, memory=peak_memory() - before)
