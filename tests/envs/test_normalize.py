"""Our ``VecNormalize`` computes SB3's numbers, on tensors and in files without pickle."""

import io
import pickle
import zipfile
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecEnvWrapper, VecFrameStack, VecMonitor, sync_envs_normalization
from stable_baselines3.common.vec_env import VecNormalize as SB3VecNormalize

from maxent_onpolicy.envs import VecNormalize, make_vec_env
from maxent_onpolicy.envs.tensor import TensorStep, step_tensor
from maxent_onpolicy.envs.toys import ConstantRewardEnv


class DoubleEnv(gym.Env):
    """Float64 observations of any structure; ends at random, in both ways."""

    def __init__(self, structure="box"):
        vector = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        parts = {"vector": vector, "number": spaces.Discrete(4), "other": spaces.Box(-9, 9, (2, 2), np.float64)}
        self.structure = structure
        self.observation_space = vector if structure == "box" else spaces.Dict(parts)
        self.action_space = spaces.Discrete(2)

    def _observe(self):
        vector = self.np_random.normal([5.0, -3.0, 0.0], [1.0, 10.0, 0.01])
        if self.structure == "box":
            return vector
        other = self.np_random.uniform(-9, 9, (2, 2))
        return {"vector": vector, "number": int(self.np_random.integers(4)), "other": other}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        terminated, truncated = self.np_random.random(2) < 0.15
        return self._observe(), float(self.np_random.normal(2, 3)), bool(terminated), bool(truncated), {}


def raw_env(structure="box"):
    return make_vec_env(DoubleEnv, 4, seed=1, structure=structure)


def pair(structure="box", **kwargs):
    return SB3VecNormalize(raw_env(structure), **kwargs), VecNormalize(raw_env(structure), device="cpu", **kwargs)


def assert_close(left, right, **tolerance):
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_close(left[key], right[key], **tolerance)
    else:
        left, right = np.asarray(left), np.asarray(right)
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, **(tolerance or {"rtol": 1e-6, "atol": 1e-6}))


def assert_same_statistics(left, right):
    pairs = [(left.ret_rms, right.ret_rms)]
    if left.norm_obs:
        keys = left.obs_rms.keys() if isinstance(left.obs_rms, dict) else [None]
        pairs += [(rms if key is None else rms[key] for rms in (left.obs_rms, right.obs_rms)) for key in keys]
    for one, other in pairs:
        for part in ("mean", "var", "count"):
            np.testing.assert_allclose(getattr(one, part), getattr(other, part), rtol=1e-12)


CASES = [
    ("box", {}),
    ("box", {"norm_obs": False}),
    ("box", {"norm_reward": False, "clip_obs": 1.5}),
    ("box", {"clip_reward": 0.5, "gamma": 0.5, "epsilon": 0.1}),
    ("box", {"training": False}),
    ("box", {"clip_obs": float("inf")}),
    ("dict", {"norm_obs_keys": ["vector", "other"]}),
    ("dict", {"norm_obs_keys": ["other"]}),
]


@pytest.mark.parametrize(("structure", "kwargs"), CASES)
def test_equals_sb3(structure, kwargs):
    reference, ours = pair(structure, **kwargs)
    assert_close(reference.reset(), ours.reset())
    for _ in range(80):
        expected, result = reference.step([0] * 4), ours.step([0] * 4)
        assert_close(expected[0], result[0])
        assert_close(expected[1], result[1])
        np.testing.assert_array_equal(expected[2], result[2])
        for one, other in zip(expected[3], result[3], strict=True):
            assert one["TimeLimit.truncated"] == other["TimeLimit.truncated"]
            if "terminal_observation" in one:
                assert_close(one["terminal_observation"], other["terminal_observation"])
        assert_close(reference.get_original_obs(), ours.get_original_obs(), rtol=0)
        assert_close(reference.get_original_reward(), ours.get_original_reward(), rtol=0)
    assert_same_statistics(reference, ours)
    np.testing.assert_allclose(reference.returns, ours.returns, rtol=1e-12)


@pytest.mark.parametrize(("structure", "kwargs"), CASES)
def test_step_tensor_equals_step(structure, kwargs):
    by_array, by_tensor = pair(structure, **kwargs)[1], pair(structure, **kwargs)[1]
    by_array.reset()
    by_tensor.reset()
    truncations = 0
    for _ in range(60):
        observation, reward, done, infos = by_array.step(np.zeros(4, int))
        step = step_tensor(by_tensor, np.zeros(4, int), "cpu")
        assert isinstance(step, TensorStep)
        for key in observation if structure == "dict" else [None]:
            one = observation if key is None else observation[key]
            other = step.observation if key is None else step.observation[key]
            np.testing.assert_array_equal(one, other.numpy(), strict=True)
        assert_close(reward, step.reward.numpy(), rtol=0)
        np.testing.assert_array_equal(done, (step.terminated | step.truncated).numpy())
        truncated = [i for i in range(4) if infos[i]["TimeLimit.truncated"]]
        truncations += len(truncated)
        assert step.final_index.tolist() == truncated
        for position, index in enumerate(truncated):
            expected = infos[index]["terminal_observation"]
            for key in expected if structure == "dict" else [None]:
                one = expected if key is None else expected[key]
                final = step.final_observation if key is None else step.final_observation[key]
                np.testing.assert_array_equal(one, final[position].numpy())
                other = step.infos[index]["terminal_observation"]
                np.testing.assert_array_equal(one, other if key is None else other[key])
        assert_close(by_array.get_original_obs(), by_tensor.get_original_obs(), rtol=0)
        assert_close(by_array.get_original_reward(), by_tensor.get_original_reward(), rtol=0)
    assert truncations
    assert_same_statistics(by_array, by_tensor)


def test_moments_are_those_of_all_observations():
    """The first start value has weight 1e-4; the rest is the plain mean and variance."""
    _, ours = pair()
    ours.reset()
    raw = [ours.get_original_obs()]
    for _ in range(50):
        ours.step([0] * 4)
        raw.append(ours.get_original_obs())
    samples = np.concatenate(raw)
    np.testing.assert_allclose(ours.obs_rms.mean, samples.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.obs_rms.var, samples.var(axis=0), rtol=1e-4, atol=1e-4)
    assert ours.obs_rms.count == pytest.approx(len(samples) + 1e-4)


def test_numpy_functions_equal_sb3():
    reference, ours = pair()
    for vec_env in (reference, ours):
        vec_env.reset()
        for _ in range(20):
            vec_env.step([0] * 4)
    observation, reward = np.random.default_rng(0).normal(size=(5, 3)), np.array([0.5, -2.0])
    assert_close(reference.normalize_obs(observation), ours.normalize_obs(observation))
    assert_close(reference.normalize_obs(observation[0]), ours.normalize_obs(observation[0]))
    assert_close(reference.unnormalize_obs(observation), ours.unnormalize_obs(observation))
    assert_close(reference.normalize_reward(reward), ours.normalize_reward(reward))
    assert_close(reference.unnormalize_reward(reward), ours.unnormalize_reward(reward))


def trained(structure="box", **kwargs):
    _, vec_env = pair(structure, **kwargs)
    vec_env.reset()
    for _ in range(20):
        vec_env.step([0] * 4)
    return vec_env


@pytest.mark.parametrize(("structure", "kwargs"), CASES)
def test_save_and_load(tmp_path, structure, kwargs):
    saved = trained(structure, **kwargs)
    saved.save(tmp_path / "statistics.pkl")  # whatever the name, SB3's users write this one
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.pkl"]
    loaded = VecNormalize.load(tmp_path / "statistics.pkl", raw_env(structure), device="cpu")
    assert_same_statistics(saved, loaded)
    for name in ("training", "norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys"):
        assert getattr(saved, name) == getattr(loaded, name), name
    saved.training = loaded.training = False
    observation = saved.observation_space.sample()
    assert_close(saved.normalize_obs(observation), loaded.normalize_obs(observation), rtol=0)


def test_files_need_no_pickle(tmp_path):
    trained().save(tmp_path / "statistics.npz")
    with np.load(tmp_path / "statistics.npz", allow_pickle=False) as file:
        assert not any(file[name].dtype.hasobject for name in file.files)
        assert set(file.files) >= {"meta", "obs/mean", "obs/var", "obs/count", "return/var"}


def test_sb3_pickles_need_trust(tmp_path):
    reference, venv = pair()[0], raw_env()
    reference.reset()
    for _ in range(10):
        reference.step([0] * 4)
    reference.save(str(tmp_path / "sb3.pkl"))
    with pytest.raises(ValueError, match=r"from_sb3_pickle\(path, venv, trust=True\)"):
        VecNormalize.load(tmp_path / "sb3.pkl", venv)
    with pytest.raises(ValueError, match="trust=True"):
        VecNormalize.from_sb3_pickle(tmp_path / "sb3.pkl", venv)
    loaded = VecNormalize.from_sb3_pickle(tmp_path / "sb3.pkl", venv, trust=True, device="cpu")
    assert_same_statistics(reference, loaded)


def test_sb3_pickles_of_dict_observations(tmp_path):
    reference, venv = pair("dict", norm_obs_keys=["other"], clip_obs=3.0)[0], raw_env("dict")
    reference.reset()
    reference.save(str(tmp_path / "sb3.pkl"))
    loaded = VecNormalize.from_sb3_pickle(tmp_path / "sb3.pkl", venv, trust=True)
    assert_same_statistics(reference, loaded)
    assert (loaded.clip_obs, loaded.norm_obs_keys) == (3.0, ["other"])


def rewrite_meta(path, change):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, "meta": np.array(change(str(arrays["meta"])))})


def test_statistics_of_other_keys_are_refused(tmp_path):
    trained("dict", norm_obs_keys=["other"]).save(tmp_path / "statistics.npz")
    with pytest.raises(ValueError, match=r"`norm_obs_keys` must be one of 'vector'; got 'other'"):
        VecNormalize.load(tmp_path / "statistics.npz", VecExtractKeys(raw_env("dict"), ["vector"]))


class VecExtractKeys(VecEnvWrapper):
    def __init__(self, venv, keys):
        super().__init__(venv, spaces.Dict({key: venv.observation_space[key] for key in keys}))

    def reset(self):
        raise NotImplementedError

    def step_wait(self):
        raise NotImplementedError


def test_bad_files_are_explained(tmp_path):
    path = tmp_path / "statistics.npz"
    venv = raw_env()
    trained().save(path)
    with pytest.raises(ValueError, match=r"shape \(3,\) for 'obs'.*need \(1,\)"):
        VecNormalize.load(path, make_vec_env(ConstantRewardEnv))
    with pytest.raises(ValueError, match="number is of type Discrete"):
        VecNormalize.load(path, raw_env("dict"))

    rewrite_meta(path, lambda meta: meta.replace('"version": 1', '"version": 9'))
    with pytest.raises(ValueError, match="version 9; this package reads up to 1"):
        VecNormalize.load(path, venv)
    rewrite_meta(path, lambda meta: meta.replace("maxent_onpolicy", "other"))
    with pytest.raises(ValueError, match=r"its format is 'other\.VecNormalize'"):
        VecNormalize.load(path, venv)
    data = path.read_bytes()
    for content in (data[: len(data) // 2], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a file of VecNormalize, or is damaged"):
            VecNormalize.load(path, venv)
    np.savez(path, other=np.zeros(2))
    with pytest.raises(ValueError, match="is not a file of VecNormalize"):
        VecNormalize.load(path, venv)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "x")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="is not a file of VecNormalize"):
        VecNormalize.load(path, venv)
    with pytest.raises(FileNotFoundError):
        VecNormalize.load(tmp_path / "missing.npz", venv)


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"clip_obs": 0}, "`clip_obs`"),
        ({"clip_reward": -1}, "`clip_reward`"),
        ({"gamma": 1.1}, "`gamma`"),
        ({"epsilon": float("nan")}, "`epsilon`"),
        ({"device": "mps"}, "`device`"),
    ],
)
def test_bad_arguments_are_named(kwargs, word):
    with pytest.raises(ValueError, match=word):
        VecNormalize(make_vec_env(ConstantRewardEnv), **kwargs)


def test_unknown_observation_key_is_named():
    with pytest.raises(ValueError, match=r"`norm_obs_keys`.*did you mean 'vector'"):
        VecNormalize(raw_env("dict"), norm_obs_keys=["vectro"])


@pytest.mark.parametrize("duplicate", [deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))])
def test_copies_are_independent_and_without_environments(duplicate):
    saved = trained()
    copied = duplicate(saved)
    assert copied.venv is None
    copied.set_venv(raw_env())
    assert_same_statistics(saved, copied)
    before = saved.obs_rms.mean.copy()
    copied.reset()
    copied.step([0] * 4)
    np.testing.assert_array_equal(saved.obs_rms.mean, before)
    assert copied.obs_rms.count > saved.obs_rms.count


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 0), (1, 1)], ids=["from sb3", "to sb3", "ours"])
def test_statistics_are_synchronised(source, target):
    train, evaluation = pair()[source], pair()[target]
    train.reset()
    for _ in range(10):
        train.step([0] * 4)
    sync_envs_normalization(train, evaluation)
    assert_same_statistics(train, evaluation)
    evaluation.reset()
    evaluation.step([0] * 4)
    assert evaluation.obs_rms.count > train.obs_rms.count


def test_learning_evaluating_and_saving_with_sb3(tmp_path):
    make = lambda seed: VecNormalize(make_vec_env("CartPole-v1", 2, seed=seed), device="cpu")  # noqa: E731
    train, evaluation = make(0), make(1)
    evaluation.training = evaluation.norm_reward = False
    model = PPO("MlpPolicy", train, n_steps=32, batch_size=32, n_epochs=1, seed=0)
    assert model.get_vec_normalize_env() is train
    callback = EvalCallback(evaluation, eval_freq=32, n_eval_episodes=1, verbose=0, warn=False)
    model.learn(128, callback=callback)
    assert train.obs_rms.count > 128
    assert evaluation.obs_rms.count > 1
    model.save(tmp_path / "model")
    assert isinstance(PPO.load(tmp_path / "model", env=train).get_env(), VecNormalize)


@pytest.mark.parametrize("outer", [VecMonitor, lambda env: VecFrameStack(env, 2)], ids=["monitor", "stack"])
def test_step_tensor_does_not_bypass_outer_wrappers(outer):
    def make():
        return outer(VecNormalize(make_vec_env("CartPole-v1", 2, seed=0, monitor=False), device="cpu"))

    by_array, by_tensor = make(), make()
    by_array.reset()
    by_tensor.reset()
    for _ in range(40):
        observation, _, done, infos = by_array.step(np.array([0, 1]))
        step = step_tensor(by_tensor, np.array([0, 1]), "cpu")
        np.testing.assert_array_equal(observation, step.observation.numpy())
        for index in np.flatnonzero(done):
            assert infos[index].get("episode", {}).get("r") == step.infos[index].get("episode", {}).get("r")


class TensorEnv(VecMonitor):
    """An environment that lives on tensors: checks that nothing leaves them."""

    def step_tensor(self, actions):
        observation, reward, done, _ = self.venv.step(actions.numpy())
        final = torch.full((int(done.sum()), *observation.shape[1:]), 0.5)
        flags = torch.as_tensor(done)
        return TensorStep(
            torch.as_tensor(observation),
            torch.as_tensor(reward),
            torch.zeros_like(flags),
            flags,
            flags.nonzero()[:, 0],
            final if len(final) else None,
            [{} for _ in range(self.num_envs)],
        )


def test_tensor_environments_stay_on_the_device():
    vec_env = VecNormalize(TensorEnv(make_vec_env(ConstantRewardEnv, 2, length=3, monitor=False)), device="cpu")
    vec_env.reset()
    for _ in range(3):
        step = vec_env.step_tensor(torch.zeros(2, dtype=torch.int64))
    expected = (0.5 - vec_env.obs_rms.mean) / np.sqrt(vec_env.obs_rms.var + vec_env.epsilon)
    np.testing.assert_allclose(step.final_observation.numpy(), np.tile(expected, (2, 1)), rtol=1e-6)
    assert step.final_observation.dtype == step.observation.dtype == step.reward.dtype == torch.float32
    assert vec_env.returns.tolist() == [0.0, 0.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_statistics_live_on_the_gpu():
    by_array = trained()
    on_gpu = VecNormalize(raw_env(), device="cuda")
    on_gpu.reset()
    for _ in range(20):
        step = on_gpu.step_tensor(torch.zeros(4, dtype=torch.int64, device="cuda"))
    assert step.observation.is_cuda
    assert on_gpu.obs_rms.moments.mean.is_cuda
    assert_same_statistics(by_array, on_gpu)
