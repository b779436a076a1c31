"""Controllers in every engine: the same as eager, nothing where they have nothing to do, and exact after a resume."""

import numpy as np
import pytest
import torch
from engine_helpers import largest_difference, make, parameters, random_envs, share_rollout, train_both
from gymnasium import spaces

from maxent_onpolicy import PPO, RPO, MaxEntPPO, make_vec_env
from maxent_onpolicy.controllers import (
    BAPO,
    PPOBR,
    Controller,
    EntropyBounds,
    EntropyCoefSchedule,
    EntropyRatioClip,
    KLAdaptiveLR,
)
from maxent_onpolicy.engine.compiled.engine import CompiledEngine

pytestmark = pytest.mark.filterwarnings("ignore:`batch_size")

ACTIONS = {
    "gaussian": spaces.Box(-1, 1, (2,), np.float32),
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(3),
}
NARROW = EntropyRatioClip(low=0.998, high=1.001)
CASES = {
    "ppo_br": PPOBR(),
    "bapo": BAPO(),
    "entropy_ratio_clip": NARROW,
    "kl_adaptive_lr": KLAdaptiveLR(every="epoch", target_kl=1e-3),
    "entropy_coef_schedule": EntropyCoefSchedule(initial=0.05, kind="constant"),
    "all": ["bapo", NARROW, "target_entropy", KLAdaptiveLR(every="epoch", target_kl=1e-3)],
}
LOGGED = {
    "ppo_br": {"clip_range", "entropy_share", "reward_plateau"},
    "bapo": {"clip_low", "clip_high"},
    "entropy_ratio_clip": {"entropy_ratio_kept"},
    "kl_adaptive_lr": {"learning_rate"},
    "entropy_coef_schedule": {"ent_coef"},
    "all": {"clip_low", "clip_high", "entropy_ratio_kept", "ent_coef", "ent_coef_gap", "learning_rate"},
}


def with_engine(algorithm, name, actions, **kwargs):
    """A model on an engine; the compiled one interprets what it has traced, which takes no compiler."""
    model = make(algorithm, "packed" if name == "packed" else "eager", random_envs(actions), **kwargs)
    if name == "compiled":
        model._engine = CompiledEngine(required=True, backend=None)
    return model


def logged(model):
    return {key[6:]: float(value) for key, value in model.logger.name_to_value.items() if key.startswith("train/")}


PAIRS = [*((case, actions, "packed") for case in CASES for actions in ACTIONS)]
PAIRS += [(case, actions, "compiled") for case, actions in zip(CASES, ["gaussian", "discrete"] * 3, strict=True)]


@pytest.mark.parametrize(("case", "actions", "engine"), PAIRS)
def test_engines_do_what_eager_does(case, actions, engine):
    kwargs = {"controllers": CASES[case], "learning_rate": 3e-3}
    algorithm = MaxEntPPO if actions == "gaussian" else PPO
    eager, other = (with_engine(algorithm, name, ACTIONS[actions], **kwargs) for name in ("eager", engine))
    share_rollout(eager, other)
    with torch.no_grad():
        other._estimate_advantages(other.rollout_buffer)
    before = parameters(eager)
    train_both(eager, other)
    assert largest_difference(eager, other) < 1e-6
    assert logged(eager).keys() >= LOGGED[case]
    assert logged(other) == pytest.approx(logged(eager), rel=1e-4, abs=1e-6)
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(before, parameters(eager), strict=True))


def trained(engine, actions, **kwargs):
    return with_engine(PPO, engine, ACTIONS[actions], learning_rate=3e-3, **kwargs).learn(40 * 3 * 2)


NOTHING = {
    "bounds that cannot move": BAPO(low=(0.8, 0.8), high=(1.2, 1.2)),
    "a target that is always met": BAPO(low=(0.8, 0.9), high=(1.2, 3.0), target=0.0),
    "infinite bounds": EntropyRatioClip(low=float("-inf"), high=float("inf")),
    "a margin that is never left": KLAdaptiveLR(margin=1e30),
    "a margin that is never left, by epoch": KLAdaptiveLR(margin=1e30, every="epoch"),
    "weights of 0": PPOBR(entropy_weight=0.0, reward_weight=0.0),
    "none": [],
}


@pytest.mark.parametrize(
    ("actions", "engine"),
    [("gaussian", "eager"), pytest.param("discrete", "eager", marks=pytest.mark.slow), ("discrete", "packed")],
)
@pytest.mark.parametrize("controllers", NOTHING.values(), ids=NOTHING.keys())
def test_controllers_with_nothing_to_do_change_nothing(controllers, actions, engine):
    """Bit for bit."""
    controlled, plain = trained(engine, actions, controllers=controllers), trained(engine, actions)
    assert all(torch.equal(a, b) for a, b in zip(parameters(controlled), parameters(plain), strict=True))


@pytest.mark.parametrize(
    ("actions", "engine"), [*((each, "packed") for each in ACTIONS), ("gaussian", "eager"), ("gaussian", "compiled")]
)
def test_a_constant_schedule_is_the_keyword(actions, engine):
    schedule = EntropyCoefSchedule(initial=0.03, kind="constant")
    scheduled, constant = trained(engine, actions, controllers=schedule), trained(engine, actions, ent_coef=0.03)
    assert largest_difference(scheduled, constant) < (1e-6 if engine == "packed" else 1e-12)


@pytest.mark.parametrize("engine", ["eager", "packed"])
def test_the_entropy_ratio_stops_policy_gradients(engine):
    """Where no sample is kept, the actor stays as it is; the critic learns on."""
    shut = EntropyBounds(low=2.0, high=3.0, discrete=True)
    model = with_engine(PPO, engine, ACTIONS["discrete"], controllers=NARROW, learning_rate=3e-3).learn(120)
    assert 0.1 < logged(model)["entropy_ratio_kept"] < 0.9
    model.controllers[0].before_update = lambda rollout, settings: settings._replace(entropy_bounds=shut)
    actor, critic = (head.weight.detach().clone() for head in (model.policy.action_net, model.policy.value_net))
    for group in model.policy.optimizer.state.values():  # Adam's momentum would go on
        group["exp_avg"].zero_()
    model.train()
    assert logged(model)["entropy_ratio_kept"] == 0.0
    assert torch.equal(actor, model.policy.action_net.weight)
    assert not torch.equal(critic, model.policy.value_net.weight)


def test_programs_are_compiled_once_for_numbers_that_change():
    given = ["ppo_br", "target_entropy", KLAdaptiveLR(every="epoch")]
    model = with_engine(PPO, "compiled", ACTIONS["gaussian"], controllers=given)
    model.learn(40 * 3 * 4)
    assert model._engine._compilations == 1
    assert model._engine._eager is None
    assert model.controllers[2].rate != 3e-4


@pytest.mark.parametrize(("algorithm", "engine"), [(PPO, "packed"), (MaxEntPPO, "eager"), (RPO, "packed")])
def test_resume_is_exact(tmp_path, algorithm, engine):
    given = [PPOBR(window=2), "target_entropy", {"kl_adaptive_lr": {"target_kl": 1e-4}}, "entropy_ratio_clip"]

    def model_in():
        env = make_vec_env("Pendulum-v1", 2, seed=3)
        return algorithm("MlpPolicy", env, n_steps=100, n_epochs=2, seed=3, controllers=given, engine=engine)

    whole = model_in().learn(800)
    rate = whole.controllers[2].rate
    whole.learn(800, reset_num_timesteps=False)
    model_in().learn(800).save(tmp_path / "model")
    resumed = algorithm.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", 2, seed=3), resume=True)
    assert resumed.controllers[2].rate == rate != 3e-4
    resumed.learn(800, reset_num_timesteps=False)
    assert resumed.controllers == whole.controllers
    assert whole.controllers[0].plateau > 0
    assert all(torch.equal(a, b) for a, b in zip(parameters(whole), parameters(resumed), strict=True))


def test_a_loss_of_its_own_would_ignore_them():
    class OwnLoss(PPO):
        def _loss(self, batch, clip):
            return super()._loss(batch, clip)

    OwnLoss("MlpPolicy", "CartPole-v1", controllers="ppo_br", device="cpu")
    with pytest.raises(ValueError, match="BAPO acts in PPO's loss, which OwnLoss replaces by its own `_loss`"):
        OwnLoss("MlpPolicy", "CartPole-v1", controllers="bapo", device="cpu")


def test_a_controller_of_ones_own():
    class Halving(Controller):
        quantity = "clip_range"

        def before_update(self, rollout, settings):
            return settings._replace(clip_range=0.5 * settings.clip_range)

    model = make(PPO, "packed", controllers=Halving()).learn(120)
    assert logged(model)["clip_range"] == 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "controllers", [["ppo_br", "target_entropy", "kl_adaptive_lr"], ["bapo", "entropy_ratio_clip"]]
)
def test_controlled_models_learn(controllers):
    env = make_vec_env("CartPole-v1", 8, seed=0)
    model = PPO("MlpPolicy", env, n_steps=128, batch_size=256, seed=0, controllers=controllers, device="cpu")
    if "target_entropy" in controllers:
        model.controllers[1].target = 0.4
    model.learn(60_000)
    assert np.mean([info["r"] for info in model.ep_info_buffer]) > 150
