"""Doing the same for many environments on several threads, where that is faster."""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from statistics import median
from time import perf_counter
from typing import Any, Protocol
from weakref import WeakSet, finalize


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


class ThreadPool:
    """Runs a function for ``0 … n−1``, on the calling thread and ``num_threads − 1`` others.

    Whoever is free takes the next number, so that a thread that the operating system holds up delays nobody.
    """

    def __init__(self, num_threads: int) -> None:
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._done: SimpleQueue[Exception | None] = SimpleQueue()
        self._others = num_threads - 1
        for _ in range(self._others):
            threading.Thread(target=_work, args=(self._jobs, self._done), daemon=True).start()
        finalize(self, _dismiss, self._jobs, self._others)

    def run(self, function: Callable[[int], None], count: int) -> None:
        """Call ``function(0)`` … ``function(count - 1)``; return when all have, or raise an error of one."""
        numbers = iter(range(count))
        for _ in range(min(self._others, count - 1)):
            self._jobs.put((function, numbers))
        left = count
        errors = []
        for number in numbers:
            left -= 1
            try:
                function(number)
            except Exception as error:
                errors.append(error)
        # Only those that others have taken: a thread that has not even started is not waited for.
        others = [self._done.get() for _ in range(left)]
        for each in (*errors, *others):
            if each is not None:
                raise each


class FasterWay:
    """Calls whichever of several equivalent functions is faster at the moment.

    Waking threads costs more than it brings where steps are short or other processes hold the cores, and both change
    while a program runs. So all are timed again now and then; what they compute does not depend on the choice.

    Args:
        ways: functions of the same arguments and effect.
        period: seconds of calls between two comparisons.
        block: seconds that each is called in a row, twice in a comparison. Several of the operating system's time
            slices, so that one interruption decides nothing.
    """

    def __init__(self, *ways: Callable[..., None], period: float = 2.0, block: float = 0.02) -> None:
        self._ways = ways
        self._period = period
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
            self.choice = medians.index(min(medians))
            self._left = int(self._period / medians[self.choice])
            self._begin_comparison()


def _work(jobs: "SimpleQueue[Any]", done: "SimpleQueue[Exception | None]") -> None:
    while (job := jobs.get()) is not None:
        function, numbers = job
        for number in numbers:
            try:
                function(number)
            except Exception as error:
                done.put(error)
            else:
                done.put(None)
        # A waiting thread must not keep the simulation alive.
        del job, function, numbers


def _dismiss(jobs: "SimpleQueue[Any]", count: int) -> None:
    for _ in range(count):
        jobs.put(None)
