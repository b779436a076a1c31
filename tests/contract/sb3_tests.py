"""Fetch the tests of stable-baselines3 or sb3-contrib and run them with another class in one algorithm's place.

The source distributions on the package index ship the tests; the wheels do not. One is downloaded by pip (so that the
index the machine is configured for is used and the hash is checked), and only its ``tests`` folder is unpacked, into a
cache outside the source tree. Nothing of it is committed.

Run as a script to see the outcome for one class::

    python tests/contract/sb3_tests.py maxent_onpolicy:MaxEntPPO
    python tests/contract/sb3_tests.py sb3_contrib:TRPO
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


@dataclass(frozen=True)
class Suite:
    """Tests of one package, and the algorithm in them whose place another class takes.

    Attributes:
        module: the package; its source distribution has the same name.
        algorithm: the class that is replaced.
        others: the package's other algorithms.
        left_out: files that mention the algorithm and are not run.
        deselected: tests that are not run.
    """

    module: str
    algorithm: str
    others: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    deselected: tuple[str, ...] = ()

    @property
    def stock(self) -> str:
        """The class that is replaced, as "module:Class"."""
        return f"{self.module}:{self.algorithm}"

    @property
    def keywords(self) -> str:
        """The wide filter: parametrised with the algorithm, or with none (many of those build one inside)."""
        return f"{self.algorithm} or not ({' or '.join(self.others)})"


SUITES = {
    suite.algorithm: suite
    for suite in (
        Suite(
            "stable_baselines3",
            "PPO",
            others=("A2C", "SAC", "TD3", "DQN", "DDPG"),
            left_out=("test_vec_envs.py",),  # its one test with PPO records a video and needs a display
            # A TD3 of a gigabyte: as slow as all the rest together, and no PPO in it.
            deselected=("tests/test_save_load.py::test_save_load_large_model",),
        ),
        Suite(
            "stable_baselines3",
            "SAC",
            others=("A2C", "PPO", "TD3", "DQN", "DDPG"),
            deselected=("tests/test_save_load.py::test_save_load_large_model",),
        ),
        Suite("sb3_contrib", "TRPO", others=("ARS", "QRDQN", "TQC", "CrossQ", "MaskablePPO", "RecurrentPPO")),
    )
}

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


def suite_of(class_path: str) -> Suite:
    """Return the tests for a class, by the end of its name: MaxEntPPO takes PPO's place, and so does RPO."""
    if class_path.endswith(":RPO"):
        return SUITES["PPO"]
    return next(suite for name, suite in SUITES.items() if re.search(rf"(:|MaxEnt){name}$", class_path))


def download_source(package: str, release: str, target: Path) -> Path:
    """Download the source distribution of a package's ``release`` into ``target`` with pip.

    Raises:
        ConnectionError: if pip cannot provide it; the message is pip's.
    """
    # Only this package from source: ":all:" would also build setuptools, needed to read the metadata, from source.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package]
    command += ["--dest", str(target), f"{package}=={release}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(target.glob("*.tar.gz"))
    if done.returncode != 0 or len(archives) != 1:
        raise ConnectionError(f"pip could not download {package}=={release}:\n{done.stderr.strip()}")
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


def fetch_tests(module: str, cache: Path | None = None) -> Path:
    """Return a folder with the ``tests`` package of the installed ``module``, downloading it the first time."""
    package = module.replace("_", "-")
    release = version(package)
    folder = (cache or cache_directory()) / f"{package}-{release}-tests"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = download_source(package, release, Path(scratch))
        unpacked = Path(scratch) / "unpacked"
        unpack_tests(archive, unpacked)
        unpacked.rename(folder)  # whole or not at all
    return folder


def run_tests(class_path: str, suite: Suite, folder: Path) -> dict[str, Outcome]:
    """Run a suite's tests in ``folder`` in a process of their own with ``class_path`` ("module:Class") in them.

    Returns:
        The outcome of every selected test, by an identifier in which the class is always called as the suite's.

    Raises:
        RuntimeError: if pytest itself could not run (broken collection, crash); the message is its output.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "outcomes.json"
        environment = dict(os.environ, OMP_NUM_THREADS="1", SB3_SWAP_CLASS=class_path, SB3_SWAP_TARGET=suite.stock)
        environment["SB3_SWAP_REPORT"] = str(report)
        places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(places)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "sb3_swap", "-p", "no:cacheprovider"]
        command += ["-k", suite.keywords]
        command += [f"--deselect={name}" for name in suite.deselected]
        command += ["--basetemp", str(Path(scratch) / "files"), "-o", "addopts=", "-c", "pytest.ini"]
        files = sorted((folder / "tests").glob("test_*.py"))
        mentioned = re.compile(rf"\b{suite.algorithm}\b")
        command += [
            str(path) for path in files if path.name not in suite.left_out and mentioned.search(path.read_text())
        ]
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
    class_path = sys.argv[1] if len(sys.argv) > 1 else SUITES["PPO"].stock
    suite = suite_of(class_path)
    outcomes = run_tests(class_path, suite, fetch_tests(suite.module))
    for name, outcome in outcomes.items():
        if outcome.result == "failed":
            print(f"FAILED {name}\n{outcome.message}\n")
    print(dict(Counter(outcome.result for outcome in outcomes.values())))
    print(sum(outcome.built for outcome in outcomes.values()), "tests built the class")
    return int(any(outcome.result == "failed" for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
