"""With what a run was made: code revision, versions and machine, and nothing that names a person or a place."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from maxent_onpolicy.cores import available_cores

PACKAGES = (
    "maxent-onpolicy",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "gymnasium",
    "mujoco",
    "procgen-mirror",
    "procgen-gym",
    "minigrid",
    "trl",
    "transformers",
    "textworld",
    "numpy",
    "pandas",
)
_PATIENCE_SECONDS = 10.0


def collect_provenance(command: Sequence[str] | None = None, threads: int | None = None) -> dict[str, Any]:
    """Describe the code and the machine a run uses.

    Args:
        command: the command line; default is this process's. Absolute paths in it are cut to their last part.
        threads: threads each run computes with; default is ``OMP_NUM_THREADS``, or ``None`` where that is not set.

    Returns:
        ``git`` (``revision`` and ``dirty``, or ``None`` outside a checkout), ``packages`` (versions),
        ``python``, ``os``, ``cpu`` (``model``, ``cores``), ``gpu`` (names), ``threads``, ``command``.
        It holds no host name, no user name and no absolute path.
    """
    omp = os.environ.get("OMP_NUM_THREADS", "")
    return {
        "git": git_revision(Path(__file__).resolve().parent),
        "packages": package_versions(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "os": operating_system(),
        "cpu": {"model": cpu_model(), "cores": available_cores()},
        "gpu": gpu_names(),
        "threads": threads if threads is not None else (int(omp) if omp.isdigit() else None),
        "command": command_line(sys.argv if command is None else command),
    }


def git_revision(directory: Path) -> dict[str, Any] | None:
    """Return the commit checked out at ``directory`` and whether tracked files differ from it.

    ``None`` where ``directory`` belongs to no checkout of this package (an installed
    wheel inside somebody else's repository is not their commit), or git is missing.
    """
    top = _ask("git", "-C", str(directory), "rev-parse", "--show-toplevel")
    if top is None or not (Path(top) / "maxent_onpolicy" / "evaluation").is_dir():
        return None
    revision = _ask("git", "-C", top, "rev-parse", "HEAD")
    # results are what runs write while they run; only the code decides what a run computes
    # without a lock: a run that is killed at this moment would leave it, and nobody could commit there
    status = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results")
    changes = _ask("git", "--no-optional-locks", "-C", top, *status)
    if revision is None or changes is None:
        return None
    return {"revision": revision, "dirty": bool(changes)}


def package_versions() -> dict[str, str]:
    """Return the versions of what decides a run's numbers; packages that are not installed are left out."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def operating_system() -> str:
    """Return the system's name and the processor architecture; on Linux also the distribution."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.release()
    return f"{platform.system()} ({name}) {platform.machine()}"


def cpu_model() -> str:
    """Return the processor's name, or its architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    brand = _ask("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
    return brand or platform.machine()


def gpu_names() -> list[str]:
    """Return the names of NVIDIA GPUs, as ``nvidia-smi`` tells them; empty without one."""
    answer = _ask("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return [line.strip() for line in answer.splitlines() if line.strip()] if answer else []


def command_line(arguments: Sequence[str]) -> str:
    """Return the command as one line, with absolute paths cut to their last part."""
    if not arguments:
        return ""
    program = Path(arguments[0])
    name = "maxent-onpolicy" if program.name in {"__main__.py", "main.py", "maxent-onpolicy"} else program.name
    return " ".join([name, *(_without_folders(argument) for argument in arguments[1:])])


def _without_folders(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    path = Path(value).expanduser()
    return f"{option}{equals}{path.name}" if path.is_absolute() else argument


def _ask(*command: str) -> str | None:
    """Return what a program prints, or ``None`` if it is missing, fails or does not answer in time."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()
