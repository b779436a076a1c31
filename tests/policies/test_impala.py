"""The IMPALA network: size, start values, the same function however it is computed, and policies on it."""

import math

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.nn import functional

from maxent_onpolicy import PPO, RPO, TRPO, MaxEntPPO, MaxEntTRPO
from maxent_onpolicy.policies.impala import CPU_CHUNK, ImpalaCNN, ImpalaPolicy, MaxEntImpalaPolicy

IMAGES = spaces.Box(0, 255, (3, 64, 64), np.uint8)
SMALL = {"depths": [4, 8], "features_dim": 16}


class Colours(gym.Env):
    """Shows one of four colours; the action of the same number is rewarded."""

    observation_space = spaces.Box(0, 255, (10, 8, 3), np.uint8)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._show(), {}

    def step(self, action):
        self.steps += 1
        reward = float(action == self.colour)
        return self._show(), reward, False, self.steps == 10, {}

    def _show(self):
        self.colour = int(self.np_random.integers(4))
        image = np.zeros(self.observation_space.shape, np.uint8)
        image[:, :, :] = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)][self.colour]
        return image


def colours(n=8):
    return DummyVecEnv([Colours] * n)


def plain_features(network, images):
    """What the network computes, written down again with functions, in one piece and in standard memory."""
    weights = dict(network.named_parameters())

    def convolve(x, name):
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    x = images.contiguous()
    for stage in range(len(network.stages) // 4):
        first = 4 * stage
        x = functional.max_pool2d(convolve(x, f"stages.{first}"), 3, 2, 1)
        for block in (first + 2, first + 3):
            inner = convolve(functional.relu(x), f"stages.{block}.first")
            x = x + convolve(functional.relu(inner), f"stages.{block}.second")
    x = functional.relu(x).flatten(1)
    return functional.relu(functional.linear(x, weights["dense.weight"], weights["dense.bias"]))


def test_it_has_as_many_parameters_as_published():
    # Worked out by hand: a convolution has 9·in·out weights and out biases; 64 → 32 → 16 → 8 pixels of 32 channels.
    stages = (448 + 4 * 2_320) + (4_640 + 4 * 9_248) + (9_248 + 4 * 9_248)
    assert sum(p.numel() for p in ImpalaCNN(IMAGES).parameters()) == stages + (8 * 8 * 32 * 256 + 256) == 622_144
    heads = (256 * 15 + 15) + 257
    policy = ImpalaPolicy(IMAGES, spaces.Discrete(15), lambda _: 1e-3)
    assert sum(p.numel() for p in policy.parameters()) == 622_144 + heads == 626_256
    both = MaxEntImpalaPolicy(IMAGES, spaces.Discrete(15), lambda _: 1e-3, popart=True)
    assert sum(p.numel() for p in both.parameters()) == 626_256 + 257


@pytest.mark.parametrize("depths", [(16, 32, 32), (4,), (5, 3)])
@pytest.mark.parametrize("shape", [(3, 16, 24), (1, 9, 14)])
@pytest.mark.parametrize("count", [1, CPU_CHUNK, CPU_CHUNK + 5])
def test_features_and_gradients_are_those_of_the_plain_network(depths, shape, count):
    torch.manual_seed(0)
    network = ImpalaCNN(spaces.Box(0, 255, shape, np.uint8), 7, depths).double()
    images = torch.rand(count, *shape, dtype=torch.float64)
    weights = torch.randn(count, 7, dtype=torch.float64)
    parameters = list(network.parameters())
    ours = torch.autograd.grad((network(images) * weights).sum(), parameters)
    theirs = torch.autograd.grad((plain_features(network, images) * weights).sum(), parameters)
    torch.testing.assert_close(network(images), plain_features(network, images), rtol=1e-9, atol=1e-9)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("policy_class", [ImpalaPolicy, MaxEntImpalaPolicy])
@pytest.mark.parametrize("ortho_init", [True, False])
def test_weights_start_glorot_uniform_within_the_policy_too(policy_class, ortho_init):
    torch.manual_seed(1)
    policy = policy_class(IMAGES, spaces.Discrete(15), lambda _: 1e-3, ortho_init=ortho_init)
    for module in policy.features_extractor.modules():
        if not isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            continue
        fan_out, fan_in = module.weight.shape[0], module.weight[0].numel()
        area = math.prod(module.weight.shape[2:])
        bound = math.sqrt(6 / (fan_in + fan_out * area))
        assert module.weight.abs().max() <= bound
        assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert (module.bias == 0).all()


def test_the_policy_starts_almost_uniform_and_its_values_small():
    torch.manual_seed(2)
    policy = MaxEntImpalaPolicy(IMAGES, spaces.Discrete(15), lambda _: 1e-3)
    images = torch.randint(0, 256, (32, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        probabilities = policy.get_distribution(images).distribution.probs
        values, entropy_values = policy.predict_both_values(images)
    assert (probabilities - 1 / 15).abs().max() < 0.01
    assert values.abs().max() < 5
    assert entropy_values.abs().max() < 5
    assert torch.linalg.vector_norm(policy.action_net.weight, dim=1).tolist() == pytest.approx([0.01] * 15, rel=1e-4)
    assert torch.linalg.vector_norm(policy.value_net.weight).item() == pytest.approx(1, rel=1e-4)


def test_actor_and_critics_share_the_trunk_and_have_popart_of_their_own():
    policy = MaxEntPPO("ImpalaPolicy", colours(), popart=True, policy_kwargs=SMALL, n_steps=8, batch_size=32).policy
    assert policy.pi_features_extractor is policy.vf_features_extractor is policy.features_extractor
    images = torch.randint(0, 256, (4, 3, 10, 8), dtype=torch.uint8)
    for output in (*policy.predict_both_values(images), policy.get_distribution(images).distribution.logits):
        gradient = torch.autograd.grad(
            output.square().sum(), policy.features_extractor.stages[0].weight, retain_graph=True
        )[0]
        assert gradient.abs().sum() > 0
    policy.value_net.update(torch.tensor([10.0, 20.0]))
    assert policy.value_net.moments[0] == 15
    assert policy.entropy_value_net.moments[0] == 0


@pytest.mark.parametrize("algorithm", [PPO, MaxEntPPO, TRPO, MaxEntTRPO])
def test_every_parameter_learns_and_saving_keeps_them(algorithm, tmp_path):
    keywords = {"batch_size": 32} if "TRPO" not in algorithm.__name__ else {}
    model = algorithm("ImpalaPolicy", colours(), n_steps=16, policy_kwargs=SMALL, seed=0, device="cpu", **keywords)
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    model.learn(128)
    unchanged = [name for name, value in model.policy.named_parameters() if torch.equal(value, before[name])]
    assert unchanged == []
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip", device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (5, 3, 10, 8), dtype=np.uint8)
    np.testing.assert_array_equal(
        loaded.predict(image, deterministic=True)[0], model.predict(image, deterministic=True)[0]
    )
    np.testing.assert_array_equal(
        loaded.policy.features_extractor.dense.weight.detach(), model.policy.features_extractor.dense.weight.detach()
    )


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [PPO, MaxEntPPO])
def test_it_learns_to_tell_colours(algorithm):
    model = algorithm(
        "ImpalaPolicy", colours(), n_steps=32, batch_size=128, n_epochs=4, learning_rate=3e-3, gamma=0.0, seed=0,
        policy_kwargs=SMALL, device="cpu",
    )  # fmt: skip
    model.learn(8_192)
    env = model.get_env()
    env.seed(5)
    observation, total = env.reset(), 0.0
    for _ in range(20):
        observation, reward, _, _ = env.step(model.predict(observation, deterministic=True)[0])
        total += reward.mean() / 20
    assert total > 0.9  # at random 0.25


def test_the_network_serves_sb3_too():
    kwargs = {"features_extractor_class": ImpalaCNN, "features_extractor_kwargs": SMALL}
    model = stable_baselines3.PPO("CnnPolicy", colours(2), n_steps=8, batch_size=16, policy_kwargs=kwargs, device="cpu")
    model.learn(32)
    assert model.num_timesteps == 32


def test_bfloat16_rounds_features_and_leaves_everything_else_in_float32():
    torch.manual_seed(3)
    exact = ImpalaCNN(IMAGES, 32, (4, 8))
    rounded = ImpalaCNN(IMAGES, 32, (4, 8), precision="bfloat16")
    rounded.load_state_dict(exact.state_dict())
    images = torch.rand(3, 3, 64, 64)
    features = rounded(images)
    assert features.dtype == torch.float32
    assert not torch.equal(features, exact(images))
    torch.testing.assert_close(features, exact(images), rtol=0.05, atol=0.02)
    features.sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in rounded.parameters())


@pytest.mark.parametrize("native", [True, False])
def test_gpus_that_compute_in_bfloat16_do_and_nothing_else_does(native, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    network = ImpalaCNN(IMAGES, 32, (4, 8))
    assert network._in_bfloat16(gpu) is native
    assert not network._in_bfloat16(cpu)
    for precision, wanted in (("float32", False), ("bfloat16", True)):
        fixed = ImpalaCNN(IMAGES, 32, (4, 8), precision=precision)
        assert fixed._in_bfloat16(gpu) is fixed._in_bfloat16(cpu) is wanted


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("algorithm", [PPO, MaxEntPPO])
def test_training_on_a_gpu(algorithm):
    model = algorithm(
        "ImpalaPolicy", colours(4), n_steps=16, batch_size=32, policy_kwargs={"features_extractor_kwargs": SMALL},
        device="cuda", seed=0,
    )  # fmt: skip
    model.learn(128)
    assert model.num_timesteps == 128
    features = model.policy.extract_features(torch.zeros(2, 3, 10, 8, device="cuda"))
    assert features.dtype == torch.float32
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (4,)),
        spaces.Discrete(3),
        spaces.Box(0, 255, (64, 64), np.uint8),
        spaces.Box(0, 255, (64, 64, 3), np.uint8),
        spaces.Dict({"image": IMAGES}),
    ],
)
def test_what_is_no_image_is_refused(space):
    with pytest.raises(ValueError, match=r"`observation_space` must hold images of shape \(channels, height, width\)"):
        ImpalaCNN(space)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": []}, "`depths` must name"),
        ({"depths": [16, 0]}, "`depths`"),
        ({"features_dim": 0}, "`features_dim`"),
        ({"precision": "half"}, "`precision`"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PPO("ImpalaPolicy", colours(1), policy_kwargs=options)


def test_vectors_are_refused_by_name():
    with pytest.raises(ValueError, match="must hold images"):
        MaxEntPPO("ImpalaPolicy", "CartPole-v1")


def test_rpo_takes_it_where_actions_are_continuous():
    class Box(Colours):
        action_space = spaces.Box(-1, 1, (2,))

        def step(self, action):
            return super().step(0)

    model = RPO("ImpalaPolicy", DummyVecEnv([Box] * 2), n_steps=8, batch_size=16, policy_kwargs=SMALL, device="cpu")
    assert model.learn(16).num_timesteps == 16
