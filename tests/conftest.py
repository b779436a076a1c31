"""Settings of the whole suite."""

import os
import sys
import time
from collections.abc import Iterator

import absl.logging
import gymnasium
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from hypothesis import settings

# The same examples at every run: a failure repeats, and no run fails by chance.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# OpenSpiel imports absl, whose log handler closes its stream when logging is set up anew, as submitit does:
# the stream must not be the file in which pytest captures output.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


# Seconds since the epoch. On a machine that is too slow for all of them, .ci/run gives up slow tests, and says which,
# rather than the checks that follow; those that hold committed tables and figures against their runs it never does.
SLOW_TESTS_UNTIL = float(os.environ.get("SLOW_TESTS_UNTIL", "inf"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    slow = item.get_closest_marker("slow")
    if slow is not None and time.time() > SLOW_TESTS_UNTIL and not slow.kwargs.get("however_late", False):
        pytest.skip("the time for slow tests is over (SLOW_TESTS_UNTIL)")


@pytest.fixture(autouse=True)
def gymnasium_as_it_was() -> Iterator[None]:
    """Undo what importing rl_zoo3 does to the whole process: it puts its own ``TimeLimit`` in Gymnasium's place."""
    places = (gymnasium.wrappers, gymnasium.wrappers.common, gymnasium.envs.registration)
    for place in places:
        place.TimeLimit = TimeLimit
    yield
    for place in places:
        place.TimeLimit = TimeLimit


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One order of summation, and no waiting for a second thread at small sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
