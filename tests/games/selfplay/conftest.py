"""Settings for tests that train."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """One order of summation, and no waiting for a second thread at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
