"""Videos are upright and complete, what cannot be recorded is refused, and nothing that is played changes."""

import imageio_ffmpeg
import numpy as np
import pytest
from stable_baselines3.common.logger import Logger

from maxent_onpolicy import PPO, make_vec_env
from maxent_onpolicy.envs.toys import ConstantRewardEnv
from maxent_onpolicy.evaluation.protocol import evaluate_policy
from maxent_onpolicy.tracking import TensorBoardFormat
from maxent_onpolicy.video import VideoCallback, VideoRecorder, VideoWriter, record_video
from maxent_onpolicy.video.files import read_frames


class Painted(ConstantRewardEnv):
    """White above, dark below, darker in each step; an odd size."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    render_mode = "rgb_array"

    def render(self):
        image = np.full((33, 47, 3), 255, np.uint8)
        image[17:] = 40 * self.elapsed
        return image


def make_model(env):
    return PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")


def painted(n_envs=2, length=4):
    return make_vec_env(Painted, n_envs, seed=0, length=length)


@pytest.mark.parametrize(("episodes", "length", "frames"), [(1, None, 4), (3, None, 12), (3, 2, 6)])
def test_every_picture_of_the_episodes_is_there_upright(tmp_path, episodes, length, frames):
    env = painted()
    result = record_video(make_model(env), painted(), tmp_path / "a.mp4", episodes, length=length)
    assert result.lengths.tolist() == [4] * episodes
    pictures = read_frames(tmp_path / "a.mp4")
    assert pictures.shape == (frames, 34, 48, 3), "an odd row and column are repeated"
    assert (pictures[:, :14] > 240).all()
    below = pictures[:, 22:].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(below, [40 * (index % (length or 4)) for index in range(frames)], atol=4)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    described = next(reader)
    reader.close()
    assert (described["codec"], described["fps"]) == ("h264", 25.0)
    assert described["pix_fmt"].startswith("yuv420p")


def test_a_gif_is_one(tmp_path):
    from PIL import Image

    record_video(make_model(painted()), painted(), tmp_path / "a.gif", 1)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.format, gif.n_frames, gif.info["duration"]) == ("GIF", 4, 40)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_recording_changes_no_episode(tmp_path, env_id):
    pytest.importorskip("pygame")
    model = make_model(make_vec_env(env_id, 2, seed=0))
    alone = evaluate_policy(model, make_vec_env(env_id, 2, seed=0), 2, 7)
    with VideoRecorder(make_vec_env(env_id, 2, seed=0), tmp_path / "a.mp4", 1, played=2, length=3) as env:
        recorded = evaluate_policy(model, env, 2, 7)
    for mode in alone:
        np.testing.assert_array_equal(alone[mode].returns, recorded[mode].returns)
        np.testing.assert_array_equal(alone[mode].lengths, recorded[mode].lengths)


def test_what_cannot_be_recorded_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.mp4 or \.gif"):
        VideoRecorder(painted(), tmp_path / "a.avi")
    with pytest.raises(ValueError, match="render_mode=None"):
        VideoRecorder(make_vec_env(ConstantRewardEnv, 1, seed=0), tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="`episodes` must be at most"):
        VideoRecorder(painted(), tmp_path / "a.mp4", 3, played=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot make the folder"):
        VideoRecorder(painted(), tmp_path / "file" / "a.mp4")
    writer = VideoWriter(tmp_path / "b.mp4", 10)
    with pytest.raises(ValueError, match="uint8"):
        writer.add(np.zeros((4, 4, 3)))


def test_a_callback_records_while_training(tmp_path):
    model = make_model(painted())
    output = TensorBoardFormat(tmp_path / "tensorboard")
    model.set_logger(Logger(None, [output]))
    model.learn(160, callback=VideoCallback(painted(), tmp_path / "videos", every=64))
    output.close()
    names = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert names == ["step_000000064.mp4", "step_000000128.mp4", "step_000000192.mp4"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    shown = events.Images("video")
    assert [event.step for event in shown] == [64, 128, 192]
    assert shown[0].encoded_image_string.startswith(b"GIF8")


def test_a_restored_simulation_shows_where_it_is():
    pytest.importorskip("mujoco")
    for n_envs in (1, 2):
        env = make_vec_env("HalfCheetah-v5", n_envs, seed=0)
        env.reset()
        for _ in range(20):
            env.step(np.ones((n_envs, 6)))
        state = env.get_state()
        expected = env.step(np.ones((n_envs, 6)))[0]
        other = make_vec_env("HalfCheetah-v5", n_envs, seed=5)
        other.reset()
        other.set_state(state)
        data = other.get_attr("data", 0)[0]
        assert abs(data.xpos[1, 0] - data.qpos[0]) < 1e-6, "the torso is where its joints say"
        np.testing.assert_array_equal(other.step(np.ones((n_envs, 6)))[0], expected)
