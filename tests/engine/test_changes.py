"""Models that are changed between two calls of learn(), or copied; integers that become floats."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from engine_helpers import largest_difference, make, random_envs
from gymnasium import spaces
from stable_baselines3.common import vec_env as sb3_vec_env
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from maxent_onpolicy import PPO
from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.compiled.engine import CompiledEngine
from maxent_onpolicy.engine.finite import NonFiniteError
from maxent_onpolicy.envs.normalize import VecNormalize

Policy = PPO.policy_aliases["MlpPolicy"]


def new_optimizer(model):
    model.policy.optimizer = torch.optim.Adam(model.policy.parameters(), lr=1e-3)


def use_sgd(model):
    model.policy.optimizer = torch.optim.SGD(model.policy.parameters(), lr=1e-2)


def decay_weights(model):
    model.policy.optimizer.param_groups[0]["weight_decay"] = 0.1


def freeze_actor(model):
    model.policy.mlp_extractor.policy_net.requires_grad_(False)


def replace_value_net(model):
    model.policy.value_net = nn.Linear(64, 1)
    nn.init.constant_(model.policy.value_net.weight, 0.01)
    nn.init.zeros_(model.policy.value_net.bias)
    new_optimizer(model)


def append_layer(model):
    model.policy.action_net = nn.Sequential(model.policy.action_net, nn.Tanh())


def hook_layer(model):
    model.policy.action_net.register_forward_hook(lambda module, inputs, output: 0.5 * output)


def hook_gradient(model):
    for parameter in model.policy.value_net.parameters():
        parameter.register_hook(torch.zeros_like)


def hook_optimizer(model):
    parameter = model.policy.log_std
    model.policy.optimizer.register_step_post_hook(lambda *_: parameter.data.clamp_(min=-0.001))


# With the engine that "auto" takes then.
CHANGES = {
    new_optimizer: "packed",
    use_sgd: "eager",
    decay_weights: "eager",
    freeze_actor: "eager",
    replace_value_net: "packed",
    append_layer: "eager",
    hook_layer: "eager",
    hook_gradient: "eager",
    hook_optimizer: "eager",
}


class ChangesOnce(BaseCallback):
    """Changes the model between a rollout and its update."""

    def __init__(self, change):
        super().__init__()
        self.change, self.rollouts = change, 0

    def _on_rollout_end(self):
        self.rollouts += 1
        if self.rollouts == 2:
            self.change(self.model)

    def _on_step(self):
        return True


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("when", [pytest.param("between", marks=pytest.mark.slow), "within"])
def test_a_changed_model_trains_as_eagerly(change, when):
    models = []
    for engine in ("eager", "auto"):
        model = make(PPO, engine)  # seeds the generators
        if when == "within":
            model.learn(360, callback=ChangesOnce(change))
        else:
            change(model.learn(120))
            model.learn(240, reset_num_timesteps=False)
        models.append(model)
    assert largest_difference(*models) < 1e-5
    assert models[1].current_engine.name == CHANGES[change]


def test_another_optimizer_leaves_compiled_programs_for_the_eager_engine():
    models = []
    for engine in (None, CompiledEngine(backend=None)):
        model = make(PPO, "eager").learn(120)
        _, callback = model._setup_learn(240, reset_num_timesteps=False)
        model._engine = engine
        for _ in range(2):
            model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
            model.train()
            use_sgd(model)
        models.append(model)
    assert largest_difference(*models) < 1e-5


def test_the_engine_can_be_changed():
    model = make(PPO, "auto").learn(120)
    model.engine = "eager"
    assert model.learn(120).current_engine.name == "eager"
    model.engine = "pakced"
    with pytest.raises(ValueError, match=r"`engine`.*'pakced'.*'packed'"):
        model.learn(120)


@pytest.mark.parametrize("engine", ["eager", "packed"])
def test_other_steps_than_the_buffer_holds_are_refused(engine, tmp_path):
    model = make(PPO, engine).learn(120)
    model.save(tmp_path / "model")
    model.n_steps = 20
    with pytest.raises(ValueError, match="`n_steps` is 20, but the rollout buffer was made for 40 steps"):
        model.learn(60)
    assert PPO.load(tmp_path / "model", env=random_envs(), n_steps=20, engine=engine).learn(60).num_timesteps == 60


@pytest.mark.parametrize("engine", ["eager", "packed"])
def test_a_standard_deviation_of_zero_is_divergence(engine):
    model = make(PPO, engine)
    nn.init.constant_(model.policy.log_std, -200.0)
    with pytest.raises(NonFiniteError, match=r"diverge|became NaN or Inf"):
        model.learn(120)


def test_a_copy_trains_as_the_original_and_alone():
    model = make(PPO, "packed").learn(120)
    with torch.no_grad():
        model.policy.get_distribution(torch.zeros(1, 5))  # torch copies no tensor of an autograd graph
    clone = copy.deepcopy(model)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    for each in (clone, model):
        torch.manual_seed(0)
        np.random.seed(0)
        each.learn(240, reset_num_timesteps=False)
        if each is clone:
            assert all(torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))
    assert largest_difference(model, clone) == 0


class ScalesRewards(RolloutBuffer):
    def add(self, *args, **kwargs):
        super().add(*args, **kwargs)
        self.reward[self.pos - 1] *= 0.1


class HalvesAdvantages(RolloutBuffer):
    def get(self, batch_size=None):
        for batch in super().get(batch_size):
            yield batch._replace(advantage=batch.advantage / 2)


class NoBias(Policy):
    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        self.action_net = nn.Linear(64, 2, bias=False)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1))


class NoActivation(Policy):
    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        self.mlp_extractor.value_net = self.mlp_extractor.value_net[:-1]
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1))


class SharedWeight(Policy):
    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        self.mlp_extractor.value_net[0].weight = self.mlp_extractor.policy_net[0].weight
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1))


BYPASSED = {
    "add": ({"rollout_buffer_class": ScalesRewards}, "ScalesRewards's own `add`"),
    "get": ({"rollout_buffer_class": HalvesAdvantages}, "HalvesAdvantages's own `get`"),
    "bias": ({"policy": NoBias}, "a linear layer without bias"),
    "activation": ({"policy": NoActivation}, "a layer Linear without an activation"),
    "shared": ({"policy": SharedWeight}, "a parameter that two layers share"),
}


@pytest.mark.parametrize(("kwargs", "reason"), BYPASSED.values(), ids=BYPASSED.keys())
def test_what_the_packed_engine_would_bypass_is_left_to_the_eager_one(kwargs, reason, caplog):
    caplog.set_level("INFO")
    settings = {"policy": "MlpPolicy", "n_steps": 40, "batch_size": 32, "n_epochs": 1, "device": "cpu"} | kwargs
    model = PPO(env=random_envs(), **settings).learn(120)
    assert model.current_engine.name == "eager"
    assert reason in caplog.text


class Counts(gym.Env):
    """Integer observations of 0 to 9."""

    def __init__(self, dtype):
        self.observation_space = spaces.Box(0, 9, (3,), dtype)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def _observe(self):
        return self.np_random.integers(0, 10, 3).astype(self.observation_space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        return self._observe(), 0.0, False, self.steps == 10, {}


@pytest.mark.parametrize("engine", ["eager", "packed"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("wrapper", [sb3_vec_env.VecNormalize, VecNormalize])
def test_normalised_integers_are_stored_as_the_floats_that_they_are(engine, dtype, wrapper):
    venv = wrapper(sb3_vec_env.DummyVecEnv([lambda: Counts(dtype) for _ in range(3)]))
    model = make(PPO, engine, env=venv).learn(240)
    observation = model.rollout_buffer.observation
    assert observation.dtype == torch.float32
    assert (observation < 0).any()
    assert (observation % 1 != 0).any()


def test_a_buffer_with_a_method_of_its_own_is_not_compiled():
    model = make(PPO, "compiled", rollout_buffer_class=HalvesAdvantages)
    with pytest.raises(ValueError, match="HalvesAdvantages's own `get`"):
        model.learn(120)
