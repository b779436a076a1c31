"""NatureCNN in chunks: the same features and gradients, and only where nobody was promised SB3's bits."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common import policies as sb3

from maxent_onpolicy import PPO, MaxEntPPO
from maxent_onpolicy.engine.compiled import fits
from maxent_onpolicy.policies.actor_critic import ActorCriticCnnPolicy
from maxent_onpolicy.policies.nature_cnn import CPU_CHUNK, NatureCNN, set_chunks
from tests.engine.test_images import pictures

SPACE = spaces.Box(0, 255, (3, 36, 40), np.uint8)


def policy_of(kind, shared):
    torch.manual_seed(0)
    kwargs = {"features_extractor_kwargs": {"features_dim": 8}, "share_features_extractor": shared}
    return kind(SPACE, spaces.Discrete(3), lambda _: 1e-3, **kwargs)


def gradients(policy, images):
    policy.zero_grad()
    values, log_probs, _ = policy.evaluate_actions(images, torch.arange(len(images)) % 3)
    (values.square().mean() + log_probs.mean()).backward()
    return [values.detach(), log_probs.detach(), *(parameter.grad.clone() for parameter in policy.parameters())]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("count", [1, CPU_CHUNK, CPU_CHUNK + 1, 3 * CPU_CHUNK])
def test_chunks_give_the_same_outputs_and_gradients(count, shared):
    theirs = policy_of(sb3.ActorCriticCnnPolicy, shared)
    ours = policy_of(ActorCriticCnnPolicy, shared)
    images = torch.randint(0, 256, (count, *SPACE.shape), dtype=torch.uint8)
    expected = gradients(theirs, images)
    assert all(map(torch.equal, gradients(ours, images), expected))
    set_chunks(ours, True)
    seen = []
    ours.features_extractor.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    for found, wanted in zip(gradients(ours, images), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert sum(seen) == count
    assert max(seen) <= CPU_CHUNK


def make(engine="auto", algorithm=PPO, **settings):
    kwargs = {"features_extractor_kwargs": {"features_dim": 8}}
    keywords = {"n_steps": 8, "seed": 3, "device": "cpu", "policy_kwargs": kwargs}
    return algorithm("CnnPolicy", pictures(36, 36), batch_size=24, engine=engine, **keywords | settings)


def in_chunks(model):
    assert model.current_engine is not None
    return [module.in_chunks for module in model.policy.modules() if isinstance(module, NatureCNN)]


@pytest.mark.parametrize("algorithm", [PPO, MaxEntPPO])
def test_the_engine_decides(algorithm):
    assert in_chunks(make("auto", algorithm)) == [True]
    assert in_chunks(make("eager", algorithm)) == [False]


def test_another_engine_decides_anew():
    model = make("auto")
    assert in_chunks(model) == [True]
    model.engine = "eager"
    model.learn(1)
    assert in_chunks(model) == [False]


def test_large_minibatches_are_not_compiled_on_a_cpu(monkeypatch):
    monkeypatch.setattr(fits, "why_no_compiler", lambda device: None)
    few, many = make("auto"), make("auto")
    many.batch_size = CPU_CHUNK + 1
    for model in (few, many):
        model._total_timesteps = 100_000_000
    assert few.current_engine.name == "compiled"
    assert many.current_engine.name == "eager"
    assert in_chunks(few) == [False]
    assert in_chunks(many) == [True]
    assert "NatureCNN" in many.engine_message
