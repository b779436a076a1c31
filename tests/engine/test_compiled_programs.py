"""Programs that a compiler made: eager's numbers, the same bits twice, and a cache that outlives a process."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from engine_helpers import largest_difference, make, parameters, random_envs, share_rollout, train_both
from gymnasium import spaces
from test_compiled import BOX, STEADY, TANH, NoisyFeatures, Pictures, whole_runs

from maxent_onpolicy import PPO, MaxEntPPO
from maxent_onpolicy.engine.compiled.cache import VARIABLE, cache_directory, kept_programs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*truncated mini-batch"),
    pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler"),
]
CASES = {
    "remainder, clipped values, early stop": (
        PPO,
        BOX,
        {"batch_size": 50, "clip_range_vf": 0.1, "target_kl": 0.01, "learning_rate": 3e-3},
    ),
    "everything on a tanh-Gaussian": (
        MaxEntPPO,
        BOX,
        {"policy_kwargs": TANH | {"entropy_net_arch": [16]}, "popart": True, "ent_coef": 0.01, "tau": "auto"},
    ),
    "Beta": (MaxEntPPO, BOX, {"policy_kwargs": {"action_distribution": "beta"}, "ent_coef": 0.01}),
    "unequal categoricals": (MaxEntPPO, spaces.MultiDiscrete([2, 5]), {"ent_coef": 0.01}),
    "noise matrices": (PPO, BOX, {"use_sde": True}),
}


@pytest.mark.parametrize(("algorithm", "action_space", "kwargs"), CASES.values(), ids=CASES.keys())
def test_one_update_equals_autograds(algorithm, action_space, kwargs):
    eager = make(algorithm, "eager", random_envs(action_space), **kwargs)
    compiled = make(algorithm, "compiled", random_envs(action_space), **kwargs)
    share_rollout(eager, compiled)
    with torch.no_grad():
        compiled._estimate_advantages(compiled.rollout_buffer)
    train_both(eager, compiled)
    assert largest_difference(eager, compiled) < 2e-6
    logged = compiled.logger.name_to_value
    for name, value in eager.logger.name_to_value.items():
        assert logged[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize(("policy", "dictionary"), [("CnnPolicy", False), ("MultiInputPolicy", True)])
def test_images_and_dictionaries_give_eagers_parameters(policy, dictionary):
    eager, compiled = whole_runs(policy, lambda: Pictures(dictionary), policy_kwargs=STEADY)
    assert largest_difference(eager, compiled) < 1e-6


def test_twice_the_same_seed_gives_the_same_bits_and_dropout_draws_eagers_numbers():
    kwargs = {"policy_kwargs": {"features_extractor_class": NoisyFeatures}}
    runs = whole_runs("MlpPolicy", lambda: random_envs(n_envs=1), engines=("compiled", "compiled", "eager"), **kwargs)
    first, second, eager = runs
    assert all(torch.equal(a, b) for a, b in zip(parameters(first), parameters(second), strict=True))
    assert largest_difference(first, eager) < 1e-4


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    def env():
        return random_envs(spaces.Discrete(3))

    models = [make(MaxEntPPO, "compiled", env(), popart=True).learn(240)]
    models[0].save(tmp_path / "model")
    models.append(MaxEntPPO.load(tmp_path / "model", env=env(), device="cpu"))
    for model in models:
        model.set_env(env())
        model.set_random_seed(11)
        model.learn(240, reset_num_timesteps=False)
    assert all(torch.equal(a, b) for a, b in zip(*map(parameters, models), strict=True))


def test_programs_are_kept_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with kept_programs():
        assert os.environ[VARIABLE] == str(tmp_path / "maxent_onpolicy" / "inductor")
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, str(Path(tempfile.gettempdir()) / "torchinductor_me"))  # as inductor itself does
    model = make(PPO, "auto", compile=True, verbose=1, policy_kwargs={"net_arch": [7]}).learn(120)
    assert model._engine.name == "compiled"
    assert model.logger.name_to_value["time/compile_seconds"] > 0
    assert any((tmp_path / "maxent_onpolicy" / "inductor").rglob("*"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "elsewhere"))
    assert cache_directory() == Path(tmp_path / "elsewhere")


def test_a_compiler_that_fails_leaves_the_model_to_the_eager_engine(monkeypatch, tmp_path, capsys):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "empty"))
    # Not with `monkeypatch`, which cannot give torch's settings back: later compilations would fail.
    with torch._inductor.config.patch({"cpp.cxx": (str(broken),)}):
        model = make(PPO, "auto", compile=True, verbose=1, policy_kwargs={"net_arch": [9]}).learn(120)
    assert "This model cannot be compiled because of" in capsys.readouterr().out
    reference = make(PPO, "eager", policy_kwargs={"net_arch": [9]}).learn(120)
    assert largest_difference(model, reference) < 1e-6
