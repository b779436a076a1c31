"""The small network for MiniGrid's images: its size, the scale of its input, and the order of the axes."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import ConstantSchedule
from torch.nn import functional

from maxent_onpolicy import PPO, MaxEntPPO, make_vec_env
from maxent_onpolicy.policies.heads import PopArtLinear
from maxent_onpolicy.policies.minigrid_cnn import MaxEntMiniGridCnnPolicy, MiniGridCnn, MiniGridCnnPolicy


def images(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


def codes(size, n=5, seed=0):
    """Types, colours and states as MiniGrid has them, ``[n, 3, size, size]``."""
    rng = np.random.default_rng(seed)
    return torch.as_tensor(np.stack([rng.integers(0, top + 1, (n, size, size)) for top in (10, 5, 3)], axis=1))


# Weights and biases of 2×2 convolutions with 3 → 16 → 32 → 64 channels, then of (size - 3)² · 64 → features.
CONVOLUTIONS = (3 * 4 * 16 + 16) + (16 * 4 * 32 + 32) + (32 * 4 * 64 + 64)


@pytest.mark.parametrize(
    ("size", "features", "parameters"),
    [
        (7, 512, CONVOLUTIONS + 1024 * 512 + 512),
        (8, 512, CONVOLUTIONS + 1600 * 512 + 512),
        (4, 10, CONVOLUTIONS + 64 * 10 + 10),
    ],
)
def test_number_of_parameters(size, features, parameters):
    network = MiniGridCnn(images(3, size, size), features)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(codes(size).float()).shape == (5, features)
    assert network.features_dim == features


def test_images_need_not_be_square():
    assert MiniGridCnn(images(3, 5, 9))(torch.zeros(2, 3, 5, 9)).shape == (2, 512)


def test_equals_the_layers_written_out():
    network, image = MiniGridCnn(images(3, 7, 7)), codes(7).float()
    hidden = image / torch.tensor([10.0, 5.0, 3.0])[:, None, None]
    for index in (0, 2, 4):
        layer = network.cnn[index]
        hidden = functional.conv2d(hidden, layer.weight, layer.bias).relu()
    expected = functional.linear(hidden.flatten(1), network.linear[0].weight, network.linear[0].bias).relu()
    torch.testing.assert_close(network(image), expected)


@pytest.mark.parametrize(
    "space",
    [
        images(7, 7, 3),
        images(3, 3, 3),
        images(3, 7, 2),
        images(1, 7, 7),
        spaces.Box(0, 10, (3, 7, 7), np.float32),
        spaces.Box(-1, 1, (4,)),
        spaces.Discrete(3),
    ],
    ids=str,
)
def test_other_observations_are_refused(space):
    with pytest.raises(ValueError, match=r"`observation_space` must be MiniGrid's images.*\(3, height, width\).*got"):
        MiniGridCnn(space)


@pytest.mark.parametrize("features_dim", [0, 1.5, "many"])
def test_features_must_be_a_number(features_dim):
    with pytest.raises(ValueError, match="`features_dim` must be"):
        MiniGridCnn(images(3, 7, 7), features_dim)


def test_a_model_refuses_other_environments():
    with pytest.raises(ValueError, match="`observation_space` must be MiniGrid's images"):
        PPO(MiniGridCnnPolicy, make_vec_env("CartPole-v1"), device="cpu")


@pytest.mark.parametrize("cls", [MiniGridCnnPolicy, MaxEntMiniGridCnnPolicy])
def test_the_network_receives_codes_and_actor_and_critic_are_linear(cls):
    """SB3 would divide them by 255."""
    policy = cls(images(3, 7, 7), spaces.Discrete(7), ConstantSchedule(1e-3))
    image = codes(7).to(torch.uint8)
    features = policy.features_extractor(image.float())
    torch.testing.assert_close(policy.extract_features(image), features)
    torch.testing.assert_close(policy.predict_values(image), policy.value_net(features))
    torch.testing.assert_close(policy.get_distribution(image).distribution.logits.exp().sum(1), torch.ones(5))
    heads = {"action_net": 7 * 513, "value_net": 513}
    if cls is MaxEntMiniGridCnnPolicy:
        heads["entropy_value_net"] = 513
        torch.testing.assert_close(policy.predict_entropy_values(image), policy.entropy_value_net(features))
    count = sum(parameter.numel() for parameter in policy.parameters())
    assert count == CONVOLUTIONS + 1024 * 512 + 512 + sum(heads.values())


def test_options_of_the_policy_can_be_changed():
    policy = MaxEntMiniGridCnnPolicy(
        images(3, 8, 8),
        spaces.Discrete(7),
        ConstantSchedule(1e-3),
        net_arch=[32],
        features_extractor_kwargs={"features_dim": 64},
        popart=True,
    )
    assert isinstance(policy.value_net, PopArtLinear)
    assert policy.mlp_extractor.latent_dim_pi == 32
    assert policy.features_extractor.features_dim == 64


def test_images_with_channels_last_are_turned():
    model = PPO(MiniGridCnnPolicy, make_vec_env("MiniGrid-DoorKey-8x8-v0", 2, seed=0), seed=0, device="cpu")
    assert model.observation_space.shape == (3, 7, 7)
    observation = make_vec_env("MiniGrid-DoorKey-8x8-v0", 2, seed=5).reset()
    channels_first = torch.as_tensor(observation.transpose(0, 3, 1, 2).copy())
    expected = model.policy.get_distribution(channels_first).mode()
    np.testing.assert_array_equal(model.predict(observation, deterministic=True)[0], expected)
    turned, _ = model.policy.obs_to_tensor(observation)
    assert torch.equal(turned, channels_first)


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_models_train_save_and_load(tmp_path, compile):
    env = make_vec_env("MiniGrid-Empty-5x5-v0", 4, seed=0)
    settings = {"n_steps": 16, "batch_size": 64, "n_epochs": 1, "seed": 0, "device": "cpu", "compile": compile}
    model = MaxEntPPO(MaxEntMiniGridCnnPolicy, env, popart=True, **settings)
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    model.learn(128).save(tmp_path / "model")
    for name, value in model.policy.named_parameters():
        assert not torch.equal(before[name], value), name
    loaded = MaxEntPPO.load(tmp_path / "model", device="cpu")
    observation = env.reset()
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )
