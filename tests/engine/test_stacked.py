"""One update of stacked models against the update of each alone, from the same rollouts."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from maxent_onpolicy import PPO, RPO, MaxEntPPO, make_vec_env
from maxent_onpolicy.algorithms.train_seeds import train_together
from maxent_onpolicy.engine.packed import model as packed_model
from maxent_onpolicy.engine.packed import stacked
from maxent_onpolicy.engine.packed.arrays import TORCH

SEEDS = (3, 4, 5)


class Random(gym.Env):
    """Observations and rewards without any meaning, for any action space."""

    def __init__(self, action_space: spaces.Space) -> None:
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self._observe(), float(self.np_random.normal()), self.np_random.random() < 0.1, False, {}

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


ACTIONS = {
    "gaussian": spaces.Box(-1, 1, (2,), np.float32),
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([3, 3]),
    "multi_binary": spaces.MultiBinary(3),
}


def with_rollout(cls: type[PPO], seed: int, actions: str = "gaussian", **kwargs: Any) -> PPO:
    env = make_vec_env(lambda: Random(ACTIONS[actions]), 4, seed=seed)
    model = cls("MlpPolicy", env, seed=seed, **{"n_steps": 32, "n_epochs": 3, "device": "cpu", **kwargs})
    _, callback = model._setup_learn(1)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model


def update_together(models: list[PPO]) -> None:
    def training(model: PPO) -> Any:
        def train(join: Any) -> None:
            assert join(model) is None
            model.train()

        return train

    np.random.seed(11)
    for member in train_together([training(model) for model in models]):
        if member.error is not None:
            raise member.error


def update_alone(model: PPO) -> None:
    np.random.seed(11)
    model.train()


def largest_difference(a: PPO, b: PPO) -> float:
    pairs = zip(a.policy.parameters(), b.policy.parameters(), strict=True)
    moments = (
        (a.policy.optimizer.state[p][name], b.policy.optimizer.state[q][name])
        for p, q in zip(a.policy.parameters(), b.policy.parameters(), strict=True)
        for name in ("exp_avg", "exp_avg_sq", "step")
    )
    return max((p.detach() - q.detach()).abs().max().item() for p, q in [*pairs, *moments])


def logged(model: PPO) -> dict[str, float]:
    return {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}


VARIED = {
    "tau": [0.0, 0.01, 0.5],
    "entropy_gamma": [0.9, 0.99, 1.0],
    "entropy_gae_lambda": [0.0, 0.5, 0.95],
    "learning_rate": [3e-4, 1e-3, 1e-2],
    "clip_range": [0.1, 0.2, 0.3],
    "vf_coef": [0.5, 1.0, 0.25],
    "entropy_vf_coef": [1.0, 0.5, 2.0],
    "max_grad_norm": [0.5, 0.1, 10.0],
}
ERC = {"entropy_ratio_clip": {"low": 0.995, "high": 1.002}}
WEIGHTS = [{"entropy_coef_schedule": {"initial": weight, "kind": "constant"}} for weight in (0.0, 0.02, 0.1)]
SETTINGS = {
    "plain": (PPO, {}, {}),
    "discrete": (PPO, {"actions": "discrete"}, {}),
    "multi_discrete": (MaxEntPPO, {"actions": "multi_discrete", "ent_coef": 0.02}, {}),
    "multi_binary": (PPO, {"actions": "multi_binary", "ent_coef": 0.02}, {}),
    "remainder": (MaxEntPPO, {"batch_size": 50}, {}),
    "one_batch": (PPO, {"batch_size": 1000}, {}),
    "popart": (MaxEntPPO, {"popart": True, "clip_range_vf": 0.1}, {}),
    "separate": (MaxEntPPO, {"advantage_normalization": "separate"}, {}),
    "own_trunk": (MaxEntPPO, {"policy_kwargs": {"entropy_net_arch": [64, 64], "activation_fn": torch.nn.ReLU}}, {}),
    "tanh": (MaxEntPPO, {"policy_kwargs": {"action_distribution": "tanh_gaussian"}}, {}),
    "state_dependent_std": (PPO, {"policy_kwargs": {"state_dependent_std": True}, "ent_coef": 0.01}, {}),
    "target_kl": (PPO, {"n_epochs": 6, "learning_rate": 3e-3}, {"target_kl": [0.002, 0.01, None]}),
    "varied": (MaxEntPPO, {}, VARIED),
    "rules of clipping": (PPO, {"learning_rate": 3e-3, "controllers": ["bapo", ERC]}, {}),
    "rules of clipping, discrete": (PPO, {"actions": "discrete", "controllers": ["bapo", ERC], "batch_size": 50}, {}),
    "rates within updates": (PPO, {"controllers": {"kl_adaptive_lr": {"every": "epoch", "target_kl": 1e-4}}}, {}),
    "entropy coefficients": (MaxEntPPO, {}, {"controllers": WEIGHTS}),
    "entropy coefficients, std": (PPO, {"policy_kwargs": {"state_dependent_std": True}}, {"controllers": WEIGHTS}),
    "entropy coefficients, tanh": (
        PPO,
        {"policy_kwargs": {"action_distribution": "tanh_gaussian"}},
        {"controllers": WEIGHTS},
    ),
    "entropy coefficients, discrete": (PPO, {"actions": "multi_discrete"}, {"controllers": WEIGHTS}),
    "entropy coefficients, binary": (PPO, {"actions": "multi_binary"}, {"controllers": WEIGHTS}),
    "shifted_mean": (RPO, {"batch_size": 50}, {"rpo_alpha": [0.0, 0.1, 0.5]}),
}


@pytest.mark.filterwarnings("ignore:`batch_size")
@pytest.mark.parametrize("name", SETTINGS)
def test_stacked_update_is_each_models_own(name: str) -> None:
    cls, shared, varied = SETTINGS[name]
    own = [{key: values[index] for key, values in varied.items()} for index in range(len(SEEDS))]
    alone = [with_rollout(cls, seed, **shared, **each) for seed, each in zip(SEEDS, own, strict=True)]
    together = [with_rollout(cls, seed, **shared, **each) for seed, each in zip(SEEDS, own, strict=True)]

    for model in alone:
        update_alone(model)
    update_together(together)

    for a, b in zip(alone, together, strict=True):
        assert largest_difference(a, b) <= 1e-6
        assert a._n_updates == b._n_updates
        assert logged(b) == pytest.approx(logged(a), rel=1e-5, abs=1e-6)


def test_models_are_really_trained_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    train = stacked.Stacked.train
    monkeypatch.setattr(
        stacked.Stacked, "train", lambda self, requests: counts.append(len(requests)) or train(self, requests)
    )

    update_together([with_rollout(PPO, seed) for seed in SEEDS])

    assert counts == [3, 3, 3]  # one an epoch


def test_stacked_update_is_that_of_autograd() -> None:
    models = [with_rollout(MaxEntPPO, seed) for seed in SEEDS]
    eager = [with_rollout(MaxEntPPO, seed, engine="eager") for seed in SEEDS]
    for a, b in zip(models, eager, strict=True):
        b.policy.load_state_dict(a.policy.state_dict())
        b.rollout_buffer = copy.deepcopy(a.rollout_buffer)
        update_alone(b)

    update_together(models)

    for a, b in zip(models, eager, strict=True):
        pairs = zip(a.policy.parameters(), b.policy.parameters(), strict=True)
        assert max((p - q).abs().max().item() for p, q in pairs) <= 1e-5


ON_A_DEVICE = ["plain", "discrete", "popart", "target_kl", "varied", "shifted_mean"]
ON_A_DEVICE += [
    "rules of clipping",
    "rules of clipping, discrete",
    "entropy coefficients",
    "entropy coefficients, tanh",
]


@pytest.mark.parametrize("name", ON_A_DEVICE)
@pytest.mark.filterwarnings("ignore:`batch_size")
def test_the_devices_step_is_the_hosts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls, shared, varied = SETTINGS[name]
    own = [{key: values[index] for key, values in varied.items()} for index in range(len(SEEDS))]
    host = [with_rollout(cls, seed, **shared, **each) for seed, each in zip(SEEDS, own, strict=True)]
    device = [with_rollout(cls, seed, **shared, **each) for seed, each in zip(SEEDS, own, strict=True)]
    update_together(host)

    make = stacked.Stacked.__init__
    made: list[int] = []

    def with_torch(self: Any, requests: Any) -> None:
        made.append(len(requests))
        with monkeypatch.context() as patch:
            patch.setattr(packed_model, "arrays_for", lambda device: TORCH)
            make(self, requests)

    monkeypatch.setattr(stacked.Stacked, "__init__", with_torch)
    update_together(device)

    # Its steps are recorded once, whoever stops early, until most have left.
    assert made == ([3, 1] if name == "target_kl" else [3])
    assert len({model._n_updates for model in device}) == (3 if name == "target_kl" else 1)
    for a, b in zip(host, device, strict=True):
        assert largest_difference(a, b) <= 1e-5
        assert a._n_updates == b._n_updates


def test_models_of_different_shapes_are_stacked_apart() -> None:
    wide = {"policy_kwargs": {"net_arch": [16]}}
    kinds = [{}, wide, {}, wide, {"ent_coef": 0.1}]
    alone = [with_rollout(PPO, seed, **each) for seed, each in enumerate(kinds)]
    together = [with_rollout(PPO, seed, **each) for seed, each in enumerate(kinds)]

    for model in alone:
        update_alone(model)
    update_together(together)

    assert max(largest_difference(a, b) for a, b in zip(alone, together, strict=True)) <= 1e-6


def test_a_model_that_diverges_spoils_no_other() -> None:
    models, alone = [with_rollout(PPO, seed) for seed in SEEDS], with_rollout(PPO, SEEDS[2])
    models[1].rollout_buffer.advantage[0, 0] = float("nan")
    update_alone(alone)

    with pytest.raises(ValueError, match="became NaN or Inf"):
        update_together(models)

    assert largest_difference(models[2], alone) <= 1e-6
