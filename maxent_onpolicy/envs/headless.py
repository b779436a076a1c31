"""Rendering on machines without a screen."""

import os
import sys
from ctypes.util import find_library


def prepare_rendering() -> None:
    """Without a screen, choose drivers that need none, unless the user chose some: call it before anything renders.

    MuJoCo's default, GLFW, fails there; EGL, or else OSMesa, draws on the GPU or in software. pygame gets its dummy
    drivers, and does not greet.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if "MUJOCO_GL" not in os.environ:
        software_only = find_library("EGL") is None and find_library("OSMesa") is not None
        os.environ["MUJOCO_GL"] = "osmesa" if software_only else "egl"
