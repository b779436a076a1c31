"""What the tests of killed runs share; each process of tests makes it once."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from killing import KillServer, Training, leavings
from resume_cases import CASES


@pytest.fixture(scope="session")
def server() -> Iterator[KillServer]:
    with KillServer() as server:
        yield server


@pytest.fixture(scope="session")
def whole(server: KillServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, Any], int]]:
    """What a case leaves behind when nobody kills it, and how many files it touches."""

    @cache
    def run(case: str) -> tuple[dict[str, Any], int]:
        training = Training(server, tmp_path_factory.mktemp("whole"), CASES[case].arguments, CASES[case].every)
        touched = training.finish()
        assert training.path is not None
        return leavings(training.path), touched

    return run
