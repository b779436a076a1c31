"""Video files: H.264 that every player shows, or GIF."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maxent_onpolicy.evaluation.files import replacing
from maxent_onpolicy.validation import check_range

SUFFIXES = (".mp4", ".gif")
_FASTEST_GIF = 50.0  # browsers slow down what is faster
# constant quality at which no difference is seen; pictures in order, so that files can be joined without a gap;
# the index first, so that a player need not load it all
_H264 = ["-crf", "18", "-preset", "fast", "-bf", "0", "-movflags", "+faststart"]


def check_video_path(name: str, path: Path | str) -> Path:
    """Return ``path`` if a video can be written there, else raise.

    Args:
        name: the argument's name.
        path: the file.

    Raises:
        ValueError: for another suffix, or a place that cannot be written.
        ImportError: if the package that encodes videos is missing.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`{name}` must end in {' or '.join(SUFFIXES)}, got {str(path)!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"`{name}`: cannot make the folder {path.parent}: {error.strerror}") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"`{name}`: cannot write {path}")
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"videos need a package that is not installed ({error}); pip install 'maxent-onpolicy[video]'"
        ) from None
    return path


class VideoWriter:
    """Writes an MP4 file picture by picture: H.264, ``yuv420p``.

    Args:
        path: the file.
        fps: pictures a second.

    Raises:
        ValueError: if ``fps`` is not positive.
    """

    def __init__(self, path: Path | str, fps: float) -> None:
        self.path = Path(path)
        self.fps = check_range("fps", fps, 0, low_open=True)
        self.frames = 0
        self._size: tuple[int, int] | None = None
        self._encoder: Any = None

    def add(self, frame: np.ndarray) -> None:
        """Add a picture ``[height, width, 3]`` uint8; all of one file must have one size.

        Raises:
            ValueError: if it is no such picture.
        """
        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a picture must be [height, width, 3] uint8, got {frame.dtype} {list(frame.shape)}")
        # H.264 stores colours of two by two pixels: an odd last row or column is repeated
        frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        size = (frame.shape[1], frame.shape[0])
        if self._encoder is None:
            self._size = size
            self._open(size)
        if size != self._size:
            raise ValueError(f"pictures of one video must have one size, got {size} after {self._size}")
        self._encoder.send(np.ascontiguousarray(frame))
        self.frames += 1

    def close(self) -> None:
        """Finish the file; without a picture there is none."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def _open(self, size: tuple[int, int]) -> None:
        import imageio_ffmpeg

        self._encoder = imageio_ffmpeg.write_frames(
            str(self.path),
            size,
            fps=self.fps,
            codec="libx264",
            quality=None,
            macro_block_size=1,
            ffmpeg_log_level="error",
            output_params=_H264,
        )
        self._encoder.send(None)


def join(parts: Sequence[Path], path: Path, fps: float) -> None:
    """Make one video of several, in order; ``path`` is replaced once it is complete.

    Args:
        parts: MP4 files of a :class:`VideoWriter`, of one size and ``fps``.
        path: the file; its suffix says MP4 or GIF.
        fps: of the parts.
    """
    listing = parts[0].with_suffix(".txt")
    listing.write_text("".join(f"file '{part.resolve()}'\n" for part in parts), encoding="utf-8")
    source = ["-f", "concat", "-safe", "0", "-i", str(listing)]
    with replacing(path) as temporary:
        if path.suffix.lower() == ".mp4":
            _ffmpeg(*source, "-c", "copy", "-movflags", "+faststart", str(temporary))
        else:
            make_gif(source, temporary, fps)


def make_gif(source: Sequence[str], path: Path, fps: float, height: int | None = None) -> None:
    """Turn a video into a GIF with a palette of its own.

    Args:
        source: ffmpeg's arguments for the input.
        path: the file.
        fps: of the input; above 50 pictures are left out.
        height: to which it is scaled down.
    """
    steps = [f"fps={min(fps, _FASTEST_GIF):g}"] if fps > _FASTEST_GIF else []
    steps += [f"scale=-2:'min({height},ih)':flags=lanczos"] if height else []
    scaled = ",".join(steps) or "null"
    palette = path.with_name(f".{path.stem}-palette.png")
    try:
        _ffmpeg(*source, "-vf", f"{scaled},palettegen=stats_mode=full", "-frames:v", "1", "-update", "1", str(palette))
        _ffmpeg(*source, "-i", str(palette), "-lavfi", f"{scaled}[x];[x][1:v]paletteuse=dither=sierra2_4a", str(path))
    finally:
        palette.unlink(missing_ok=True)


def read_frames(path: Path) -> np.ndarray:
    """Return the pictures of a video, ``[T, height, width, 3]`` uint8."""
    import imageio_ffmpeg

    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames])


def _ffmpeg(*arguments: str) -> None:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise OSError(f"ffmpeg could not write {arguments[-1]}: {done.stderr.strip()[-300:]}")
