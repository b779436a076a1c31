"""The packed engine of soft actor-critic against SB3's own computation."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from torch import nn

from maxent_onpolicy import SAC
from maxent_onpolicy.engine.soft.engine import SoftEngine, why_not_soft
from maxent_onpolicy.engine.soft.graphs import MOST_RECORDINGS, RecordedSteps
from maxent_onpolicy.engine.soft.update import SoftUpdate

NETWORKS = {"net_arch": {"pi": [12, 7], "qf": [9, 10]}}


class Plain(gym.Env):
    """Spaces only; batches are written into the replay buffer directly."""

    def __init__(self, observation=None):
        self.observation_space = observation or spaces.Box(-5, 5, (4,), np.float64)
        self.action_space = spaces.Box(-2, 3, (3,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def model_of(cls=SAC, env=None, policy="MlpPolicy", **kwargs):
    kwargs = {"policy_kwargs": copy.deepcopy(NETWORKS), "batch_size": 32, "buffer_size": 100, "seed": 0} | kwargs
    model = cls(policy, env or Plain(), **{"device": "cpu"} | kwargs)
    rng = np.random.default_rng(1)
    for _ in range(90):
        observation, successor = rng.normal(size=(2, 1, 4))
        info = {"TimeLimit.truncated": bool(rng.random() < 0.5)}
        action = rng.uniform(-1, 1, (1, 3)).astype(np.float32)
        model.replay_buffer.add(observation, successor, action, rng.normal(size=1), rng.random(1) < 0.3, [info])
    model.set_logger(sb3.common.logger.Logger(None, []))
    return model


def learn_from(model, gradient_steps, calls=1):
    torch.manual_seed(5)
    np.random.seed(5)
    for _ in range(calls):
        model.train(gradient_steps, model.batch_size)
    return {name: value for name, value in model.logger.name_to_value.items() if name.startswith("train/")}


def parts(model):
    result = {f"policy.{name}": value for name, value in model.policy.state_dict().items()}
    for name in ("actor", "critic"):
        states = getattr(model, name).optimizer.state_dict()["state"]
        result |= {f"{name}.{i}.{key}": value for i, state in states.items() for key, value in state.items()}
    if model.ent_coef_optimizer is not None:
        result["log_ent_coef"] = model.log_ent_coef.detach()
        state = model.ent_coef_optimizer.state_dict()["state"][0]
        result |= {f"temperature.{key}": value for key, value in state.items()}
    return {name: value.clone() for name, value in result.items()}


CASES = {
    "defaults": {},
    "start value": {"ent_coef": "auto_0.1", "target_entropy": -1.5},
    "fixed temperature": {"ent_coef": 0.2},
    "other rates": {"tau": 0.3, "gamma": 0.5, "learning_rate": 1e-3},
    "slow targets": {"target_update_interval": 3},
    "tanh, one hidden layer": {"policy_kwargs": {"net_arch": [8], "activation_fn": nn.Tanh}},
    "no hidden layer": {"policy_kwargs": {"net_arch": []}},
    "three critics": {"policy_kwargs": NETWORKS | {"n_critics": 3}},
    "one critic": {"policy_kwargs": NETWORKS | {"n_critics": 1}},
    "Adam's options": {"policy_kwargs": NETWORKS | {"optimizer_kwargs": {"betas": (0.8, 0.99), "eps": 1e-3}}},
    "long returns": {"n_steps": 3},
}


@pytest.mark.parametrize("kwargs", CASES.values(), ids=CASES)
def test_steps_equal_those_of_sb3(kwargs):
    stock, ours = model_of(sb3.SAC, **copy.deepcopy(kwargs)), model_of(engine="packed", **copy.deepcopy(kwargs))
    for calls in (1, 2):  # the second call goes on with the moments of the first
        logged, expected = learn_from(ours, 4, calls), learn_from(stock, 4, calls)
        for name, value in expected.items():
            assert logged[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
        theirs, mine = parts(stock), parts(ours)
        assert theirs.keys() == mine.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name], value, atol=2e-6, rtol=1e-4, msg=name)


def as_on_a_gpu(model, record):
    """Let the update work as on a GPU, with ``record`` in the place of CUDA graphs."""
    model._choose_engine()
    engine = model._engine
    engine._update = update = SoftUpdate(engine.model, engine._temperature, model.batch_size, on_device=True)
    parts = (engine.model.actor, engine.model.critic, engine._temperature)
    changed = [tensor for part in parts for tensor in part.state]
    update.recorded = RecordedSteps([*changed, engine.model.target.flat, update._metrics], record)
    return update


@pytest.mark.parametrize("kwargs", CASES.values(), ids=CASES)
def test_recorded_steps_equal_those_of_sb3(kwargs):
    """What a CUDA graph would record and replay, called instead; the graphs themselves need a GPU."""
    recordings = []

    def record(step):
        step()  # as the real one, which needs it for the libraries' choices
        recordings.append(step)
        return step

    settings = [{"learning_rate": lambda left: 1e-3 * left + 1e-4} | copy.deepcopy(kwargs) for _ in range(2)]
    stock, ours = model_of(sb3.SAC, **settings[0]), model_of(engine="packed", **settings[1])
    update = as_on_a_gpu(ours, record)
    for left in (1.0, 0.25):  # the learning rate changes, and nothing is recorded again
        for model in (stock, ours):
            model._current_progress_remaining = left
        logged, expected = learn_from(ours, 4, 2), learn_from(stock, 4, 2)
        assert ours._engine._update is update
        for name, value in expected.items():
            assert logged[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
        theirs, mine = parts(stock), parts(ours)
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name], value, atol=2e-5, rtol=1e-3, msg=name)
    assert len(recordings) == (2 if "target_update_interval" in kwargs else 1)


def test_other_constants_are_recorded_anew_and_few_are_kept():
    made = []
    model = model_of(engine="packed")
    update = as_on_a_gpu(model, lambda step: made.append(step) or step)
    for tau in (0.1, 0.2, 0.1):
        model.tau = tau
        learn_from(model, 1)
    assert len(made) == 2
    model.actor.optimizer.param_groups[0]["eps"] = 1e-6
    learn_from(model, 1)
    assert len(made) == 3
    for step in range(20):
        model.tau = step / 20
        learn_from(model, 1)
    assert len(update.recorded._recorded) == MOST_RECORDINGS


def test_what_cannot_be_recorded_is_computed_and_the_log_says_why(caplog):
    attempts = []

    def record(step):
        attempts.append(step)
        step()
        raise RuntimeError("operation not permitted when stream is capturing")

    stock, ours = model_of(sb3.SAC), model_of(engine="packed")
    as_on_a_gpu(ours, record)
    for model in (stock, ours):
        learn_from(model, 3)
    for name, value in parts(stock).items():
        torch.testing.assert_close(parts(ours)[name], value, atol=2e-6, rtol=1e-4, msg=name)
    assert len(attempts) == 1
    assert "not permitted when stream is capturing" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpus_graph_computes_what_autograd_does():
    models = [model_of(cls, device="cuda") for cls in (sb3.SAC, SAC)]
    for model in models:
        learn_from(model, 4, 2)
    stock, ours = models
    assert all(step is not None for step in ours._engine._update.recorded._recorded.values())
    for name, value in parts(stock).items():
        torch.testing.assert_close(parts(ours)[name], value, atol=2e-5, rtol=1e-3, msg=name)


def test_gradients_equal_those_of_autograd():
    """The gradients themselves, which Adam's first steps hide: it divides by their size."""
    stock, ours = model_of(sb3.SAC, ent_coef=0.3, gamma=0.9), model_of(engine="packed", ent_coef=0.3, gamma=0.9)
    learn_from(stock, 1)
    learn_from(ours, 1)
    for name in ("actor", "critic"):
        networks = getattr(ours._engine.model, name)
        places = dict(networks.views(networks.gradient))
        for mine, theirs in zip(getattr(ours, name).parameters(), getattr(stock, name).parameters(), strict=True):
            torch.testing.assert_close(places[mine], theirs.grad, atol=1e-7, rtol=1e-4) if name == "actor" else None
    # SB3's critics hold the gradients of the actor's loss too, added up; the moments tell the critics' own.
    for mine, theirs in zip(ours.critic.parameters(), stock.critic.parameters(), strict=True):
        moments = (ours.critic.optimizer.state[mine]["exp_avg"], stock.critic.optimizer.state[theirs]["exp_avg"])
        torch.testing.assert_close(*moments, atol=1e-7, rtol=1e-4)


def test_deviations_at_their_limits_get_no_gradient():
    stock, ours = (model_of(cls, ent_coef=0.3) for cls in (sb3.SAC, SAC))
    for model in (stock, ours):
        with torch.no_grad():
            model.actor.log_std.bias.copy_(torch.tensor([9.0, -50.0, 0.0]))
        learn_from(model, 3)
    for mine, theirs in zip(ours.actor.parameters(), stock.actor.parameters(), strict=True):
        # Three steps of 3e-4. Saturated actions have densities that float32 knows to three digits.
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-3)
    assert ours.actor.log_std.bias[:2].tolist() == [9.0, -50.0]


def test_every_parameter_moves_and_both_ways_to_the_actions_gradient_agree():
    model = model_of(engine="packed")
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    learn_from(model, 2)
    assert [name for name, value in model.policy.state_dict().items() if torch.equal(before[name], value)] == []
    update = model._engine._update
    with torch.no_grad():
        values = update._critic.forward(update._chosen)
        model.critic.qf0[-1].bias += (values[1] - values[0]).median()
        _, choice = update._critic.forward(update._chosen).min(dim=0)
        few = update._critic.input_gradient_of_choice(choice.squeeze(1), 4, torch.zeros(32, 3))
        update._critic.output_delta.zero_().scatter_(0, choice[None], 1.0)
        dense = update._critic.input_gradient(4, torch.zeros(32, 3))
    assert set(choice.flatten().tolist()) == {0, 1}
    torch.testing.assert_close(few, dense)


def test_it_acts_as_the_modules_do():
    model = model_of(engine="packed", seed=3)
    observation = np.random.default_rng(0).normal(size=(5, 4))
    actor = SoftEngine(model).model
    torch.manual_seed(7)
    ours = model.policy.unscale_action(actor.act(observation).numpy())
    torch.manual_seed(7)
    np.testing.assert_allclose(ours, model.predict(observation)[0], atol=1e-6)


def test_what_was_loaded_or_replaced_is_taken_over(tmp_path):
    model = model_of(engine="packed")
    learn_from(model, 3)
    model.save(tmp_path / "model.zip")
    expected = parts(model)
    learn_from(model, 3)
    model.set_parameters(str(tmp_path / "model.zip"), device="cpu")
    reference = model_of(sb3.SAC)
    reference.set_parameters(str(tmp_path / "model.zip"), device="cpu")
    reference.log_ent_coef.data.copy_(model.log_ent_coef.data)
    for name, value in parts(model).items():
        assert name.startswith("log_") or torch.equal(value, expected[name]), name
    learn_from(model, 3)
    learn_from(reference, 3)
    for name, value in parts(reference).items():
        torch.testing.assert_close(parts(model)[name], value, atol=2e-6, rtol=1e-4, msg=name)


class OwnPolicy(sb3.sac.policies.SACPolicy):
    def forward(self, observation, deterministic=False):
        return super().forward(observation, deterministic)


class OwnTraining(SAC):
    def train(self, gradient_steps, batch_size=64):
        super().train(gradient_steps, batch_size)


IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
DICTIONARY = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32)})
MISFITS = {
    "noise matrices": ({"use_sde": True}, "state-dependent exploration"),
    "images": ({"env": Plain(IMAGE), "policy": "CnnPolicy", "policy_kwargs": {"net_arch": [4]}}, "not vectors"),
    "dictionaries": ({"env": Plain(DICTIONARY), "policy": "MultiInputPolicy"}, "not vectors"),
    "own policy": ({"policy": OwnPolicy}, "OwnPolicy's own `forward`"),
    "activation": ({"policy_kwargs": {"activation_fn": nn.ELU}}, "ELU"),
    "optimiser": ({"policy_kwargs": {"optimizer_class": torch.optim.RMSprop}}, "the optimiser RMSprop"),
    "decay": ({"policy_kwargs": {"optimizer_kwargs": {"weight_decay": 0.1}}}, "weight_decay=0.1"),
}


@pytest.mark.parametrize(("kwargs", "reason"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_trains_eagerly_and_says_why(kwargs, reason, caplog):
    caplog.set_level("INFO")
    arguments = {"policy": "MlpPolicy", "env": Plain(), "buffer_size": 50, "device": "cpu"} | kwargs
    model = SAC(**arguments, learning_starts=4, batch_size=4).learn(6)
    assert model._engine is None
    lines = [record.message for record in caplog.records if "training with the eager engine" in record.message]
    assert len(lines) == 1
    assert reason in lines[0]
    with pytest.raises(ValueError, match="`engine='packed'` cannot train this model because of"):
        SAC(**arguments, engine="packed").learn(1)


def test_a_subclass_with_its_own_update_is_left_alone():
    assert why_not_soft(OwnTraining("MlpPolicy", Plain(), buffer_size=9)) == "OwnTraining's own `train`"


def test_hooks_and_frozen_parameters_are_respected():
    model = model_of()
    handle = model.critic.qf0.register_forward_hook(lambda *_: None)
    assert "hook" in why_not_soft(model)
    handle.remove()
    assert why_not_soft(model) is None
    next(model.actor.parameters()).requires_grad_(False)
    assert "frozen" in why_not_soft(model)
