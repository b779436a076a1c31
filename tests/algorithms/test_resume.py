"""save → load → learn continues as if it had never stopped."""

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from noise_env import Noise
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from stable_baselines3.common.vec_env import VecNormalize as SB3VecNormalize

from maxent_onpolicy import PPO, RPO, SAC, TRPO, MaxEntPPO, MaxEntTRPO, make_vec_env
from maxent_onpolicy.envs import VecNormalize
from maxent_onpolicy.envs.state import StateNotRestorableError

KWARGS = {"n_steps": 64, "batch_size": 64, "n_epochs": 2, "seed": 3, "device": "cpu"}
TRUST_REGION = {"n_epochs": None, "n_critic_updates": 2}
EVERYTHING = {
    "tau": "auto",
    "popart": True,
    "learning_rate": LinearSchedule(1e-3, 0.0, 1.0),
    "policy_kwargs": {"entropy_net_arch": [16], "action_distribution": "tanh_gaussian"},
}


def state(model):
    parts = {f"policy.{k}": v for k, v in model.policy.state_dict().items()}
    for index, moments in enumerate(model.policy.optimizer.state_dict()["state"].values()):
        parts |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    if getattr(model, "tau", None) == "auto":
        parts["log_tau"] = model.log_tau.detach()
    return {name: value.clone() for name, value in parts.items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(second[name], value), name


def normalised(cls, env_id="Pendulum-v1"):
    return lambda: cls(make_vec_env(env_id, 2, seed=3))


CASES = {
    "classic control": (MaxEntPPO, lambda: make_vec_env("Pendulum-v1", 2, seed=3), {}),
    "terminations": (PPO, lambda: make_vec_env("CartPole-v1", 2, seed=3), {}),
    "every option, our normalisation": (MaxEntPPO, normalised(VecNormalize), EVERYTHING),
    "SB3's normalisation": (MaxEntPPO, normalised(SB3VecNormalize), {}),
    "noise matrices": (MaxEntPPO, lambda: make_vec_env("Pendulum-v1", 2, seed=3), {"use_sde": True}),
    "SB3's DummyVecEnv": (PPO, lambda: DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 1), {}),
    "MuJoCo": (MaxEntPPO, normalised(VecNormalize, "Hopper-v5"), {}),
    "tensors": (PPO, lambda: make_vec_env("Pendulum-v1", 2, seed=3, backend="torch", device="cpu"), {}),
    "TRPO": (TRPO, lambda: make_vec_env("CartPole-v1", 2, seed=3), TRUST_REGION),
    "TRPO, eager": (TRPO, lambda: make_vec_env("Pendulum-v1", 2, seed=3), TRUST_REGION | {"engine": "eager"}),
    "MaxEntTRPO, every option": (MaxEntTRPO, normalised(VecNormalize), TRUST_REGION | EVERYTHING),
    "MuJoCo that reads derived quantities": (MaxEntPPO, lambda: make_vec_env("Ant-v5", 2, seed=3), {}),
}


@pytest.mark.parametrize(("algorithm", "make_env", "kwargs"), CASES.values(), ids=CASES.keys())
def test_continues_bit_for_bit(tmp_path, algorithm, make_env, kwargs):
    n_envs = make_env().num_envs
    cut, total = 3 * 64 * n_envs, 6 * 64 * n_envs
    # The same two calls with and without the file between them. (Constructing a model seeds the global generators.)
    kwargs = {name: value for name, value in (KWARGS | kwargs).items() if value is not None}
    whole = algorithm("MlpPolicy", make_env(), **kwargs).learn(cut)
    whole.learn(total - cut, reset_num_timesteps=False)
    first = algorithm("MlpPolicy", make_env(), **kwargs).learn(cut)
    first.save(tmp_path / "model")
    first.get_env().close()
    torch.manual_seed(999)
    np.random.seed(999)
    resumed = algorithm.load(tmp_path / "model", env=make_env(), resume=True, device="cpu")
    assert resumed.num_timesteps == cut
    resumed.learn(total - cut, reset_num_timesteps=False)
    assert_same(state(whole), state(resumed))
    np.testing.assert_array_equal(whole._last_obs, resumed._last_obs)
    for name in ("r", "l"):
        assert [info[name] for info in whole.ep_info_buffer] == [info[name] for info in resumed.ep_info_buffer]


ON_A_GPU = {
    "PPO": (PPO, "numpy", {}),
    "PPO, eager": (PPO, "numpy", {"engine": "eager"}),
    "MaxEntPPO": (MaxEntPPO, "numpy", {"tau": "auto", "popart": True}),
    "MaxEntPPO on tensors": (MaxEntPPO, "torch", {}),
    "RPO": (RPO, "numpy", {}),
    "TRPO": (TRPO, "numpy", TRUST_REGION),
    "MaxEntTRPO on tensors": (MaxEntTRPO, "torch", TRUST_REGION),
    "SAC": (SAC, "numpy", None),
    "SAC on tensors": (SAC, "torch", None),
}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("algorithm", "backend", "kwargs"), ON_A_GPU.values(), ids=ON_A_GPU)
def test_continues_bit_for_bit_on_a_gpu(tmp_path, algorithm, backend, kwargs):
    settings = {"batch_size": 64, "learning_starts": 100, "buffer_size": 2000, "seed": 3}
    if kwargs is not None:
        settings = {name: value for name, value in (KWARGS | kwargs).items() if value is not None}
    settings["device"] = "cuda"

    def make_env():
        options = {"backend": "torch", "device": "cuda"} if backend == "torch" else {}
        return make_vec_env("Pendulum-v1", 4, seed=3, **options)

    whole = algorithm("MlpPolicy", make_env(), **settings).learn(512)
    whole.learn(512, reset_num_timesteps=False)
    algorithm("MlpPolicy", make_env(), **settings).learn(512).save_checkpoint(tmp_path / "model.zip")
    resumed = algorithm.load(tmp_path / "model.zip", env=make_env(), device="cuda", resume=True)
    resumed.learn(512, reset_num_timesteps=False)
    for name, value in whole.policy.state_dict().items():
        assert torch.equal(resumed.policy.state_dict()[name], value), name


def test_episodes_on_a_device_are_counted_anew_after_a_reset():
    env = make_vec_env("Pendulum-v1", 2, seed=3, backend="torch", device="cpu")
    model = PPO("MlpPolicy", env, **KWARGS).learn(2 * 64)
    model.learn(2 * 64 * 4)
    assert [info["l"] for info in model.ep_info_buffer] == [200, 200]


def test_a_checkpoint_taken_before_a_rollout_continues_bit_for_bit(tmp_path):
    """As a killed run does: the file is written in the middle of one call of learn()."""

    class SavesOnce(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_start(self):
            if self.num_timesteps == 256:
                self.model.save(tmp_path / "checkpoint")

    def make_env():
        return VecNormalize(make_vec_env("Pendulum-v1", 2, seed=3))

    whole = MaxEntPPO("MlpPolicy", make_env(), use_sde=True, **KWARGS, learning_rate=LinearSchedule(1e-3, 0.0, 1.0))
    whole.learn(768, callback=SavesOnce())
    resumed = MaxEntPPO.load(tmp_path / "checkpoint", env=make_env(), resume=True, device="cpu")
    resumed.learn(768 - resumed.num_timesteps, reset_num_timesteps=False)
    assert_same(state(whole), state(resumed))


@pytest.mark.parametrize("stop", [False, True], ids=["saved", "stopped"])
def test_in_the_middle_of_a_rollout_the_model_sees_where_its_environments_are(tmp_path, stop):
    class AtStepTen(BaseCallback):
        def _on_step(self):
            if self.n_calls == 10:
                self.model.save(tmp_path / "model")
            return not (stop and self.n_calls == 10)

    def position(model):
        return np.stack([env.unwrapped._get_obs() for env in model.get_env().envs])

    model = PPO("MlpPolicy", make_vec_env("Pendulum-v1", 2, seed=3), **KWARGS).learn(128, callback=AtStepTen())
    np.testing.assert_allclose(model._last_obs, position(model), rtol=1e-6)
    loaded = PPO.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", 2, seed=3), resume=True, device="cpu")
    assert loaded.num_timesteps == 20
    np.testing.assert_allclose(loaded._last_obs, position(loaded), rtol=1e-6)
    assert not loaded._last_episode_starts.any()


def test_without_resume_the_environment_starts_anew(tmp_path):
    env = make_vec_env("Pendulum-v1", 2, seed=3)
    model = MaxEntPPO("MlpPolicy", env, **KWARGS).learn(128)
    model.save(tmp_path / "model")
    loaded = MaxEntPPO.load(tmp_path / "model", env=env, device="cpu")
    assert loaded._last_obs is None
    assert not hasattr(loaded, "_training_state")
    assert_same(state(model), state(loaded))
    loaded.learn(128)


def test_every_part_of_the_model_is_loaded(tmp_path):
    model = MaxEntPPO("MlpPolicy", Noise(limit=9), **KWARGS, **EVERYTHING, entropy_gamma=0.7).learn(192)
    model.save(tmp_path / "model")
    loaded = MaxEntPPO.load(tmp_path / "model", device="cpu")
    assert_same(state(model), state(loaded))
    assert loaded.entropy_gamma == 0.7
    assert loaded.target_entropy == model.target_entropy
    moments, expected = (each.tau_optimizer.state_dict()["state"][0]["exp_avg"] for each in (loaded, model))
    assert moments == expected
    moments, expected = loaded.policy.entropy_value_net.moments, model.policy.entropy_value_net.moments
    assert moments == expected


def test_an_environment_that_cannot_be_restored_says_so(tmp_path):
    env = SubprocVecEnv([lambda: gym.make("CartPole-v1")] * 1)
    try:
        MaxEntPPO("MlpPolicy", env, **KWARGS).save(tmp_path / "model")
        with pytest.raises(StateNotRestorableError, match=r"cannot be resumed exactly.*SubprocVecEnv"):
            MaxEntPPO.load(tmp_path / "model", env=env, resume=True)
        assert MaxEntPPO.load(tmp_path / "model", env=env).num_timesteps == 0
    finally:
        env.close()


def test_a_foreign_get_state_never_keeps_a_model_from_being_saved(tmp_path):
    class Foreign(DummyVecEnv):
        def get_state(self):
            return {"version": np.float32(1)}  # neither JSON nor an array

        def set_state(self, state):
            pass

    env = Foreign([lambda: gym.make("CartPole-v1")])
    MaxEntPPO("MlpPolicy", env, **KWARGS).save(tmp_path / "model")
    with pytest.raises(StateNotRestorableError, match=r"cannot be saved: TypeError: .*float32"):
        MaxEntPPO.load(tmp_path / "model", env=env, resume=True)


def test_resume_needs_an_environment_and_a_state(tmp_path):
    model = MaxEntPPO("MlpPolicy", "CartPole-v1", **KWARGS)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="`resume=True` needs `env`"):
        MaxEntPPO.load(tmp_path / "model", resume=True)
    sb3.PPO("MlpPolicy", "CartPole-v1", device="cpu").save(tmp_path / "sb3")
    with pytest.raises(ValueError, match="holds no training state"):
        PPO.load(tmp_path / "sb3", env=make_vec_env("CartPole-v1"), resume=True)


def test_a_model_without_an_entropy_critic_is_named(tmp_path):
    sb3.PPO("MlpPolicy", "CartPole-v1", device="cpu").save(tmp_path / "sb3")
    with pytest.raises(ValueError, match="critics are not those of MaxEntPPO; load it with the class"):
        MaxEntPPO.load(tmp_path / "sb3", device="cpu")


def test_models_of_sb3_can_be_loaded(tmp_path):
    theirs = sb3.PPO("MlpPolicy", "CartPole-v1", device="cpu", seed=0, n_steps=64).learn(64)
    theirs.save(tmp_path / "sb3")
    ours = PPO.load(tmp_path / "sb3", device="cpu")
    for name, value in theirs.policy.state_dict().items():
        assert torch.equal(ours.policy.state_dict()[name], value)


@pytest.mark.parametrize(("saved", "wanted"), [(0.1, "auto"), ("auto", 0.1)])
def test_a_temperature_of_another_kind_is_named(tmp_path, saved, wanted):
    model = MaxEntPPO("MlpPolicy", "CartPole-v1", **KWARGS, tau=saved)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"`tau` cannot change between 'auto' and a number .*got {wanted!r}; load it"):
        MaxEntPPO.load(tmp_path / "model", device="cpu", tau=wanted)
    other = MaxEntPPO("MlpPolicy", "CartPole-v1", **KWARGS, tau=wanted)
    other.policy.load_state_dict(MaxEntPPO.load(tmp_path / "model", device="cpu").policy.state_dict())
    assert torch.equal(other.policy.action_net.weight, model.policy.action_net.weight)


def test_a_temperature_of_the_same_kind_can_be_changed(tmp_path):
    MaxEntPPO("MlpPolicy", "CartPole-v1", **KWARGS, tau=0.1).save(tmp_path / "model")
    assert MaxEntPPO.load(tmp_path / "model", device="cpu", tau=0.2).current_tau == 0.2


def normalised_cartpole(n_envs):
    return VecNormalize(make_vec_env("CartPole-v1", n_envs, seed=3))


def test_new_episodes_go_on_with_everything_but_the_environments(tmp_path):
    model = MaxEntPPO("MlpPolicy", normalised_cartpole(2), **KWARGS, tau="auto").learn(256)
    first = make_vec_env("CartPole-v1", 2, seed=3).reset()
    model.save(tmp_path / "model")
    draw = torch.rand(3)
    env = normalised_cartpole(3)
    loaded = MaxEntPPO.load(tmp_path / "model", env=env, device="cpu", resume="new_episodes")
    assert_same(state(model), state(loaded))
    assert torch.equal(torch.rand(3), draw)
    assert env.obs_rms.count == model.get_env().obs_rms.count
    np.testing.assert_array_equal(env.ret_rms.var, model.get_env().ret_rms.var)
    loaded.learn(64 * 3, reset_num_timesteps=False)
    assert loaded.num_timesteps == 256 + 64 * 3
    assert not np.allclose(env.unnormalize_obs(loaded._last_obs)[:2], first)


@pytest.mark.parametrize("wrapped", [False, True])
def test_new_episodes_need_the_same_normalisation(tmp_path, wrapped):
    plain = make_vec_env("CartPole-v1", 2, seed=3)
    saved, given = (normalised_cartpole(2), plain) if not wrapped else (plain, normalised_cartpole(2))
    MaxEntPPO("MlpPolicy", saved, **KWARGS).save(tmp_path / "model")
    with pytest.raises(StateNotRestorableError, match=r"was saved with \d VecNormalize"):
        MaxEntPPO.load(tmp_path / "model", env=given, device="cpu", resume="new_episodes")


def test_an_unknown_kind_of_resume_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`resume` must be one of False, True, 'new_episodes'; got 'new'"):
        PPO.load(tmp_path / "model", env=make_vec_env("CartPole-v1"), resume="new")


def test_what_was_recorded_and_not_written_is_kept(tmp_path):
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=3), **KWARGS).learn(128)
    model.logger.record("own/number", np.float32(2.5))
    model.logger.record("own/object", object())
    model.save(tmp_path / "model")
    resumed = PPO.load(tmp_path / "model", env=make_vec_env("CartPole-v1", 2, seed=3), device="cpu", resume=True)
    resumed.save(tmp_path / "again")
    again = PPO.load(tmp_path / "again", env=make_vec_env("CartPole-v1", 2, seed=3), device="cpu", resume=True)
    seen = {}

    class Reading(BaseCallback):
        def _on_training_start(self):
            seen.update(self.logger.name_to_value)

        def _on_step(self):
            return True

    again.learn(128, callback=Reading(), reset_num_timesteps=False)
    assert seen["own/number"] == 2.5
    assert "own/object" not in seen
    assert "train/n_updates" in seen
