"""Image policies: every image passes the network once in a rollout, and what is computed stays the same."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage

from maxent_onpolicy import PPO, MaxEntPPO
from maxent_onpolicy.policies import ImpalaCNN, MaxEntImpalaPolicy
from tests.engine.engine_helpers import Random

SMALL = {"depths": [4], "features_dim": 8}
STEPS, ENVS = 16, 3


class Pictures(Random):
    def __init__(self, height, width):
        super().__init__(spaces.Discrete(3))
        self.observation_space = spaces.Box(0, 255, (height, width, 3), np.uint8)

    def _observe(self):
        return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8)


def pictures(height=8, width=6):
    return VecTransposeImage(DummyVecEnv([partial(Pictures, height, width)] * ENVS))


def make(algorithm=MaxEntPPO, policy="ImpalaPolicy", **settings):
    keywords = {"n_steps": STEPS, "batch_size": 24, "n_epochs": 2, "seed": 3, "device": "cpu", "compile": False}
    return algorithm(policy, pictures(), policy_kwargs=SMALL, **keywords | settings)


class OwnForward(MaxEntImpalaPolicy):
    """Does as its base class, so that the rollout is not taken from it."""

    def forward(self, obs, deterministic=False):
        return super().forward(obs, deterministic)


def rollout(model):
    model.learn(STEPS * ENVS)
    return model.rollout_buffer


def test_the_entropy_critics_values_are_those_of_the_rollouts_observations(monkeypatch):
    model = make()
    monkeypatch.setattr(model, "train", lambda: None)
    buffer = rollout(model)
    expected = buffer.evaluate(model.policy.predict_entropy_values)
    torch.testing.assert_close(buffer.entropy_value, expected.detach())
    assert buffer.entropy_value.std() > 0


def test_it_is_the_same_rollout_as_with_sb3s_forward():
    ours, theirs = rollout(make()), rollout(make(policy=OwnForward))
    for name in ("action", "value", "log_prob", "entropy_value", "advantage", "entropy_advantage"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), msg=name)


@pytest.mark.parametrize(("algorithm", "passes"), [(PPO, STEPS), (MaxEntPPO, STEPS)])
def test_no_image_of_the_rollout_passes_the_network_twice(algorithm, passes, monkeypatch):
    model = make(algorithm)
    monkeypatch.setattr(model, "train", lambda: None)
    seen = []
    plain = ImpalaCNN.forward
    monkeypatch.setattr(ImpalaCNN, "forward", lambda self, images: seen.append(images) or plain(self, images))
    buffer = rollout(model)
    inside = buffer.observation.float() / 255
    shown = torch.cat(seen[:passes])
    torch.testing.assert_close(shown, inside.flatten(0, 1))
    final = buffer.final_observations()
    once = ENVS + (0 if final is None else len(final[0]))
    critics = 2 if algorithm is MaxEntPPO else 1
    assert sum(len(images) for images in seen[passes:]) == critics * once


def test_a_policy_of_ones_own_forward_is_asked_itself():
    calls = []

    class Counting(OwnForward):
        def forward(self, obs, deterministic=False):
            calls.append(len(obs))
            return super().forward(obs, deterministic)

    rollout(make(policy=Counting))
    assert calls == [ENVS] * STEPS


def test_on_a_cpu_nothing_is_compiled_unless_asked():
    model = make(compile="auto")
    model.learn(STEPS * ENVS)
    assert model.current_engine.name == "eager"
    assert "ImpalaCNN, which trains faster without on a CPU" in model.engine_message


@pytest.mark.slow
def test_compiled_it_trains_as_eagerly():
    # Adam's eps: whole steps of gradients that are rounding alone would hide what is compared.
    kwargs = {**SMALL, "optimizer_kwargs": {"eps": 1e-3}}
    models = [
        MaxEntPPO("ImpalaPolicy", pictures(), n_steps=STEPS, batch_size=24, n_epochs=2, seed=3, device="cpu",
                  policy_kwargs=kwargs, engine=engine).learn(2 * STEPS * ENVS)
        for engine in ("eager", "compiled")
    ]  # fmt: skip
    for eager, compiled in zip(*(model.policy.parameters() for model in models), strict=True):
        torch.testing.assert_close(eager, compiled, rtol=0, atol=1e-5)
