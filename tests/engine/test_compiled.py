"""The compiled engine's traced steps against autograd, its guards and its fallbacks; nothing here calls a compiler."""

import copy
import logging

import gymnasium as gym
import numpy as np
import pytest
import torch
from engine_helpers import largest_difference, make, random_envs, share_rollout, train_both
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from maxent_onpolicy import PPO, RPO, MaxEntPPO
from maxent_onpolicy.engine.compiled import fits, update
from maxent_onpolicy.engine.compiled.capture import CapturedEpoch
from maxent_onpolicy.engine.compiled.engine import MOST_COMPILATIONS
from maxent_onpolicy.engine.compiled.program import adam_coefficients
from maxent_onpolicy.policies import Bfloat16Extractor

BOX = spaces.Box(-1, 1, (2,), np.float32)
TANH = {"action_distribution": "tanh_gaussian", "state_dependent_std": True, "log_std_bounds": (-3, 1)}
CASES = {
    "Gaussian": (PPO, BOX, {}),
    "tanh-Gaussian": (MaxEntPPO, BOX, {"policy_kwargs": TANH, "ent_coef": 0.01}),
    "Beta": (MaxEntPPO, BOX, {"policy_kwargs": {"action_distribution": "beta"}, "ent_coef": 0.01}),
    "noise matrices": (PPO, BOX, {"use_sde": True}),
    "categorical": (MaxEntPPO, spaces.Discrete(4), {"ent_coef": 0.01, "entropy_reward": "exact"}),
    "unequal categoricals": (PPO, spaces.MultiDiscrete([2, 5]), {"ent_coef": 0.01}),
    "Bernoulli": (PPO, spaces.MultiBinary(3), {"ent_coef": 0.01}),
    "remainder": (PPO, BOX, {"batch_size": 50}),
    "one minibatch": (PPO, BOX, {"batch_size": 4096}),
    "early stop": (PPO, BOX, {"target_kl": 1e-4, "learning_rate": 3e-3}),
    "clipped values": (PPO, BOX, {"clip_range_vf": 0.1, "max_grad_norm": 0.05, "clip_range": 0.05}),
    "no normalisation": (PPO, BOX, {"normalize_advantage": False}),
    "PopArt": (MaxEntPPO, BOX, {"popart": True, "clip_range_vf": 0.1}),
    "network of its own": (MaxEntPPO, BOX, {"tau": 0.1, "policy_kwargs": {"entropy_net_arch": [16]}}),
    "separate normalisation": (MaxEntPPO, BOX, {"tau": "auto", "advantage_normalization": "separate"}),
    "augmented reward": (MaxEntPPO, BOX, {"reward_augmentation": True}),
    "shifted mean": (RPO, BOX, {"batch_size": 50, "ent_coef": 0.01}),
    "shifted mean, noise matrices": (MaxEntPPO, BOX, {"rpo_alpha": 0.3, "use_sde": True}),
    "shifted mean, early stop": (RPO, BOX, {"target_kl": 0.02, "rpo_alpha": 0.1, "learning_rate": 3e-3}),
    "no temperature": (MaxEntPPO, BOX, {"tau": 0.0}),
    "magnet": (MaxEntPPO, spaces.Discrete(4), {"magnet": "ema", "magnet_coef": 0.5, "magnet_decay": 0.5}),
    "Adam's options": (PPO, BOX, {"policy_kwargs": {"optimizer_kwargs": {"betas": (0.8, 0.99), "weight_decay": 0.1}}}),
}
# One of each kind of distribution, loss and loop is among the fast tests.
SLOW = {
    *("Beta", "unequal categoricals", "Bernoulli", "one minibatch", "no normalisation", "network of its own"),
    *("augmented reward", "shifted mean, noise matrices", "shifted mean, early stop", "Adam's options"),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*truncated mini-batch")


@pytest.fixture
def traced(monkeypatch):
    """Interpret the traced graphs instead of compiling them."""
    monkeypatch.setattr(update, "compile_graph", lambda graph, *_: graph)
    monkeypatch.setattr(fits, "why_no_compiler", lambda device: None)


def optimizer_state(model):
    moments = model.policy.optimizer.state_dict()["state"]
    return {(index, name): value for index, state in moments.items() for name, value in state.items()}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CASES])
def test_one_update_equals_autograds(traced, name):
    algorithm, action_space, kwargs = CASES[name]
    eager = make(algorithm, "eager", random_envs(action_space), **kwargs)
    compiled = make(algorithm, "compiled", random_envs(action_space), **kwargs)
    for _ in range(2):
        share_rollout(eager, compiled)
        with torch.no_grad():
            compiled._estimate_advantages(compiled.rollout_buffer)
        train_both(eager, compiled)
        assert largest_difference(eager, compiled) < 2e-6
        compiled.policy.load_state_dict(eager.policy.state_dict())
    theirs, ours = optimizer_state(eager), optimizer_state(compiled)
    assert theirs.keys() == ours.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, atol=1e-5, rtol=1e-4)
    logged = compiled.logger.name_to_value
    assert {name for name in logged if name != "time/compile_seconds"} == eager.logger.name_to_value.keys()
    for name, value in eager.logger.name_to_value.items():
        assert logged[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


class Pictures(gym.Env):
    """Random images, or dictionaries of an image, a number and a vector."""

    def __init__(self, dictionary=False):
        image = spaces.Box(0, 255, (36, 36, 3), np.uint8)
        vector = spaces.Box(-1, 1, (3,), np.float64)
        parts = spaces.Dict({"image": image, "number": spaces.Discrete(3), "vector": vector})
        self.observation_space = parts if dictionary else image
        self.action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(action), self.np_random.random() < 0.1, False, {}


# With SB3's 1e-5, Adam makes whole steps of gradients that are rounding alone, as many of a convolution are.
STEADY = {"optimizer_kwargs": {"eps": 1e-3}}


def whole_runs(policy, env, algorithm=MaxEntPPO, engines=("eager", "compiled"), steps=96, **kwargs):
    settings = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 1, "device": "cpu"} | kwargs
    return [algorithm(policy, env(), engine=engine, **settings).learn(steps) for engine in engines]


@pytest.mark.parametrize(("policy", "dictionary"), [("CnnPolicy", False), ("MultiInputPolicy", True)])
def test_whole_runs_on_images_and_dictionaries_equal_eager_runs(traced, policy, dictionary):
    eager, compiled = whole_runs(policy, lambda: Pictures(dictionary), policy_kwargs=STEADY)
    assert largest_difference(eager, compiled) < 1e-6
    torch.testing.assert_close(eager.rollout_buffer.action, compiled.rollout_buffer.action)


def test_bfloat16_features_are_traced_as_they_are_computed(traced):
    kwargs = {"policy_kwargs": {"features_extractor_class": Bfloat16Extractor}}
    eager, compiled = whole_runs("CnnPolicy", Pictures, steps=64, **kwargs)
    assert compiled.current_engine.name == "compiled"
    # Gradients pass through bfloat16 too, where Adam makes a step of 3e-4 of the last of three digits.
    assert largest_difference(eager, compiled) < 1e-3


class NoisyFeatures(BaseFeaturesExtractor):
    """Layers whose state moves and whose output is random while they train."""

    def __init__(self, space):
        super().__init__(space, 8)
        # No bias before the normalisation: its gradient is rounding alone, which Adam makes steps of.
        self.layers = nn.Sequential(nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3))

    def forward(self, observation):
        return self.layers(observation)


@pytest.mark.parametrize("target_kl", [None, 0.002])
def test_batch_normalisation_and_dropout_do_what_they_do_eagerly(traced, target_kl):
    kwargs = {"policy_kwargs": {"features_extractor_class": NoisyFeatures}, "target_kl": target_kl}
    eager, compiled = whole_runs("MlpPolicy", lambda: random_envs(n_envs=1), **kwargs)
    for name, value in eager.policy.state_dict().items():
        torch.testing.assert_close(compiled.policy.state_dict()[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_a_device_that_is_not_asked_stops_at_the_same_minibatch(traced):
    """What a GPU does: after the divergence was too large, the remaining steps of the epoch do nothing."""
    models = []
    for asks in (True, False):
        kwargs = {
            "target_kl": 1e-3,
            "learning_rate": 3e-3,
            "policy_kwargs": {"features_extractor_class": NoisyFeatures},
        }
        model = make(PPO, "compiled", **kwargs)
        model.learn(120)
        model._engine._update.asks_every_minibatch = asks
        torch.manual_seed(7)  # dropout in the steps that do nothing draws numbers too
        state = np.random.get_state()
        model.train()
        np.random.set_state(state)
        models.append(model)
    asking, not_asking = models
    assert largest_difference(asking, not_asking) == 0
    steps = [model.policy.optimizer.state_dict()["state"][0]["step"] for model in models]
    assert steps[0] == steps[1] < 2 * 3 * 4  # both updates were cut short
    logged = [{k: v for k, v in model.logger.name_to_value.items() if k.startswith("train/")} for model in models]
    assert logged[0] == logged[1]
    for name, value in asking.policy.state_dict().items():
        assert torch.equal(not_asking.policy.state_dict()[name], value), name


def test_preparing_changes_nothing(traced):
    model = make(MaxEntPPO, "compiled", policy_kwargs={"features_extractor_class": NoisyFeatures})
    _, callback = model._setup_learn(1000)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 40)
    model.policy.set_training_mode(True)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    generators = torch.get_rng_state(), np.random.get_state()[1].copy()
    distribution = model.policy.action_dist.distribution
    model._engine._prepare(model, model._clip_ranges())
    assert torch.equal(generators[0], torch.get_rng_state())
    assert (generators[1] == np.random.get_state()[1]).all()
    assert model.policy.action_dist.distribution is distribution
    assert torch.distributions.Distribution._validate_args == __debug__
    for name, value in model.policy.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(float(state["step"]) == 0 for state in model.policy.optimizer.state.values())


def test_a_resumed_run_ends_as_an_uninterrupted_one(traced, tmp_path):
    def env():
        return random_envs(spaces.Discrete(3))

    settings = {"tau": "auto", "popart": True, "use_sde": False}
    whole = make(MaxEntPPO, "compiled", env(), **settings).learn(240)
    # These environments cannot be restored: both continue from a reset with the same seed.
    first = make(MaxEntPPO, "compiled", env(), **settings).learn(240)
    first.save(tmp_path / "model")
    loaded = MaxEntPPO.load(tmp_path / "model", env=env(), device="cpu")
    assert loaded.was_compiled
    for model in (whole, loaded):
        model.set_env(env())
        model.set_random_seed(11)
        model.learn(240, reset_num_timesteps=False)
    assert largest_difference(whole, loaded) == 0
    assert all(
        torch.equal(a, b)
        for a, b in zip(optimizer_state(whole).values(), optimizer_state(loaded).values(), strict=True)
    )


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_adams_coefficients_are_those_of_the_paper(betas):
    coefficients = adam_coefficients(3, 2, 0.01, betas)
    expected = [[0.01 / (1 - betas[0] ** t), (1 - betas[1] ** t) ** 0.5] for t in (4, 5)]
    torch.testing.assert_close(coefficients, torch.tensor(expected))


def test_schedules_and_changed_weights_need_no_new_program(traced):
    model = make(PPO, "compiled", ent_coef=0.01, clip_range=lambda p: 0.1 + 0.1 * p, learning_rate=lambda p: 1e-3 * p)
    model.learn(240)
    programs = model._engine._update
    model.ent_coef, model.vf_coef, model.max_grad_norm, model.target_kl = 0.02, 0.7, 0.1, 5.0
    reference = make(PPO, "eager", ent_coef=0.02, vf_coef=0.7, max_grad_norm=0.1, clip_range=0.2, learning_rate=1e-3)
    model.clip_range, model.lr_schedule = reference.clip_range, reference.lr_schedule
    reference.policy.load_state_dict(model.policy.state_dict())
    reference.policy.optimizer.load_state_dict(copy.deepcopy(model.policy.optimizer.state_dict()))
    share_rollout(reference, model)
    with torch.no_grad():
        model._estimate_advantages(model.rollout_buffer)
    train_both(reference, model)
    assert model._engine._update is programs
    assert largest_difference(reference, model) < 2e-6


def test_another_kind_of_step_gets_a_new_program(traced, capsys):
    model = make(PPO, "compiled", verbose=1).learn(120)
    model.normalize_advantage = False
    model.learn(120)
    assert "again, because of `normalize_advantage`, which has changed" in capsys.readouterr().out


class ReadsNumpy(PPO):
    def _loss(self, batch, clip):
        loss, metrics = super()._loss(batch, clip)
        return loss * (2.0 if loss.item() > 0 else 1.0), metrics


class Assigns(PPO):
    def _loss(self, batch, clip):
        self.last_batch = batch
        return super()._loss(batch, clip)


class CountsUpdates(PPO):
    def _loss(self, batch, clip):
        loss, metrics = super()._loss(batch, clip)
        return loss * (1 + self._n_updates), metrics


class Remembers(BaseFeaturesExtractor):
    def forward(self, observation):
        self.latest = observation
        return observation


@pytest.mark.parametrize(
    ("algorithm", "kwargs", "reason"),
    [
        (ReadsNumpy, {}, "DataDependent"),
        (Assigns, {}, "`last_batch`, which the loss assigns"),
        (
            PPO,
            {
                "policy_kwargs": {
                    "features_extractor_class": Remembers,
                    "features_extractor_kwargs": {"features_dim": 5},
                }
            },
            "`latest`, which features_extractor assigns while it runs",
        ),
    ],
)
def test_what_does_not_trace_is_trained_eagerly_with_the_reason(traced, capsys, algorithm, kwargs, reason):
    model = make(algorithm, "auto", compile=True, verbose=1, **kwargs).learn(120)
    printed = capsys.readouterr().out
    assert "This model cannot be compiled because of" in printed
    assert reason in printed
    assert largest_difference(model, make(algorithm, "eager", **kwargs).learn(120)) < 1e-6
    with pytest.raises(ValueError, match="`engine='compiled'` cannot train this model because of"):
        make(algorithm, "compiled", **kwargs).learn(120)


@pytest.mark.slow
def test_a_loss_that_changes_with_every_update_is_not_compiled_for_ever(traced, capsys):
    model = make(CountsUpdates, "auto", compile=True, verbose=1).learn(120 * (MOST_COMPILATIONS + 2))
    printed = capsys.readouterr().out
    assert printed.count("Compiled the update") == MOST_COMPILATIONS
    assert "`_n_updates`, which keeps changing: training with the eager engine" in printed
    assert largest_difference(model, make(CountsUpdates, "eager").learn(120 * (MOST_COMPILATIONS + 2))) < 1e-5


def hooked(model):
    model.policy.mlp_extractor.register_forward_hook(lambda *_: None)


def gradient_hooked(model):
    model.policy.log_std.register_hook(lambda gradient: gradient)


def step_hooked(model):
    model.policy.optimizer.register_step_post_hook(lambda *_: None)


def partly_optimised(model):
    model.policy.optimizer = torch.optim.Adam(list(model.policy.parameters())[1:])


def amsgrad(model):
    model.policy.optimizer.param_groups[0]["amsgrad"] = True


def plain_descent(model):
    model.policy.optimizer = torch.optim.SGD(model.policy.parameters(), lr=1e-3)


def two_groups(model):
    model.policy.optimizer = torch.optim.Adam([{"params": [p]} for p in model.policy.parameters()])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (hooked, "a forward or backward hook on mlp_extractor"),
        (gradient_hooked, "a hook on the gradient of log_std"),
        (step_hooked, "a hook on the optimiser"),
        (partly_optimised, "an optimiser that does not hold all of the policy's parameters"),
        (amsgrad, "Adam's option amsgrad=True"),
        (plain_descent, "the optimiser SGD"),
        (two_groups, "an optimiser with several parameter groups"),
    ],
)
def test_what_is_known_beforehand_is_named_at_once(traced, change, reason):
    model = make(PPO, "auto", use_sde=True, compile=True)
    change(model)
    assert model.current_engine.name == "eager"
    assert model.engine_message.startswith(f"Nothing is compiled because of {reason}")
    model = make(PPO, "compiled")
    change(model)
    with pytest.raises(ValueError, match=f"because of {reason}"):
        model.learn(120)


def test_a_hook_that_comes_later_is_not_missed(traced, capsys):
    model = make(PPO, "auto", compile=True, verbose=1).learn(120)
    calls = []
    model.policy.optimizer.register_step_post_hook(lambda *_: calls.append(1))
    model.learn(120)
    assert len(calls) == 3 * 4
    assert "because of a hook on the optimiser: training with the eager engine" in capsys.readouterr().out


def test_what_is_frozen_later_stays_as_it_is(traced):
    models = []
    for engine in ("eager", "compiled"):
        model = make(PPO, engine).learn(120)
        model.policy.log_std.requires_grad_(False)
        before = model.policy.log_std.clone()
        model.learn(120)
        assert torch.equal(model.policy.log_std, before)
        models.append(model)
    assert largest_difference(*models) < 1e-5


def test_without_a_compiler_a_model_is_trained_without_one(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "a-compiler-that-is-not-there")
    with caplog.at_level(logging.INFO, "maxent_onpolicy"):
        assert make(PPO, "auto", compile=True).learn(120)._engine.name == "packed"
        assert make(PPO, "auto", use_sde=True, compile=True).learn(120)._engine.name == "eager"
    assert "no C++ compiler (`a-compiler-that-is-not-there` is not installed; CXX names another)" in caplog.text
    with pytest.raises(ValueError, match="no C\\+\\+ compiler"):
        make(PPO, "compiled").learn(120)


def test_compile_false_never_calls_a_compiler(monkeypatch):
    monkeypatch.setattr(torch, "compile", pytest.fail)
    monkeypatch.setattr(fits, "COMPILE_SECONDS", 0.0)
    model = make(PPO, "auto", use_sde=True, compile=False).learn(240)
    assert model._engine.name == "eager"
    assert "`compile=False`" in model.engine_message


def test_auto_compiles_only_what_pays(traced, capsys):
    model = make(PPO, "auto", use_sde=True, verbose=1)
    programs = 2  # 120 samples in minibatches of 32 leave a remainder
    needed = fits.break_even(model)
    assert needed == programs * fits.COMPILE_SECONDS / fits.SAVED_SECONDS
    model._setup_learn(120)
    assert fits.minibatches_to_come(model) == 3 * 4
    assert model.current_engine.name == "eager"
    iterations = needed // (3 * 4)
    model._setup_learn(iterations * 120)
    assert model.current_engine.name == "eager"
    model._setup_learn((iterations + 1) * 120)
    assert model.current_engine.name == "compiled"
    printed = capsys.readouterr().out
    assert "nothing is compiled because of a short run (12 minibatches" in printed
    assert printed.rstrip().endswith("training with the compiled engine.")


def test_a_model_that_was_compiled_stays_compiled_in_a_short_rest_of_its_run(traced):
    model = make(PPO, "auto", use_sde=True)
    model.was_compiled = True
    assert model.learn(120)._engine.name == "compiled"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"engine": "compiled", "compile": False}, "`compile=False` forbids what `engine='compiled'` needs"),
        ({"engine": "packed", "compile": True}, "`engine='packed'` compiles nothing"),
        ({"engine": "auto", "compile": "yes"}, "`compile` must be one of True, False, 'auto'; got 'yes'"),
    ],
)
def test_contradictions_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(PPO, **kwargs)


def test_what_cannot_be_recorded_as_a_cuda_graph_is_launched_one_by_one(caplog):
    """This machine has no GPU, so recording fails."""
    if torch.cuda.is_available():
        pytest.skip("recording works here")
    counter = torch.zeros(())
    calls = [(lambda total: total.add_(1), [counter])] * 3
    epoch = CapturedEpoch(calls)
    epoch.run(lambda: torch.random.fork_rng([]))
    epoch.run(lambda: torch.random.fork_rng([]))
    assert counter == 6
    assert caplog.text.count("CUDA graphs cannot record the update") == 1
    assert epoch.fits(calls)
    assert not epoch.fits([(calls[0][0], [torch.zeros(())])] * 3)
