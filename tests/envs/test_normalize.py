"""Our ``VecNormalize`` computes SB3's numbers, on tensors and in files without pickle."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from normalize_helpers import (
    CASES,
    DoubleEnv,
    OnTensors,
    Transparent,
    assert_close,
    assert_same_statistics,
    pair,
    raw_env,
    trained,
)
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, sync_envs_normalization
from stable_baselines3.common.vec_env import VecNormalize as SB3VecNormalize

from maxent_onpolicy.envs import VecNormalize, make_vec_env
from maxent_onpolicy.envs.normalize import TensorRunningMeanStd
from maxent_onpolicy.envs.tensor import TensorStep, step_tensor
from maxent_onpolicy.envs.toys import ConstantRewardEnv


def as_numpy_step(step):
    """A ``TensorStep`` in the form of ``VecEnv.step``, with final observations from where tensors carry them."""

    def array(value, index=...):
        return {k: v[index].numpy() for k, v in value.items()} if isinstance(value, dict) else value[index].numpy()

    infos = [dict(info) for info in step.infos]
    for position, index in enumerate(step.final_index.tolist()):
        assert_close(infos[index]["terminal_observation"], array(step.final_observation, position))
    assert step.final_index.tolist() == step.truncated.nonzero()[:, 0].tolist()
    assert [info["TimeLimit.truncated"] for info in infos] == step.truncated.tolist()
    return array(step.observation), step.reward.numpy(), (step.terminated | step.truncated).numpy(), infos


@pytest.mark.parametrize("mode", ["numpy", "numpy_tensor_step", "tensor_numpy_step", "tensor"])
@pytest.mark.parametrize(("structure", "kwargs"), CASES)
def test_equals_sb3(structure, kwargs, mode):
    """Bit for bit around numpy environments; to rounding on tensors."""
    tolerance = 0.0 if mode.startswith("numpy") else 1e-6
    reference = SB3VecNormalize(raw_env(structure), **kwargs)
    inner = raw_env(structure) if mode.startswith("numpy") else OnTensors(raw_env(structure))
    ours = VecNormalize(inner, device="cpu", **kwargs)
    assert_close(reference.reset(), ours.reset(), tolerance)
    ended = 0
    for _ in range(80):
        expected = reference.step(np.zeros(4, int))
        if mode in ("numpy_tensor_step", "tensor"):
            result = as_numpy_step(step_tensor(ours, np.zeros(4, int), "cpu"))
        else:
            result = ours.step(np.zeros(4, int))
        assert_close(expected[0], result[0], tolerance)
        assert_close(expected[1], result[1], tolerance)
        np.testing.assert_array_equal(expected[2], result[2])
        for one, other in zip(expected[3], result[3], strict=True):
            assert one["TimeLimit.truncated"] == other["TimeLimit.truncated"]
            assert ("terminal_observation" in one) == ("terminal_observation" in other)
            if "terminal_observation" in one:
                ended += 1
                assert_close(one["terminal_observation"], other["terminal_observation"], tolerance)
        assert_close(reference.get_original_obs(), ours.get_original_obs())
        assert_close(reference.get_original_reward(), ours.get_original_reward())
    assert ended
    assert_same_statistics(reference, ours, tolerance and 1e-12)
    np.testing.assert_allclose(reference.returns, ours.returns, rtol=tolerance and 1e-12)


def test_float32_observations_keep_their_precision_on_tensors():
    """Far from zero, moments in float32 are wrong; SB3's are, these are not."""

    class Far(DoubleEnv):
        def __init__(self):
            super().__init__()
            self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)

        def _observe(self):
            return (1e4 + self.np_random.normal(size=3)).astype(np.float32)

    ours = VecNormalize(OnTensors(make_vec_env(Far, 64, seed=0)), device="cpu")
    ours.reset()
    raw = [ours.get_original_obs()]
    for _ in range(20):
        ours.step_tensor(torch.zeros(64))
        raw.append(ours.get_original_obs())
    samples = np.concatenate(raw).astype(np.float64)
    start, count = 1e-4, len(samples)
    mean = samples.mean(axis=0) * count / (count + start)
    second = (start * (1 + mean**2) + ((samples - mean) ** 2).sum(axis=0)) / (count + start)
    np.testing.assert_allclose(ours.obs_rms.var, second, rtol=1e-9)


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


def test_auto_is_where_the_data_are():
    around_numpy = VecNormalize(raw_env())
    around_tensors = VecNormalize(OnTensors(raw_env()))
    assert not isinstance(around_numpy.obs_rms, TensorRunningMeanStd)
    device = around_tensors.obs_rms.moments.mean.device.type
    assert device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_statistics_can_be_shared():
    train, evaluation = VecNormalize(raw_env()), VecNormalize(raw_env())
    evaluation.obs_rms = train.obs_rms
    train.reset()
    assert evaluation.obs_rms.count > 1


def test_unknown_observation_key_is_named():
    with pytest.raises(ValueError, match=r"`norm_obs_keys`.*did you mean 'vector'"):
        VecNormalize(raw_env("dict"), norm_obs_keys=["vectro"])


@pytest.mark.parametrize("duplicate", [deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))])
@pytest.mark.parametrize("kind", ["numpy", "tensor"])
def test_copies_are_independent_and_without_environments(duplicate, kind):
    saved = KINDS[kind]()
    saved.reset()
    saved.step([0] * 4)
    copied = duplicate(saved)
    assert copied.venv is None
    copied.set_venv(raw_env())
    assert_same_statistics(saved, copied)
    before = saved.obs_rms.mean.copy()
    copied.reset()
    copied.step([0] * 4)
    np.testing.assert_array_equal(saved.obs_rms.mean, before)
    assert copied.obs_rms.count > saved.obs_rms.count


KINDS = {
    "sb3": lambda: SB3VecNormalize(Transparent(raw_env())),
    "numpy": lambda: VecNormalize(Transparent(raw_env())),
    "tensor": lambda: VecNormalize(OnTensors(raw_env())),
}


@pytest.mark.parametrize("source", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("target", KINDS.values(), ids=KINDS.keys())
def test_statistics_are_synchronised(source, target):
    train, evaluation = source(), target()
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


class TensorEnv(OnTensors):
    """Reports no final observation in its infos, as environments on a device do."""

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
    assert vec_env.get_original_reward().tolist() == [1.0, 1.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_statistics_live_on_the_gpu():
    by_array = trained()
    on_gpu = VecNormalize(raw_env(), device="cuda")
    on_gpu.reset()
    for _ in range(20):
        step = on_gpu.step_tensor(torch.zeros(4, dtype=torch.int64, device="cuda"))
    assert step.observation.is_cuda
    assert on_gpu.obs_rms.moments.mean.is_cuda
    assert_same_statistics(by_array, on_gpu, 1e-12)
