"""Features in bfloat16: close to float32's, and everything around them float32."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN

from maxent_onpolicy import MaxEntPPO
from maxent_onpolicy.policies import Bfloat16Extractor

IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)


def twins(space, extractor_class, **kwargs):
    """The same network in both precisions."""
    half = Bfloat16Extractor(space, extractor_class, **kwargs)
    full = extractor_class(space, **kwargs)
    full.load_state_dict(half.extractor.state_dict())
    return half, full


def test_image_features_are_float32s_to_three_digits():
    half, full = twins(IMAGE, NatureCNN, features_dim=32)
    image = torch.rand(16, 3, 36, 36)
    features, expected = half(image), full(image)
    assert half.features_dim == 32
    assert features.dtype == torch.float32
    assert not torch.equal(features, expected)
    assert (features - expected).norm() < 0.01 * expected.norm()
    features.square().sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 and p.grad.norm() > 0 for p in half.parameters())


def test_dictionaries_work_too():
    half, full = twins(spaces.Dict({"image": IMAGE, "vector": spaces.Box(-1, 1, (3,))}), CombinedExtractor)
    observation = {"image": torch.rand(4, 3, 36, 36), "vector": torch.rand(4, 3)}
    features, expected = half(observation), full(observation)
    assert (features - expected).norm() < 0.02 * expected.norm()


class Images(gym.Env):
    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def _observe(self):
        return self.np_random.integers(0, 256, (36, 36, 3), dtype=np.uint8)

    def step(self, action):
        return self._observe(), float(action), self.np_random.random() < 0.1, False, {}


def test_a_model_trains_on_them_and_the_first_ratio_is_one(tmp_path):
    policy_kwargs = {"features_extractor_class": Bfloat16Extractor, "features_extractor_kwargs": {"features_dim": 32}}
    settings = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "seed": 0, "device": "cpu"}
    model = MaxEntPPO("CnnPolicy", Images(), policy_kwargs=policy_kwargs, **settings).learn(64)
    # One minibatch and one epoch: the update has only seen the policy that acted.
    assert model.logger.name_to_value["train/approx_kl"] == pytest.approx(0, abs=1e-6)
    assert model.logger.name_to_value["train/clip_fraction"] == 0
    model.save(tmp_path / "model")
    loaded = MaxEntPPO.load(tmp_path / "model", device="cpu")
    observation = Images().reset(seed=1)[0]
    assert loaded.predict(observation, deterministic=True)[0] == model.predict(observation, deterministic=True)[0]
