"""Runs killed by SIGKILL right before they touch a file: each ends as one that was left alone, bit for bit.

Every state of the files that a kill can leave lies between two of these operations.
"""

import signal
from pathlib import Path
from typing import Any

import pytest
from killing import HERE, KillServer, Training, assert_ends_like, differences, leavings
from resume_cases import CASES

from maxent_onpolicy.cli.config import make_config
from maxent_onpolicy.evaluation.runs import RunDirectory

pytestmark = pytest.mark.timeout(900)
ARGUMENTS = CASES["every option"].arguments
SHORTER = (*ARGUMENTS, "--timesteps", "256")  # the last of two values counts


def cut_and_compare(
    server: KillServer, folder: Path, arguments: tuple[str, ...], at: list[int], expected: dict[str, Any]
) -> None:
    for cut in at:
        training = Training(server, folder / str(cut), arguments)
        status, _ = training.start(cut=cut).wait()
        assert status == -signal.SIGKILL
        assert_ends_like(training, expected)


@pytest.mark.slow
def test_killed_while_files_are_written(server, whole, tmp_path):
    expected, touched, _ = whole("every option")
    cut_and_compare(server, tmp_path, ARGUMENTS, [touched // 2, touched - 1], expected)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_killed_at_every_file(server, tmp_path, first):
    """Of four rollouts, with an evaluation in the third: the next four only repeat what these do, in their order."""
    whole = Training(server, tmp_path / "whole", SHORTER)
    touched = whole.finish()
    assert touched > 100
    assert whole.path is not None
    cut_and_compare(server, tmp_path, SHORTER, list(range(first, touched + 1, 4)), leavings(whole.path))


@pytest.mark.slow
def test_killed_again_and_again_while_files_are_written(server, whole, tmp_path):
    """Each attempt gets a little further."""
    expected = whole("every option").leavings
    training = Training(server, tmp_path, ARGUMENTS)
    for cut in (9, 61, 20):
        assert training.start(cut=cut).wait()[0] == -signal.SIGKILL
    assert_ends_like(training, expected)


@pytest.mark.slow
def test_seeds_that_are_trained_together_are_killed_together(server, tmp_path):
    """Their last checkpoints are of different moments."""
    settings = {
        "total_timesteps": 512,
        "n_envs": 2,
        "hyperparameters": {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "device": "cpu"},
        "environment": {"normalize_observation": True},
        "evaluation": {"every": 150, "episodes": 1},
    }
    seeds = (1, 2)

    def execute(folder: str, cut: int | None = None) -> tuple[list[dict[str, Any]], int]:
        runs = [tmp_path / folder / "results" / str(seed) for seed in seeds]
        for seed, path in zip(seeds, runs, strict=True):
            if not path.exists():
                who = {"suite": "s", "label": "x", "algorithm": "MaxEntPPO", "env_id": "CartPole-v1", "seed": seed}
                RunDirectory.create(path, make_config(settings, "test", **who).to_json(), {})
        status, touched = server.start(tmp_path / folder, HERE / "seeds_together.py", cut=cut).wait()
        assert status == (0 if cut is None else -signal.SIGKILL)
        return [leavings(path) for path in runs] if cut is None else [], touched

    expected, touched = execute("whole")
    for cut in (touched // 4, touched // 2, 3 * touched // 4):
        execute(str(cut), cut)
        found, _ = execute(str(cut))
        assert [differences(one, other) for one, other in zip(expected, found, strict=True)] == [[], []]
