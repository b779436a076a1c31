"""Doing the same for many environments on several threads, where that is faster."""

import os
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any, Protocol
from weakref import WeakSet


class HasThreads(Protocol):
    """Something whose threads are missing in the child of a fork."""

    def forget_threads(self) -> None:
        """Go on without threads."""
        ...


_WITH_THREADS: WeakSet[HasThreads] = WeakSet()


def forget_threads_when_forked(user: HasThreads) -> None:
    """Have ``user.forget_threads()`` called in child processes, which would wait for these threads forever."""
    _WITH_THREADS.add(user)


def _forget_threads() -> None:
    for user in _WITH_THREADS:
        user.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


class FasterWay:
    """Calls whichever of several equivalent functions is faster at the moment.

    Waking threads costs more than it brings where steps are short or other processes hold the cores, and both change
    while a program runs. So all are timed again now and then; what they compute does not depend on the choice.

    Args:
        ways: functions of the same arguments and effect.
        period: seconds of calls between two comparisons; up to four times as many while the choice stays the first way.
            With any other, a busy moment could cost the others' advantage for long.
        block: seconds that each is called in a row, twice in a comparison. Several of the operating system's time
            slices, so that one interruption decides nothing.
    """

    def __init__(self, *ways: Callable[..., None], period: float = 2.0, block: float = 0.02) -> None:
        self._ways = ways
        self._period = self._pause = period
        self._block = block
        self.choice = 0
        # The first calls pay for what the operating system does only once.
        self._left = 2
        self._begin_comparison()

    def __call__(self, *args: Any) -> None:
        """Call one of the ways."""
        if self._left > 0:
            self._left -= 1
            self._ways[self.choice](*args)
        else:
            self._compare(*args)

    def _begin_comparison(self) -> None:
        self._seconds: list[list[float]] = [[] for _ in self._ways]
        self._blocks = 2 * [*range(len(self._ways))]
        self._spent = 0.0

    def _compare(self, *args: Any) -> None:
        way = self._blocks[-1]
        started = perf_counter()
        self._ways[way](*args)
        seconds = perf_counter() - started
        self._seconds[way].append(seconds)
        self._spent += seconds
        if self._spent < self._block:
            return
        self._spent = 0.0
        self._blocks.pop()
        if not self._blocks:
            medians = [median(seconds) for seconds in self._seconds]
            best = medians.index(min(medians))
            self._pause = min(2 * self._pause, 4 * self._period) if best == self.choice == 0 else self._period
            self.choice = best
            self._left = int(self._pause / medians[best])
            self._begin_comparison()
