"""The annotated shapes are true: every other test of the estimators, run again with the annotations checked."""

import subprocess
import sys
from pathlib import Path

import pytest

# These pass tensors of the wrong shape on purpose.
BREAKS_SHAPES = "test_shapes_must_agree"


@pytest.mark.slow
def test_annotated_shapes_hold():
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    command += ["--jaxtyping-packages=maxent_onpolicy.estimators,beartype.beartype", "-k", f"not {BREAKS_SHAPES}"]
    command += [str(path) for path in folder.glob("test_*.py") if path.name != Path(__file__).name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder.parents[1])
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert "passed" in done.stdout
