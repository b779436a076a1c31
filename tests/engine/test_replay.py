"""The replay buffer, with SB3's as the oracle."""

import copy
import io
import zipfile

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer as SB3ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from maxent_onpolicy import make_vec_env
from maxent_onpolicy.engine.replay import ReplayBuffer
from maxent_onpolicy.engine.replay_files import FIELDS, load_buffer, save_buffer

ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
OBSERVATIONS = {
    "vectors": spaces.Box(-np.inf, np.inf, (3,), np.float64),
    "matrices": spaces.Box(-5, 5, (2, 3), np.float32),
    "images": spaces.Box(0, 255, (3, 4, 4), np.uint8),
    "numbers": spaces.Discrete(5),
    "switches": spaces.MultiBinary(4),
}


def filled(buffer, steps, seed=0):
    rng = np.random.default_rng(seed)
    n_envs, space = buffer.n_envs, buffer.observation_space
    shape = (n_envs, *(space.shape or ()))

    def observe():
        if isinstance(space, spaces.Box) and space.dtype != np.uint8:
            return rng.normal(size=shape).astype(np.float32).astype(space.dtype)
        return rng.integers(0, 2, size=shape).astype(space.dtype)

    for _ in range(steps):
        done = rng.random(n_envs) < 0.3
        infos = [{"TimeLimit.truncated": bool(end and rng.random() < 0.5)} for end in done]
        action = rng.uniform(-1, 1, (n_envs, 2)).astype(np.float32)
        buffer.add(observe(), observe(), action, rng.normal(size=n_envs), done, infos)
    return buffer


def pair(space, size=20, n_envs=2, **kwargs):
    return [cls(size, space, ACTIONS, "cpu", n_envs, **kwargs) for cls in (ReplayBuffer, SB3ReplayBuffer)]


@pytest.mark.parametrize("space", OBSERVATIONS.values(), ids=OBSERVATIONS)
@pytest.mark.parametrize("steps", [3, 10, 25])
@pytest.mark.parametrize("timeouts", [True, False])
def test_samples_are_those_of_sb3(space, steps, timeouts):
    samples = []
    for buffer in pair(space, handle_timeout_termination=timeouts):
        filled(buffer, steps)
        np.random.seed(4)
        samples.append(buffer.sample(64))
        assert buffer.size() == min(steps, 10)
    for name, ours, theirs in zip(samples[0]._fields, *samples, strict=True):
        if ours is None:
            assert theirs is None
            continue
        assert ours.shape == theirs.shape, name
        assert torch.equal(ours.float(), theirs.float()), name
    assert steps == 3 or 0 < samples[0].dones.mean() < 1


def test_observations_are_normalised_when_sampled_with_the_statistics_of_then():
    env = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0))
    env.reset()
    buffers = pair(env.observation_space)
    for buffer in buffers:
        filled(buffer, 10)
    for _ in range(2):
        env.step(np.zeros((2, 1), np.float32))
        results = []
        for buffer in buffers:
            np.random.seed(4)
            results.append(buffer.sample(64, env=env))
        torch.testing.assert_close(results[0].observations, results[1].observations, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(results[0].next_observations, results[1].next_observations, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(results[0].rewards, results[1].rewards, atol=1e-6, rtol=1e-6)


def test_a_cut_off_episode_is_not_done_and_keeps_its_final_observation():
    buffer = ReplayBuffer(4, OBSERVATIONS["vectors"], ACTIONS, "cpu", 1)
    one, action, end = np.ones((1, 3)), np.zeros((1, 2), np.float32), np.array([True])
    buffer.add(one, 2 * one, action, np.array([1.0]), end, [{"TimeLimit.truncated": True}])
    assert buffer.sample(1).dones.item() == 0
    assert buffer.sample(1).next_observations.tolist() == [[2.0, 2.0, 2.0]]
    buffer.reset()
    buffer.add(one, 2 * one, action, np.array([1.0]), end, [{}])
    assert buffer.sample(1).dones.item() == 1


@pytest.mark.parametrize("steps", [4, 10, 25])
@pytest.mark.parametrize("kind", ["path", "stream"])
def test_a_file_holds_what_is_stored_and_no_more(tmp_path, steps, kind):
    buffer = filled(ReplayBuffer(20, OBSERVATIONS["vectors"], ACTIONS, "cpu", 2), steps)
    file = tmp_path / "new" / "buffer.npz" if kind == "path" else io.BytesIO()
    save_buffer(buffer, file)
    other = ReplayBuffer(20, OBSERVATIONS["vectors"], ACTIONS, "cpu", 2)
    load_buffer(other, file)
    for name in FIELDS:
        assert torch.equal(getattr(other, name), getattr(buffer, name)), name
    assert (other.pos, other.full) == (buffer.pos, buffer.full)
    size = file.stat().st_size if kind == "path" else len(file.getvalue())
    assert size < sum(getattr(buffer, name)[: buffer.size()].nbytes for name in FIELDS) + 3000
    if kind == "path":
        assert [path.name for path in file.parent.iterdir()] == ["buffer.npz"]


def empty(size=20, space="vectors", n_envs=2):
    return ReplayBuffer(size, OBSERVATIONS[space], ACTIONS, "cpu", n_envs)


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "buffer.npz"
    save_buffer(filled(empty(), 25), path)
    for size, space, n_envs in ((22, "vectors", 2), (20, "matrices", 2), (20, "vectors", 1)):
        with pytest.raises(ValueError, match="make the model with the saved one's environments"):
            load_buffer(empty(size, space, n_envs), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        load_buffer(empty(), path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("something", "else")
    with pytest.raises(ValueError, match="not a replay buffer"):
        load_buffer(empty(), path)


def test_a_copy_is_independent():
    buffer = filled(ReplayBuffer(20, OBSERVATIONS["vectors"], ACTIONS, "cpu", 2), 5)
    other = copy.deepcopy(buffer)
    other.rewards.zero_()
    assert buffer.rewards.abs().sum() > 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"buffer_size": 0}, "`buffer_size`"),
        ({"optimize_memory_usage": True}, "`optimize_memory_usage=True` needs SB3's own buffer"),
        ({"handle_timeout_termination": "yes"}, "`handle_timeout_termination`"),
        ({"observation_space": spaces.Dict({"a": OBSERVATIONS["vectors"]})}, "`observation_space` must not be a Dict"),
    ],
)
def test_bad_arguments(kwargs, message):
    arguments = {"buffer_size": 5, "observation_space": OBSERVATIONS["vectors"], "action_space": ACTIONS} | kwargs
    with pytest.raises(ValueError, match=message):
        ReplayBuffer(**arguments)
