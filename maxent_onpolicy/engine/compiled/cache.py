"""What a compilation needs of the machine: a compiler, and a place for its products."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def why_no_compiler(device: torch.device) -> str | None:
    """Return what is missing to compile for a device, or ``None``."""
    if device.type == "cuda" and find_spec("triton") is None:
        return "no Triton"
    command = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if shutil.which(command.split()[0]) is None:
        return f"no C++ compiler (`{command}` is not installed; CXX names another)"
    return None


def cache_directory() -> Path:
    """Return where compiled programs are kept: ``TORCHINDUCTOR_CACHE_DIR``, else below the user's cache directory."""
    chosen = Path(os.environ.get(VARIABLE, ""))
    # inductor writes its own default, a temporary directory, into the variable.
    default = chosen.parent == Path(tempfile.gettempdir()) and chosen.name.startswith("torchinductor_")
    if os.environ.get(VARIABLE) and not default:
        return chosen
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "maxent_onpolicy" / "inductor"


@contextmanager
def kept_programs() -> Iterator[None]:
    """Let inductor keep what it compiles in :func:`cache_directory`, where a reboot does not delete it."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(cache_directory())
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
