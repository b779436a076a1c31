"""Videos while training goes on."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat, Video
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization
from tensorboard.compat.proto.summary_pb2 import Summary

from maxent_onpolicy.tracking.base import TrackerFormat
from maxent_onpolicy.validation import check_choice, check_integer
from maxent_onpolicy.video.files import SUFFIXES, check_video_path, make_gif, read_frames
from maxent_onpolicy.video.recorder import check_renders, record_video

_SHOWN_HEIGHT = 240


class RecordedVideo(Video):
    """A video of SB3's logger that knows its file, and reads the pictures only if they are asked for.

    Args:
        path: the file.
        fps: pictures a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = fps

    @property
    def frames(self) -> torch.Tensor:  # type: ignore[override]
        """Pictures ``[1, T, 3, height, width]`` uint8."""
        return torch.from_numpy(read_frames(self.path)).permute(0, 3, 1, 2).unsqueeze(0)


class VideoCallback(BaseCallback):
    """Records the policy at intervals, between two rollouts, and at the end; training is not disturbed.

    Files are ``FOLDER/step_000100000.mp4``. TensorBoard shows them as small GIFs, the trackers of
    :mod:`maxent_onpolicy.tracking` as they are.

    Args:
        env: environments used for nothing else, with ``render_mode="rgb_array"``, wrapped as the training's are.
        folder: receives the files.
        every: timesteps between videos.
        episodes: of a video.
        length: pictures of an episode at most; ``None``: all.
        seed: of the episodes, the same for every video.
        deterministic: whether actions are the distribution's mode instead of samples.
        suffix: ``".mp4"`` or ``".gif"``.

    Raises:
        ValueError: if the environments cannot be rendered, the folder cannot be written or a number is out of range.
        ImportError: if the package that encodes videos is missing.
    """

    every_step = False

    def __init__(
        self,
        env: VecEnv,
        folder: Path | str,
        every: int,
        *,
        episodes: int = 1,
        length: int | None = None,
        seed: int = 0,
        deterministic: bool = True,
        suffix: str = ".mp4",
    ) -> None:
        super().__init__()
        check_renders(env.unwrapped)
        self.env = env
        self.folder = Path(folder)
        self.every = check_integer("every", every, 1)
        self.suffix = str(check_choice("suffix", suffix, SUFFIXES))
        self._settings: dict[str, Any] = {"seed": seed, "deterministic": deterministic, "length": length}
        self.episodes = check_integer("episodes", episodes, 1)
        check_video_path("folder", self._path(0))
        self._next = 0

    def _path(self, timesteps: int) -> Path:
        return self.folder / f"step_{timesteps:09d}{self.suffix}"

    def _on_training_start(self) -> None:
        self._next = (self.model.num_timesteps // self.every + 1) * self.every

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps >= self._next:
            self._record()
            self._next = (self.model.num_timesteps // self.every + 1) * self.every

    def _on_training_end(self) -> None:
        self._record()

    def _on_step(self) -> bool:
        return True

    def _record(self) -> None:
        path = self._path(self.model.num_timesteps)
        sync_envs_normalization(self.training_env, self.env)
        record_video(self.model, self.env, path, self.episodes, **self._settings)
        source: Any = self.env.unwrapped
        fps = float((getattr(source, "metadata", None) or {}).get("render_fps") or 30)
        step = self.model.num_timesteps
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                _show(output, "video", path, fps, step)
            elif isinstance(output, TrackerFormat):
                output.write({"video": RecordedVideo(path, fps)}, {"video": ()}, step)


def _show(output: TensorBoardOutputFormat, key: str, path: Path, fps: float, step: int) -> None:
    """Add a small GIF; PyTorch's own way needs a version of moviepy that is no longer there."""
    file_writer = output.writer.file_writer
    assert file_writer is not None
    with tempfile.TemporaryDirectory() as folder:
        gif = Path(folder) / "shown.gif"
        make_gif(["-i", str(path)], gif, fps, _SHOWN_HEIGHT)
        content = gif.read_bytes()
    width, height = (int.from_bytes(content[start : start + 2], "little") for start in (6, 8))
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
    file_writer.add_summary(Summary(value=[Summary.Value(tag=key, image=image)]), step)
    output.writer.flush()
