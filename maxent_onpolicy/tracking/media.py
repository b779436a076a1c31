"""Pictures and videos of SB3's logger in a form that every tracker takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Figure, Image, Video


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        pixels: ``[height, width, 3]`` uint8.
    """

    pixels: np.ndarray


@dataclass(frozen=True)
class Clip:
    """A video file.

    Attributes:
        path: the file.
        fps: pictures a second.
    """

    path: Path
    fps: float


Media = Picture | Clip


def to_media(value: Any) -> Media | None:
    """Return a value of SB3's logger as a picture or a video, or ``None`` if it is neither.

    A video must know its file, as those of :class:`~maxent_onpolicy.video.VideoCallback` do.
    """
    if isinstance(value, Image):
        return None if isinstance(value.image, str) else Picture(_pixels(value.image, value.dataformats))
    if isinstance(value, Figure):
        return Picture(_drawn(value))
    if isinstance(value, Video):
        path = getattr(value, "path", None)
        return None if path is None else Clip(Path(path), float(value.fps))
    return None


def _pixels(image: torch.Tensor | np.ndarray, dataformats: str) -> np.ndarray:
    """Bring an image of any of TensorBoard's formats to ``[height, width, 3]`` uint8; of several, take the first."""
    pixels = np.asarray(image.detach().cpu() if isinstance(image, torch.Tensor) else image)
    order = dataformats.upper()
    if "N" in order:
        pixels, order = pixels.take(0, order.index("N")), order.replace("N", "")
    if "C" not in order:
        pixels, order = pixels[..., None], f"{order}C"
    pixels = pixels.transpose([order.index(axis) for axis in "HWC"])
    if pixels.dtype != np.uint8:  # numbers in [0, 1], as TensorBoard has it
        pixels = (pixels * 255.0).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels)


def _drawn(value: Figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(value.figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
