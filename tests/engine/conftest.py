"""Settings for tests that compare engines."""

import pytest


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """Compare on one thread: bit for bit needs one order of summation."""
