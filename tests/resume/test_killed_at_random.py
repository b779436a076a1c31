"""Runs of every kind, killed by SIGKILL at any moment: each ends as one that was left alone, bit for bit."""

import numpy as np
import pytest
from killing import Training, assert_ends_like, kill_at_random
from resume_cases import CASES

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_moments(server, whole, tmp_path, case):
    expected, _ = whole(case)
    rng = np.random.default_rng(sum(case.encode()))
    training = Training(server, tmp_path, CASES[case].arguments, CASES[case].every)
    hits = kill_at_random(training, rng, seconds=1.5 if CASES[case].slow else 0.3, kills=3)
    assert hits > 0
    assert_ends_like(training, expected)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if not case.slow])
def test_killed_at_many_random_moments(server, whole, tmp_path, case):
    expected, _ = whole(case)
    rng = np.random.default_rng(sum(case.encode()) + 1)
    hits = 0
    for attempt in range(2):
        training = Training(server, tmp_path / str(attempt), CASES[case].arguments, CASES[case].every)
        hits += kill_at_random(training, rng, seconds=0.3, kills=5)
        assert_ends_like(training, expected)
    assert hits > 3
