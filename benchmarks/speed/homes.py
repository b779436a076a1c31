"""A Python environment for every peer, made once and kept."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Where each peer is installed. Versions that ``constraints.txt`` does not pin are pinned here. CleanRL and LeanRL are
#: scripts; ``tensordict`` is the newest with which LeanRL runs.
HOMES: dict[str, tuple[str, ...]] = {
    "sb3": ("stable_baselines3", "sb3-contrib==2.9.2"),
    "sbx": ("stable_baselines3", "sbx-rl==0.28.0"),
    "tianshou": ("tianshou==2.0.1",),
    "scripts": ("tensordict==0.12.4", "tyro==1.0.17", "tqdm", "tensorboard"),
}
_EVERYWHERE = ("gymnasium", "mujoco", "imageio", "packaging", "numpy")
_PINNED = ("torch", "numpy", "mujoco", "mujoco-core", "gymnasium", "stable_baselines3", "imageio", "packaging")


class InstallError(Exception):
    """A peer could not be installed; says which and why."""


@dataclass(frozen=True)
class Homes:
    """The Python interpreters of the contenders.

    Attributes:
        folder: holds the environments.
        torch_index: index to install PyTorch from; ``None`` takes what pip is configured with.
        here: run everybody with this Python instead, installing nothing.
    """

    folder: Path
    torch_index: str | None = None
    here: bool = False

    def python(self, home: str) -> Path:
        """Return the interpreter of ``home``."""
        if self.here or home == "ours":
            return Path(sys.executable)
        return self.folder.resolve() / home / "bin" / "python"

    def install(self, home: str, say: Callable[[str], None]) -> None:
        """Make the environment ``home``, unless it is there.

        Raises:
            InstallError: with pip's last words.
        """
        if self.here or home == "ours":
            return
        target = self.folder / home
        stamp = target / ".installed"
        wanted = self._fingerprint(home)
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            return
        say(f"Installing {', '.join(HOMES[home])} into {target}")
        pip = [str(self.python(home)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        index = ["--index-url", self.torch_index] if self.torch_index else []
        self.folder.mkdir(parents=True, exist_ok=True)
        pins = self.folder / "pins.txt"
        pins.write_text("\n".join(_pins()) + "\n", encoding="utf-8")
        _call(home, [sys.executable, "-m", "venv", "--clear", str(target)])
        # PyTorch by itself and first: so that a build for the CPU, once chosen, is what the peer finds.
        _call(home, [*pip, *index, next(pin for pin in _pins() if pin.startswith("torch=="))])
        _call(home, [*pip, "-c", str(pins), *_EVERYWHERE, *HOMES[home]])
        stamp.write_text(wanted, encoding="utf-8")

    def _fingerprint(self, home: str) -> str:
        described = repr((HOMES[home], _EVERYWHERE, _pins(), sys.version, self.torch_index))
        return hashlib.sha256(described.encode()).hexdigest()


def _pins() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.partition("==")[0].lower() in _PINNED]


def _call(home: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise InstallError(f"{home} cannot be installed: {words[-1] if words else 'no message'}")
