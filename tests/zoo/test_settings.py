"""The settings in the Zoo's form: they build, and say what their sources say."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import rl_zoo3
import yaml

from maxent_onpolicy.zoo import algorithms, register, settings_file
from maxent_onpolicy.zoo.manager import Experiment
from maxent_onpolicy.zoo.registration import SETTINGS

FILES = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(SETTINGS.glob("*.yml"))}
BLOCKS = [
    pytest.param(name, env_id, marks=[] if name == "maxent_ppo" or env_id == "Pendulum-v1" else pytest.mark.slow)
    for name in algorithms()
    for env_id in FILES[name]
]
# Which environment a block that names none is tried with.
STAND_INS = {"default": "InvertedPendulum-v5", "atari": "ALE/Pong-v5"}
NEEDS = {"LunarLander-v3": "Box2D", "LunarLanderContinuous-v3": "Box2D", "atari": "ale_py"}
CONTINUOUS = {"Pendulum-v1", "MountainCarContinuous-v0", "LunarLanderContinuous-v3"}
MUJOCO = {"Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Humanoid-v5"}
DISCRETE = {"CartPole-v1", "Acrobot-v1", "LunarLander-v3"}
# What an algorithm adds to, or has in place of, what the Zoo publishes for the algorithm that it extends.
_ENTROPY = {"tau", "entropy_gamma", "entropy_gae_lambda", "entropy_vf_coef", "advantage_normalization"}
OWN = {
    "maxent_ppo": {*_ENTROPY, "popart", "ent_coef", "normalize"},
    "maxent_trpo": {*_ENTROPY, "popart", "normalize"},
    "rpo": {"rpo_alpha", "use_sde", "sde_sample_freq"},
}
ZOO_FILES = Path(rl_zoo3.__file__).parent / "hyperparams"


def experiment(name: str, env_id: str, folder: Path, **options: Any) -> Experiment:
    register()
    arguments = argparse.Namespace()
    options = {"eval_freq": -1, "n_timesteps": 1, "verbose": 0, "device": "cpu", **options}
    return Experiment(arguments, name, env_id, str(folder), **options)


@pytest.mark.parametrize(("name", "env_id"), BLOCKS)
def test_every_block_builds_its_model(name, env_id, tmp_path):
    if env_id in NEEDS:
        pytest.importorskip(NEEDS[env_id])
    setup = experiment(name, STAND_INS.get(env_id, env_id), tmp_path)

    prepared = setup.setup_experiment()

    assert prepared is not None
    model, settings = prepared
    assert type(model) is algorithms()[name]
    assert setup.config == str(settings_file(name))
    assert settings.items() >= FILES[name][env_id].items()
    assert model.env.num_envs == FILES[name][env_id].get("n_envs", 1)
    if name.startswith("maxent"):
        assert model.uses_entropy_critic
        assert model.current_tau == FILES[name][env_id]["tau"]
    model.env.close()


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_covers_the_usual_tasks(name):
    discrete = set() if name in ("rpo", "mop_sac") else DISCRETE
    assert set(FILES[name]) >= {"default"} | CONTINUOUS | MUJOCO | discrete


@pytest.mark.parametrize("name", sorted(FILES))
def test_values_are_those_that_the_zoo_publishes(name):
    base = name.removeprefix("maxent_").removeprefix("mop_").replace("rpo", "ppo").replace("tppo", "trpo")
    published = yaml.safe_load((ZOO_FILES / f"{base}.yml").read_text(encoding="utf-8"))
    own = OWN.get(name, set())
    for env_id, block in FILES[name].items():
        theirs = published[env_id.replace("-v5", "-v4")]
        expected = {key: value for key, value in theirs.items() if key not in own}
        found = {key: value for key, value in block.items() if key not in own}
        for kwargs in (expected, found):
            if "policy_kwargs" in kwargs:
                kwargs["policy_kwargs"] = "".join(kwargs["policy_kwargs"].split())
        if name == "rpo" and "policy_kwargs" in expected:
            expected["policy_kwargs"] = re.sub(r"log_std_init=-[\d.]+,", "", expected["policy_kwargs"])
        assert found == expected, env_id
        assert block.keys() >= own & {"tau", "entropy_gamma", "entropy_gae_lambda", "rpo_alpha"}
        if own and "normalize" in own:  # rewards stay in their unit
            kwargs = block.get("normalize", "dict(norm_reward=False)")
            assert ("normalize" in block) == ("normalize" in theirs)
            assert "norm_reward=False" in kwargs


def test_a_linear_schedule_of_the_temperature(tmp_path):
    setup = experiment("maxent_ppo", "CartPole-v1", tmp_path, hyperparams={"tau": "lin_0.1"})
    model, _ = setup.setup_experiment()
    model._current_progress_remaining = 0.25
    assert model.current_tau == pytest.approx(0.025)
    model.env.close()
