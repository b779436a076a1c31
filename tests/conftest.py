"""Settings of the whole suite."""

import sys
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
