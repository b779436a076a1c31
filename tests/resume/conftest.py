"""What the tests of killed runs share; each process of tests makes it once."""

import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
from killing import KillServer, Training, leavings
from resume_cases import CASES


class Whole(NamedTuple):
    """A run that nobody killed: what it leaves behind, how many files it touches, and how long it takes."""

    leavings: dict[str, Any]
    touched: int
    seconds: float


@pytest.fixture(scope="session")
def server() -> Iterator[KillServer]:
    with KillServer() as server:
        yield server


@pytest.fixture(scope="session")
def whole(server: KillServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """A case's run that nobody kills, by the case's name."""

    @cache
    def run(case: str) -> Whole:
        training = Training(server, tmp_path_factory.mktemp("whole"), CASES[case].arguments, CASES[case].every)
        started = time.monotonic()
        touched = training.finish()
        assert training.path is not None
        return Whole(leavings(training.path), touched, time.monotonic() - started)

    return run
