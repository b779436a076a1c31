"""Runs of every kind, killed by SIGKILL at any moment: each ends as one that was left alone, bit for bit."""

import numpy as np
import pytest
from killing import Training, assert_ends_like, kill_at_random
from resume_cases import CASES

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
ATTEMPTS = 20


def kill_runs(server, folder, case, whole, rng, kills, hits):
    """Kill runs of a case, each ``kills`` times at most, until ``hits`` of the kills met a live process."""
    expected, _, seconds = whole(case)
    found = 0
    for attempt in range(ATTEMPTS):
        training = Training(server, folder / str(attempt), CASES[case].arguments, CASES[case].every)
        found += kill_at_random(training, rng, seconds / 4, kills)
        assert_ends_like(training, expected)
        if found >= hits:
            return
    pytest.fail(f"only {found} kills in {ATTEMPTS} runs of {seconds:.1f} s met a live process")


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_moments(server, whole, tmp_path, case):
    kill_runs(server, tmp_path, case, whole, np.random.default_rng(sum(case.encode())), kills=3, hits=1)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if not case.slow])
def test_killed_at_many_random_moments(server, whole, tmp_path, case):
    kill_runs(server, tmp_path, case, whole, np.random.default_rng(sum(case.encode()) + 1), kills=5, hits=4)
