"""Settings for tests that compare engines."""

from typing import Any

import pytest

from maxent_onpolicy.engine.packed import stacked


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """Compare on one thread: bit for bit needs one order of summation."""


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rollouts were collected in each loop."""
    counts: list[int] = []
    run = stacked.collect_all

    def spy(requests: Any) -> Any:
        if requests:
            counts.append(len(requests))
        return run(requests)

    monkeypatch.setattr(stacked, "collect_all", spy)
    return counts
