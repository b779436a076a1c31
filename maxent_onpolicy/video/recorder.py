"""Records what an evaluation plays, without playing anything else."""

import inspect
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from maxent_onpolicy.evaluation.protocol import Episodes, evaluate_policy
from maxent_onpolicy.validation import check_integer
from maxent_onpolicy.video.files import VideoWriter, check_video_path, join

_DEFAULT_FPS = 30.0


class VideoRecorder(VecEnvWrapper):
    """Records the first episodes of the evaluation that is played in it; episodes are the same as without.

    It is a context manager: the file is there when the block ends. Only what is played between the first and the
    second ``reset`` is recorded, which is the first mode of
    :func:`~maxent_onpolicy.evaluation.protocol.evaluate_policy`. A picture is taken of every state but the last of an
    episode, which a ``VecEnv`` replaces by the first of the next.

    Args:
        venv: environments with ``render_mode="rgb_array"``.
        path: the video, ``.mp4`` or ``.gif``.
        episodes: how many are recorded, in the order of the evaluation's results.
        played: how many the evaluation plays in each mode; default is ``episodes``.
        length: pictures of an episode at most; ``None``: all.

    Raises:
        ValueError: if the environments cannot be rendered, the path cannot be written or a number is out of range.
        ImportError: if the package that encodes videos is missing.
    """

    def __init__(
        self, venv: VecEnv, path: Path | str, episodes: int = 1, *, played: int | None = None, length: int | None = None
    ) -> None:
        self.path = check_video_path("path", path)
        check_integer("episodes", episodes, 1)
        played = episodes if played is None else check_integer("played", played, 1)
        if episodes > played:
            raise ValueError(f"`episodes` must be at most those that are played, {played}; got {episodes}")
        self.length = None if length is None else check_integer("length", length, 1)
        super().__init__(venv)
        self._source: Any = venv.unwrapped
        check_renders(self._source)
        self._chooses = "indices" in inspect.signature(self._source.get_images).parameters
        metadata = getattr(self._source, "metadata", None) or {}
        self.fps = float(metadata.get("render_fps") or _DEFAULT_FPS)
        quota = [(played + index) // venv.num_envs for index in range(venv.num_envs)]
        before = np.cumsum([0, *quota[:-1]])
        self._wanted = [int(min(max(episodes - start, 0), own)) for start, own in zip(before, quota, strict=True)]
        self._taken = [0] * venv.num_envs
        self._resets = 0
        self._folder = tempfile.TemporaryDirectory(prefix="video-")
        self._writers = {
            index: VideoWriter(Path(self._folder.name) / f"{index}.mp4", self.fps)
            for index, wanted in enumerate(self._wanted)
            if wanted
        }

    def reset(self) -> VecEnvObs:
        """Reset the environments; the first time, begin to record."""
        observation = self.venv.reset()
        self._resets += 1
        if self._resets == 1:
            self._take([index for index, wanted in enumerate(self._wanted) if wanted])
        return observation

    def step_wait(self) -> VecEnvStepReturn:
        """Step the environments and record them."""
        observation, reward, done, infos = self.venv.step_wait()
        if self._resets == 1:
            for index in np.flatnonzero(done):
                self._wanted[index] -= 1
                self._taken[index] = 0
            self._take([index for index in self._writers if self._wanted[index] > 0])
        return observation, reward, done, infos

    def finish(self) -> None:
        """Write the file; the environments stay open."""
        for writer in self._writers.values():
            writer.close()
        parts = [writer.path for writer in self._writers.values() if writer.frames]
        if parts:
            join(parts, self.path, self.fps)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        for writer in self._writers.values():
            writer.close()
        self._folder.cleanup()

    def _take(self, indices: list[int]) -> None:
        due = [index for index in indices if self.length is None or self._taken[index] < self.length]
        if not due:
            return
        for index, image in zip(due, self._images(due), strict=True):
            if image is None:
                raise ValueError(f"environment {index} returned no picture to record")
            self._writers[index].add(image)
            self._taken[index] += 1

    def _images(self, indices: list[int]) -> list[np.ndarray | None]:
        try:
            if self._chooses:
                return list(self._source.get_images(indices))
            images = self._source.get_images()
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"the environment cannot be rendered here: {reason}. Without a screen MuJoCo needs EGL (on Debian: "
                "apt install libegl1 libgl1-mesa-dri); other environments need pip install 'maxent-onpolicy[video]'"
            ) from error
        return [images[index] for index in indices]


def check_renders(env: VecEnv) -> None:
    """Raise if ``env`` returns no pictures.

    Raises:
        ValueError: naming its render mode.
    """
    if env.render_mode != "rgb_array":
        raise ValueError(
            f"{type(env).__name__} cannot be recorded: its environments have render_mode={env.render_mode!r}, and "
            "'rgb_array' is needed; not every environment and backend has it"
        )


def record_video(
    model: BaseAlgorithm,
    env: VecEnv,
    path: Path | str,
    episodes: int = 1,
    *,
    seed: int = 0,
    deterministic: bool = True,
    length: int | None = None,
) -> Episodes:
    """Play episodes and record them.

    Args:
        model: any SB3 algorithm.
        env: environments used for nothing else, with ``render_mode="rgb_array"``, wrapped as the training's are.
        path: the video, ``.mp4`` or ``.gif``.
        episodes: how many.
        seed: of the environments and of the sampled actions.
        deterministic: whether actions are the distribution's mode instead of samples.
        length: pictures of an episode at most; ``None``: all.

    Returns:
        Returns and lengths of the episodes, in raw reward.

    Raises:
        ValueError: if the environments cannot be rendered, the path cannot be written or a number is out of range.
        ImportError: if the package that encodes videos is missing.
    """
    mode = "deterministic" if deterministic else "stochastic"
    with VideoRecorder(env, path, episodes, length=length) as recorder:
        return evaluate_policy(model, recorder, episodes, seed, [mode])[mode]
