"""Controllers as objects: what they do with statistics, which arguments they take, and what contradicts them."""

import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from maxent_onpolicy import PPO, MaxEntPPO
from maxent_onpolicy.algorithms import controlled
from maxent_onpolicy.algorithms.controlled import max_entropy
from maxent_onpolicy.controllers import (
    BAPO,
    CONTROLLERS,
    PPOBR,
    EntropyCoefSchedule,
    EntropyRatioClip,
    KLAdaptiveLR,
    ModelFacts,
    RolloutStatistics,
    TargetEntropy,
    UpdateSettings,
    describe_controllers,
    make_controllers,
)
from maxent_onpolicy.engine.distributed import World

FACTS = ModelFacts(
    learning_rate=3e-4, max_entropy=2.0, default_target_entropy=-1.0, entropy_is_exact=True, discrete=False
)
SETTINGS = UpdateSettings(learning_rate=3e-4, clip_range=0.2, clip_range_high=None, ent_coef=0.0)


def started(controller, facts=FACTS):
    controller.start(facts)
    return controller


def rollout(entropy=1.0, episode_return=None, progress=1.0):
    return RolloutStatistics(entropy, episode_return, progress)


def test_ppo_br_widens_with_entropy_and_narrows_on_a_plateau():
    controller = started(PPOBR(window=2, squash=False))
    returns = (None, 5.0, 7.0, 10.0, 10.0, 10.0)
    ranges = [controller.before_update(rollout(1.0, each), SETTINGS).clip_range for each in returns]
    # 0.2·(1 + 0.5·0.5 − 0.3·ψ); ψ compares with two updates before: 0.5 (5 → 10), 0.7 (7 → 10), 1 (10 → 10).
    assert ranges == pytest.approx([0.25, 0.25, 0.25, 0.22, 0.208, 0.19])
    assert controller.to_log() == {"entropy_share": 0.5, "reward_plateau": 1.0}
    assert started(PPOBR(max_entropy=4.0, squash=False)).before_update(rollout(), SETTINGS).clip_range == 0.225


def test_kl_adaptive_rate_starts_at_the_models_and_moves_after_updates():
    controller = started(KLAdaptiveLR())
    assert controller.before_update(rollout(), SETTINGS).learning_rate == 3e-4
    controller.after_update(0.05)
    assert controller.before_update(rollout(), SETTINGS).learning_rate == pytest.approx(2e-4)


def test_kl_adaptive_rate_moves_once_an_epoch_if_asked_to():
    controller = started(KLAdaptiveLR(every="epoch"))
    assert controller.after_epoch(0.001) == pytest.approx(4.5e-4)
    controller.after_update(0.001)
    assert controller.rate == pytest.approx(4.5e-4)


def test_target_entropy_uses_its_initial_value_first():
    controller = started(TargetEntropy(learning_rate=0.5))
    assert controller.before_update(rollout(3.0), SETTINGS).ent_coef == 0.01
    second = controller.before_update(rollout(3.0), SETTINGS).ent_coef
    assert second == pytest.approx(0.01 * math.exp(0.5 * (-1.0 - 3.0)))
    assert controller.to_log() == {"ent_coef": second, "ent_coef_gap": 4.0}


def test_target_entropy_by_addition():
    controller = started(TargetEntropy(target=0.2, initial=0.0, step="additive"))
    weights = [controller.before_update(rollout(each), SETTINGS).ent_coef for each in (0.1, 0.1, 0.1, 0.3)]
    assert weights == pytest.approx([0.0, 0.005, 0.01, 0.005])


def test_schedule_of_the_entropy_coefficient():
    controller = started(EntropyCoefSchedule(initial=0.1, final=0.02))
    weights = [controller.before_update(rollout(progress=each), SETTINGS).ent_coef for each in (1.0, 0.5, 0.0)]
    assert weights == pytest.approx([0.1, 0.06, 0.02])
    controller = started(EntropyCoefSchedule(initial=0.1, end_fraction=0.25))
    weights = [controller.before_update(rollout(progress=each), SETTINGS).ent_coef for each in (1.0, 0.875, 0.75, 0.5)]
    assert weights == pytest.approx([0.1, 0.05, 0.0, 0.0])
    with pytest.raises(ValueError, match="end_fraction"):
        EntropyCoefSchedule(end_fraction=0)


def test_bapo_and_erc_hand_over_their_bounds():
    settings = started(BAPO(low=[0.6, 0.8], high=[1.2, 1.5], step=0.1, target=0.4)).before_update(rollout(), SETTINGS)
    assert settings.balance.lows == pytest.approx((0.6, 0.7, 0.8))
    assert settings.balance.highs == pytest.approx((1.2, 1.3, 1.4, 1.5))
    assert settings.balance.target == 0.4
    assert (settings.clip_range, settings.clip_range_high) == pytest.approx((0.4, 0.2))
    settings = started(EntropyRatioClip(), FACTS._replace(discrete=True)).before_update(rollout(), SETTINGS)
    assert settings.entropy_bounds == (0.8, 1.2, True)


@pytest.mark.parametrize(
    ("space", "bounded", "expected"),
    [
        (spaces.Discrete(4), False, math.log(4)),
        (spaces.MultiDiscrete([2, 3]), False, math.log(6)),
        (spaces.MultiBinary(3), False, 3 * math.log(2)),
        (spaces.Box(-1, 1, (2,), np.float32), True, 2 * math.log(2)),
        (spaces.Box(-1, 1, (2,), np.float32), False, math.log(2 * math.pi * math.e)),
    ],
)
def test_entropy_of_the_uniform_policy(space, bounded, expected):
    assert max_entropy(space, bounded) == pytest.approx(expected)


@pytest.mark.parametrize(
    "given",
    ["ppo_br", {"ppo_br": None}, [{"ppo_br": {}}], ["ppo_br"], PPOBR(), [PPOBR()], {"ppo_br": True}],
)
def test_ways_to_name_a_controller(given):
    assert make_controllers(given) == [PPOBR()]


def test_names_with_keywords():
    given = [{"ppo_br": {"entropy_weight": 0.25}}, {"kl_adaptive_lr": {"bounds": [1e-4, 1e-3]}, "target_entropy": {}}]
    expected = [PPOBR(entropy_weight=0.25), KLAdaptiveLR(bounds=(1e-4, 1e-3)), TargetEntropy()]
    assert make_controllers(given) == expected
    assert make_controllers(None) == make_controllers([]) == []


def test_every_controller_is_described_with_its_defaults():
    rows = dict(describe_controllers())
    assert rows.keys() == CONTROLLERS.keys()
    assert "low=[0.6, 0.9], high=[1.2, 3.0], step=0.05, target=0.5" in rows["bapo"]
    assert "entropy_weight=0.5, reward_weight=0.3, window=10" in rows["ppo_br"]


BAD = {
    "unknown name": ("ppo_brr", "got 'ppo_brr' (did you mean 'ppo_br'?)"),
    "unknown keyword": ({"bapo": {"taget": 1}}, "bapo takes no 'taget' (did you mean 'target'?)"),
    "no keywords": ({"bapo": 3}, "expected keywords with values for bapo, got 3"),
    "no controller": ([3], "must be controllers, names or names with keywords, got 3"),
    "value": ({"bapo": {"target": 1.0}}, "`controllers`: bapo: `target` must be in [0, 1), got 1.0"),
    "low above 1": ({"bapo": {"low": [0.6, 1.1]}}, "`low[1]` must be in [0.6, 1], got 1.1"),
    "high below 1": ({"bapo": {"high": [0.9, 1.1]}}, "`high[0]` must be in [1, inf), got 0.9"),
    "step": ({"bapo": {"step": 0}}, "`step` must be in (0, inf), got 0"),
    "weight": ({"ppo_br": {"reward_weight": 1}}, "`reward_weight` must be in [0, 1), got 1"),
    "window": ({"ppo_br": {"window": 0}}, "`window` must be in [1, inf), got 0"),
    "squash": ({"ppo_br": {"squash": "no"}}, "`squash` must be one of True, False; got 'no'"),
    "ratio": ({"entropy_ratio_clip": {"low": 1.0}}, "`low` must be in (-inf, 1), got 1.0"),
    "text": ({"entropy_ratio_clip": {"high": "much"}}, "`high` must be a number in (1, inf), got 'much'"),
    "margin": ({"kl_adaptive_lr": {"margin": 0.5}}, "`margin` must be in [1, inf), got 0.5"),
    "every": ({"kl_adaptive_lr": {"every": "step"}}, "`every` must be one of 'update', 'epoch'; got 'step'"),
    "bounds": ({"kl_adaptive_lr": {"bounds": 1}}, "`bounds` must be a pair (low, high), got 1"),
    "kind": ({"entropy_coef_schedule": {"kind": "cosin"}}, "got 'cosin' (did you mean 'cosine'?)"),
    "exponential": ({"entropy_coef_schedule": {"kind": "exponential"}}, "`final` must be in (0, inf), got 0.0"),
    "initial": ({"target_entropy": {"initial": 0}}, "`initial` must be in [1e-06, 1], got 0"),
    "rule": ({"target_entropy": {"step": "adam"}}, "`step` must be one of 'dual', 'additive'; got 'adam'"),
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(given, message):
    with pytest.raises(ValueError, match="controllers") as error:
        PPO("MlpPolicy", "CartPole-v1", controllers=given, device="cpu")
    assert message in str(error.value)


CONTRADICTIONS = {
    "two of one": (["ppo_br", "bapo"], {}, "PPOBR and BAPO both set `clip_range`"),
    "two weights": (["target_entropy", "entropy_coef_schedule"], {}, "TargetEntropy and EntropyCoefSchedule both set"),
    "a rate's schedule": ("kl_adaptive_lr", {"learning_rate": lambda p: p}, "KLAdaptiveLR and a schedule of `learning"),
    "early stopping": ("kl_adaptive_lr", {"target_kl": 0.01}, "KLAdaptiveLR and `target_kl=0.01` contradict"),
    "a clip range": ("bapo", {"clip_range": 0.1}, "BAPO and `clip_range=0.1` contradict each other"),
    "its schedule": ("bapo", {"clip_range": lambda p: p}, "BAPO and a schedule of `clip_range`"),
    "a weight": ("target_entropy", {"ent_coef": 0.01}, "TargetEntropy and `ent_coef=0.01`"),
    "a weight and a schedule": ("entropy_coef_schedule", {"ent_coef": 0.01}, "EntropyCoefSchedule and `ent_coef=0.01`"),
}


@pytest.mark.parametrize(("given", "kwargs", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_contradictions_name_both_sides(given, kwargs, message):
    with pytest.raises(ValueError, match="leave one out") as error:
        PPO("MlpPolicy", "CartPole-v1", controllers=given, device="cpu", **kwargs)
    assert message in str(error.value)


def test_a_temperature_and_a_coefficient_cannot_steer_the_same_entropy():
    with pytest.raises(ValueError, match="TargetEntropy and `tau='auto'` contradict each other"):
        MaxEntPPO("MlpPolicy", "CartPole-v1", controllers="target_entropy", tau="auto", device="cpu")
    MaxEntPPO("MlpPolicy", "CartPole-v1", controllers="entropy_coef_schedule", tau="auto", device="cpu")


def test_the_entropy_ratio_needs_an_entropy():
    policy = {"action_distribution": "tanh_gaussian"}
    with pytest.raises(ValueError, match="EntropyRatioClip needs a distribution whose entropy has a closed form"):
        PPO("MlpPolicy", "Pendulum-v1", controllers="entropy_ratio_clip", policy_kwargs=policy, device="cpu")


def test_several_processes_refuse_what_looks_at_whole_minibatches(monkeypatch):
    monkeypatch.setattr(controlled, "world", lambda: World(rank=0, size=2))
    PPO("MlpPolicy", "CartPole-v1", controllers=["ppo_br", "entropy_ratio_clip"], device="cpu")
    with pytest.raises(ValueError, match="BAPO looks at whole minibatches, which several processes split"):
        PPO("MlpPolicy", "CartPole-v1", controllers="bapo", device="cpu")


def test_models_do_not_share_state():
    given = PPOBR()
    models = [PPO("MlpPolicy", "CartPole-v1", n_steps=64, controllers=[given], device="cpu") for _ in range(2)]
    models[0].learn(64)
    assert models[0].controllers[0].clip_range is not None
    assert models[1].controllers[0].clip_range is None
    assert given == PPOBR()


def test_the_models_own_arguments_stay_as_given():
    env = gym.make("CartPole-v1")
    model = PPO("MlpPolicy", env, n_steps=64, controllers=["target_entropy", "kl_adaptive_lr"], device="cpu").learn(64)
    assert (model.ent_coef, model.learning_rate) == (0.0, 3e-4)
    assert model.logger.name_to_value["train/ent_coef"] == 0.01
