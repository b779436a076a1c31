"""Settings for tests that compare runs."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Bit-for-bit comparisons need one order of summation; more threads only slow these sizes down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
