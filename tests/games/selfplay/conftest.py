"""Settings for tests that train."""

import pytest


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """Train on one thread: more only slow these sizes down."""
