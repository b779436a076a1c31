"""How many threads numpy and torch get for small work."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

# Floating-point operations of one matrix product above which a second thread pays. Measured on two cores: a product of
# [2, 64, 65] by [2, 65, 512] (8.5 million) takes 41 us instead of 56 with both, but ten times as long when the other
# core is busy, because threads wait for each other after every product; at four times that size the gain is 1.7.
WORTH_A_THREAD = 3.0e7


@cache
def _blas() -> Any:
    # numpy is loaded by now: its library is found once.
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def few_threads(operations: float) -> Iterator[None]:
    """Keep to one thread what would wait longer than it works.

    The threads of OpenMP and OpenBLAS also go on spinning for a while after their
    work, on the cores that the environments need next. With both left at two threads
    an update of 8 environments and minibatches of 64 takes three times as long.

    Args:
        operations: floating-point operations of the largest matrix product.
    """
    if operations >= WORTH_A_THREAD:
        yield
        return
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        with _blas().limit(limits=1):
            yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)
