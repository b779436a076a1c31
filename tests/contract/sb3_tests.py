"""Fetch stable-baselines3's own tests and run them with another class in PPO's place.

The source distribution on the package index ships the tests; the wheel does not. It is downloaded by pip (so that the
index the machine is configured for is used and the hash is checked), and only its ``tests`` folder is unpacked, into a
cache outside the source tree. Nothing of it is committed.

Run as a script to see the outcome for one class::

    python tests/contract/sb3_tests.py maxent_onpolicy:MaxEntPPO
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath

STOCK = "stable_baselines3:PPO"

# Every file that mentions PPO is run but this one: its one test with PPO records a video and needs a display.
LEFT_OUT = "test_vec_envs.py"

# The wide filter: parametrised with PPO, or not parametrised with any algorithm (many of those build a PPO inside).
KEYWORDS = "PPO or not (A2C or SAC or TD3 or DQN or DDPG)"

# A TD3 of a gigabyte: as slow as all the rest together, and no PPO in it.
DESELECTED = ("tests/test_save_load.py::test_save_load_large_model",)

# After which a run of SB3's tests is taken to hang; one takes one to three minutes.
SECONDS = 900.0


@dataclass(frozen=True)
class Outcome:
    """What became of one test.

    Attributes:
        result: passed, failed or skipped.
        built: the test built the class under test.
        message: the traceback of a failure.
    """

    result: str
    built: bool
    message: str = ""


def cache_directory() -> Path:
    """Where unpacked tests are kept: ``$XDG_CACHE_HOME/maxent_onpolicy`` or ``~/.cache/maxent_onpolicy``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "maxent_onpolicy"


def download_source(release: str, target: Path) -> Path:
    """Download the source distribution of stable-baselines3 ``release`` into ``target`` with pip.

    Raises:
        ConnectionError: if pip cannot provide it; the message is pip's.
    """
    # Only this package from source: ":all:" would also build setuptools, needed to read the metadata, from source.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "stable-baselines3"]
    command += ["--dest", str(target), f"stable-baselines3=={release}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(target.glob("*.tar.gz"))
    if done.returncode != 0 or len(archives) != 1:
        raise ConnectionError(f"pip could not download stable-baselines3=={release}:\n{done.stderr.strip()}")
    return archives[0]


def unpack_tests(archive: Path, target: Path) -> None:
    """Write the regular files of ``<root>/tests`` in ``archive`` to ``target/tests``, and nothing else."""
    with tarfile.open(archive) as source:
        for member in source:
            parts = PurePosixPath(member.name).parts[1:]
            if not member.isfile() or parts[:1] != ("tests",) or ".." in parts:
                continue
            content = source.extractfile(member)
            assert content is not None  # true of every regular file
            path = target.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
    (target / "tests" / "__init__.py").touch()  # missing in the distribution; the tests import each other by package
    (target / "pytest.ini").write_text("[pytest]\nmarkers = expensive: named in the tests, registered nowhere\n")


def fetch_tests(cache: Path | None = None) -> Path:
    """Return a folder with the ``tests`` package of the installed stable-baselines3, downloading it the first time."""
    release = version("stable-baselines3")
    folder = (cache or cache_directory()) / f"stable-baselines3-{release}-tests"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = download_source(release, Path(scratch))
        unpacked = Path(scratch) / "unpacked"
        unpack_tests(archive, unpacked)
        unpacked.rename(folder)  # whole or not at all
    return folder


def run_tests(class_path: str, folder: Path, keywords: str = KEYWORDS) -> dict[str, Outcome]:
    """Run the selected tests in ``folder`` in a process of their own with ``class_path`` ("module:Class") as PPO.

    Returns:
        The outcome of every selected test, by an identifier in which the class is always called ``PPO``.

    Raises:
        RuntimeError: if pytest itself could not run (broken collection, crash); the message is its output.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "outcomes.json"
        environment = dict(os.environ, OMP_NUM_THREADS="1", SB3_SWAP_CLASS=class_path, SB3_SWAP_REPORT=str(report))
        environment["PYTHONPATH"] = str(Path(__file__).parent)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "sb3_swap", "-p", "no:cacheprovider", "-k", keywords]
        command += [f"--deselect={name}" for name in DESELECTED]
        command += ["--basetemp", str(Path(scratch) / "files"), "-o", "addopts=", "-c", "pytest.ini"]
        files = sorted((folder / "tests").glob("test_*.py"))
        command += [str(path) for path in files if path.name != LEFT_OUT and re.search(r"\bPPO\b", path.read_text())]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
        )
        if done.returncode not in (0, 1) or not report.exists():
            raise RuntimeError(
                f"pytest stopped with code {done.returncode}:\n{done.stdout[-8000:]}{done.stderr[-2000:]}"
            )
        return {name: Outcome(**fields) for name, fields in json.loads(report.read_text()).items()}


def main() -> int:
    """Print the outcome for the class named on the command line (stock PPO without one) and its failures."""
    outcomes = run_tests(sys.argv[1] if len(sys.argv) > 1 else STOCK, fetch_tests())
    for name, outcome in outcomes.items():
        if outcome.result == "failed":
            print(f"FAILED {name}\n{outcome.message}\n")
    print(dict(Counter(outcome.result for outcome in outcomes.values())))
    print(sum(outcome.built for outcome in outcomes.values()), "tests built the class")
    return int(any(outcome.result == "failed" for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
