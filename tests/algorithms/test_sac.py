"""SAC: SB3's numbers, arguments and files."""

import io
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from noise_env import Noise
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer as SB3ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv

from maxent_onpolicy import SAC, make_vec_env
from maxent_onpolicy.engine.finite import NonFiniteError
from maxent_onpolicy.engine.replay import ReplayBuffer
from maxent_onpolicy.engine.replay_files import FIELDS
from maxent_onpolicy.engine.rollout import steps_on_tensors
from maxent_onpolicy.envs import VecNormalize
from maxent_onpolicy.envs.state import StateNotRestorableError

SMALL = {"policy_kwargs": {"net_arch": [16, 16]}, "batch_size": 16, "learning_starts": 30, "buffer_size": 500}


def make(cls=SAC, env=None, policy="MlpPolicy", **kwargs):
    return cls(policy, env or noisy(1), device="cpu", **({"seed": 3} | SMALL | kwargs))


def noisy(n_envs, **kwargs):
    return DummyVecEnv([lambda: gym.wrappers.TimeLimit(Noise(None, **kwargs), 9)] * n_envs)


def difference(one, other):
    states = (one.policy.state_dict(), other.policy.state_dict())
    return max((states[0][name] - states[1][name]).abs().max().item() for name in states[0])


SETTINGS = {
    "defaults": {},
    "several environments": {"n_envs": 3, "gradient_steps": -1},
    "rare updates": {"n_envs": 2, "train_freq": 4, "gradient_steps": 3, "target_update_interval": 2},
    "episodes": {"train_freq": (1, "episode"), "gradient_steps": -1},
    "noise": {"n_envs": 2, "action_noise": NormalActionNoise(np.zeros(2), 0.1 * np.ones(2))},
    "fixed temperature": {"ent_coef": 0.1},
    "noise matrices": {"use_sde": True, "sde_sample_freq": 4},
    "long returns": {"n_steps": 3},
    "SB3's buffer": {"replay_buffer_class": SB3ReplayBuffer, "replay_buffer_kwargs": {}},
    "one array of observations": {
        "optimize_memory_usage": True,
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
    },
}


@pytest.mark.parametrize("engine", [pytest.param("eager", marks=pytest.mark.slow), "auto"])
@pytest.mark.parametrize("kwargs", SETTINGS.values(), ids=SETTINGS)
def test_same_seed_same_parameters_as_sb3(kwargs, engine):
    kwargs = dict(kwargs)
    n_envs = kwargs.pop("n_envs", 1)
    stock = make(sb3.SAC, noisy(n_envs), **kwargs).learn(60)
    ours = make(SAC, noisy(n_envs), engine=engine, **kwargs).learn(60)
    assert ours.num_timesteps == stock.num_timesteps
    assert ours._n_updates == stock._n_updates > 0
    packed = ours.current_engine.name == "packed"
    assert packed == (ours._engine is not None) == (engine == "auto" and not kwargs.get("use_sde"))
    assert difference(ours, stock) <= (2e-5 if packed else 0.0)
    assert [each["r"] for each in ours.ep_info_buffer] == [each["r"] for each in stock.ep_info_buffer]


def test_dictionaries_train_as_sb3s():
    env = DummyVecEnv([lambda: Noise(dictionary=True)] * 2)
    stock = make(sb3.SAC, env, "MultiInputPolicy").learn(60)
    ours = make(SAC, DummyVecEnv([lambda: Noise(dictionary=True)] * 2), "MultiInputPolicy").learn(60)
    assert type(ours.replay_buffer) is DictReplayBuffer
    assert difference(ours, stock) == 0


def test_which_buffer_stores_what():
    assert type(make().replay_buffer) is ReplayBuffer
    assert type(make(n_steps=2).replay_buffer) is NStepReplayBuffer
    with pytest.raises(ValueError, match="optimize_memory_usage"):
        make(optimize_memory_usage=True)


class Storage(BaseCallback):
    """Remembers what the environments said of ended episodes."""

    def _on_step(self):
        self.ends = getattr(self, "ends", [])
        for index, done in enumerate(self.locals["dones"]):
            if done:
                final = self._final_observation(index)
                normalized = self.model.get_vec_normalize_env()
                raw = final.copy() if normalized is None else normalized.unnormalize_obs(final)
                self.ends.append((self.n_calls - 1, index, raw))
        return True

    def _final_observation(self, index):
        step = self.locals.get("step")
        if step is None:
            return self.locals["infos"][index]["terminal_observation"]
        return step.final_observation[index].numpy()  # infos of environments on a device carry no observations


@pytest.mark.parametrize("backend", ["gymnasium", "torch"])
@pytest.mark.parametrize("normalised", [False, True])
def test_cut_off_episodes_keep_their_final_observation(backend, normalised):
    options = {"device": "cpu"} if backend == "torch" else {}
    env = make_vec_env("Pendulum-v1", 2, seed=3, backend=backend, **options)
    if normalised:
        env = VecNormalize(env)
    callback = Storage()
    model = make(env=env, buffer_size=2000, gradient_steps=0).learn(2 * 450, callback=callback)
    buffer = model.replay_buffer
    assert len(callback.ends) == 4
    for step, index, final in callback.ends:
        assert buffer.dones[step, index] == buffer.timeouts[step, index] == 1
        stored = buffer.next_observations[step, index].numpy()
        np.testing.assert_allclose(stored, final, atol=1e-5)
        assert np.linalg.norm(stored[:2]) == pytest.approx(1, abs=1e-4)  # cosine and sine: not normalised
        assert not np.allclose(stored, buffer.observations[step + 1, index].numpy())
    assert buffer.dones.sum() == 4


def test_normalised_observations_are_normalised_at_sampling():
    stock = make(sb3.SAC, VecNormalize(noisy(2))).learn(60)
    ours = make(SAC, VecNormalize(noisy(2))).learn(60)
    assert difference(ours, stock) < 2e-4


def test_update_to_data_and_what_is_logged():
    model = make(env=noisy(2), train_freq=4, gradient_steps=2)
    assert model.update_to_data == 0.25
    assert make(env=noisy(2), gradient_steps=-1).update_to_data == 1.0
    assert make(train_freq=(1, "episode")).update_to_data is None
    for engine in ("packed", "eager"):
        model = make(env=noisy(2), train_freq=4, gradient_steps=2, engine=engine).learn(48)
        logged = model.logger.name_to_value
        assert logged["train/update_to_data"] == 0.25
        assert logged["train/std"] > 0
        names = ("entropy", "ent_coef", "ent_coef_loss", "actor_loss", "critic_loss", "learning_rate", "n_updates")
        assert {f"train/{name}" for name in names} <= logged.keys()
        # The loss of the temperature says which entropy it saw.
        error = logged["train/ent_coef_loss"] / np.log(logged["train/ent_coef"]) + model.target_entropy
        assert logged["train/entropy"] == pytest.approx(error, rel=0.05)


RESUMED = {
    "Pendulum": (lambda: make_vec_env("Pendulum-v1", 2, seed=3), {}),
    "MuJoCo": (lambda: make_vec_env("Hopper-v5", 2, seed=3), {"gradient_steps": -1}),
    "our normalisation": (lambda: VecNormalize(make_vec_env("Pendulum-v1", 2, seed=3)), {}),
    "tensors": (lambda: make_vec_env("Pendulum-v1", 2, seed=3, backend="torch", device="cpu"), {}),
    "eager": (lambda: make_vec_env("Pendulum-v1", 1, seed=3), {"engine": "eager"}),
    "warm-up": (lambda: make_vec_env("Pendulum-v1", 1, seed=3), {"learning_starts": 100}),
    "full buffer": (lambda: make_vec_env("Pendulum-v1", 2, seed=3), {"buffer_size": 60}),
    "long returns": (lambda: make_vec_env("Pendulum-v1", 2, seed=3), {"n_steps": 3}),
    "one array of observations": (
        lambda: make_vec_env("Pendulum-v1", 2, seed=3),
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
    "dictionaries": (
        lambda: make_vec_env(lambda: Noise(dictionary=True), 2, seed=3),
        {"policy": "MultiInputPolicy"},
    ),
    "environments on tensors": (lambda: on_tensors(), {"buffer_size": 3000}),
    "coloured noise": (
        lambda: make_vec_env("Pendulum-v1", 2, seed=3),
        {"action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(1), 0.3 * np.ones(1)), "ent_coef": 0.1},
    ),
}


def on_tensors(**kwargs):
    return make_vec_env("Pendulum-v1", 3, seed=3, backend="torch", device="cpu", **kwargs)


class Reads(BaseCallback):
    """Remembers what callbacks see."""

    seen: ClassVar[list] = []

    def _init_callback(self):
        self.seen = []

    def _on_step(self):
        names = ("actions", "buffer_actions", "new_obs", "rewards", "dones")
        self.seen.append({name: np.array(self.locals[name]) for name in names})
        assert len(self.locals["infos"]) == 3
        return True


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"train_freq": 4, "gradient_steps": 2}, {"action_noise": NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))}],
)
def test_environments_on_tensors_give_the_transitions_that_they_give_numpy(kwargs, monkeypatch):
    callbacks = Reads(), Reads()
    env = on_tensors()
    monkeypatch.setattr(env, "step_wait", None)  # the way through numpy
    direct = make(env=env, buffer_size=3000, **kwargs).learn(3 * 210, callbacks[0], log_interval=2)
    with monkeypatch.context() as patch:
        patch.setattr("maxent_onpolicy.algorithms.sac.steps_on_tensors", lambda env: False)
        detour = make(env=on_tensors(), buffer_size=3000, **kwargs).learn(3 * 210, callbacks[1], log_interval=2)
    assert_same(detour, direct)
    assert direct.replay_buffer.timeouts.sum() == 3
    assert direct._episode_num == detour._episode_num == 3
    for name in ("r", "l"):
        ours, theirs = ([each[name] for each in model.ep_info_buffer] for model in (direct, detour))
        assert ours == pytest.approx(theirs, abs=1e-3)
        assert len(ours) == 3
    for mine, theirs in zip(callbacks[0].seen, callbacks[1].seen, strict=True):
        for name, value in theirs.items():
            np.testing.assert_array_equal(mine[name], value)


def test_what_does_not_fit_goes_through_numpy(monkeypatch):
    def refuse(*args):
        raise AssertionError

    monkeypatch.setattr("maxent_onpolicy.algorithms.sac.collect_on_device", refuse)
    make(env=on_tensors(), engine="eager").learn(60)
    make(env=VecNormalize(on_tensors())).learn(60)
    make(env=on_tensors(), replay_buffer_class=SB3ReplayBuffer).learn(60)
    with pytest.raises(AssertionError):
        make(env=on_tensors()).learn(60)


def test_a_nan_from_environments_on_tensors_is_named(monkeypatch):
    env = on_tensors()
    step_tensor = type(env).step_tensor
    broken = lambda self, action: (step := step_tensor(self, action))._replace(reward=step.reward * torch.nan)  # noqa: E731
    monkeypatch.setattr(type(env), "step_tensor", broken)
    with pytest.raises(NonFiniteError, match="reward"):
        make(env=env).learn(60)


def state(model):
    parts = {f"policy.{k}": v for k, v in model.policy.state_dict().items()}
    optimizers = {"actor": model.actor.optimizer, "critic": model.critic.optimizer}
    if model.ent_coef_optimizer is not None:
        optimizers["temperature"] = model.ent_coef_optimizer
        parts["log_ent_coef"] = model.log_ent_coef.detach()
    for name, optimizer in optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            parts |= {f"{name}.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    stored = {name: getattr(model.replay_buffer, name) for name in FIELDS if hasattr(model.replay_buffer, name)}
    for name, field in stored.items():
        entries = field.items() if isinstance(field, dict) else [("", field)]
        parts |= {f"{name}/{key}": torch.as_tensor(part) for key, part in entries}
    return parts


def assert_same(one, other):
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(second[name], value), name
    last = [model._last_obs if isinstance(model._last_obs, dict) else {"": model._last_obs} for model in (one, other)]
    for key, value in last[0].items():
        np.testing.assert_array_equal(value, last[1][key])
    assert one.replay_buffer.pos == other.replay_buffer.pos


@pytest.mark.parametrize(("make_env", "kwargs"), RESUMED.values(), ids=RESUMED)
def test_continues_bit_for_bit(tmp_path, make_env, kwargs):
    whole = make(env=make_env(), **kwargs).learn(60)
    whole.learn(90, reset_num_timesteps=False)
    first = make(env=make_env(), **kwargs).learn(60)
    first.save(tmp_path / "model", replay_buffer=True)
    torch.manual_seed(999)
    np.random.seed(999)
    resumed = SAC.load(tmp_path / "model", env=make_env(), resume=True, device="cpu")
    resumed.learn(90, reset_num_timesteps=False)
    assert_same(whole, resumed)
    for name in ("r", "l"):
        assert [info[name] for info in whole.ep_info_buffer] == [info[name] for info in resumed.ep_info_buffer]
    running = whole.device_episodes.get_state(), resumed.device_episodes.get_state()
    for name, value in running[0].items():
        np.testing.assert_array_equal(value, running[1][name])
        assert bool(value.all()) == steps_on_tensors(whole.env)


def test_a_checkpoint_from_within_learn_continues_bit_for_bit(tmp_path):
    class SavesOnce(BaseCallback):
        def _on_rollout_start(self):
            if self.model.num_timesteps == 60:
                self.model.save(tmp_path / "model.zip", replay_buffer=True)

        def _on_step(self):
            return True

    whole = make(env=make_vec_env("Pendulum-v1", 2, seed=3)).learn(120, callback=SavesOnce())
    resumed = SAC.load(tmp_path / "model.zip", env=make_vec_env("Pendulum-v1", 2, seed=3), resume=True, device="cpu")
    resumed.learn(60, reset_num_timesteps=False)
    assert_same(whole, resumed)


def test_streams_hold_the_buffer_too():
    model = make(env=make_vec_env("Pendulum-v1", 1, seed=3)).learn(40)
    stream = io.BytesIO()
    model.save(stream, replay_buffer=True)
    stream.seek(0)
    other = SAC.load(stream, env=make_vec_env("Pendulum-v1", 1, seed=3), resume=True, device="cpu")
    assert_same(model, other)


def test_resuming_without_the_buffer_says_what_is_lost(tmp_path):
    model = make(env=make_vec_env("Pendulum-v1", 1, seed=3)).learn(40)
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="holds no replay buffer"):
        other = SAC.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", 1, seed=3), resume=True, device="cpu")
    assert other.replay_buffer.size() == 0
    model.save_replay_buffer(tmp_path / "buffer")
    other.load_replay_buffer(tmp_path / "buffer")
    assert_same(model, other)


def test_buffers_of_sb3_are_read_and_written_its_way(tmp_path):
    model = make(replay_buffer_class=SB3ReplayBuffer).learn(40)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model.replay_buffer.reset()
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    assert type(model.replay_buffer) is SB3ReplayBuffer
    assert model.replay_buffer.pos == 40


def test_buffers_of_other_kinds_are_not_written_in_part(tmp_path):
    class Own(ReplayBuffer):
        pass

    model = make(replay_buffer_class=Own)
    with pytest.raises(ValueError, match="`replay_buffer=True` cannot write a Own, which may keep more"):
        model.save(tmp_path / "model", replay_buffer=True)
    assert not list(tmp_path.iterdir())


def test_resume_refuses_what_cannot_work(tmp_path):
    model = make(env=make_vec_env("Pendulum-v1", 1, seed=3)).learn(40)
    model.save(tmp_path / "model", replay_buffer=True)
    with pytest.raises(ValueError, match="`resume=True` needs `env`"):
        SAC.load(tmp_path / "model", resume=True)
    with pytest.raises(ValueError, match="make the model with the saved one's environments"):
        SAC.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", 1, seed=3), resume=True, buffer_size=20)
    sb3.SAC("MlpPolicy", "Pendulum-v1", buffer_size=10).save(tmp_path / "stock")
    with pytest.raises(ValueError, match="holds no training state"):
        SAC.load(tmp_path / "stock", env=make_vec_env("Pendulum-v1", 1), resume=True)
    with pytest.raises(StateNotRestorableError):
        SAC.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", 2, seed=3), resume=True)


BAD = [
    ({"engine": "compiled"}, "`engine` must be one of 'auto', 'eager', 'packed'; got 'compiled'"),
    ({"batch_size": 0}, "`batch_size` must be in"),
    ({"batch_size": 2.5}, "`batch_size` must be an integer"),
    ({"buffer_size": 0}, "`buffer_size`"),
    ({"learning_starts": -1}, "`learning_starts`"),
    ({"gradient_steps": -2}, "`gradient_steps`"),
    ({"target_update_interval": 0}, "`target_update_interval`"),
    ({"n_steps": 0}, "`n_steps`"),
    ({"tau": 1.5}, r"`tau` must be in \[0, 1\], got 1.5"),
    ({"gamma": -0.1}, "`gamma`"),
    ({"learning_rate": -1.0}, "`learning_rate`"),
    ({"train_freq": 0}, "`train_freq` must be an integer of at least 1"),
    ({"train_freq": (1, "hour")}, "The unit of the `train_freq` must be either 'step' or 'episode' not 'hour'"),
    ({"train_freq": (1, "episode"), "env": "two"}, "needs a single environment, not 2"),
    ({"ent_coef": "automatic"}, "`ent_coef` must be a number, 'auto' or 'auto_'"),
    ({"ent_coef": "auto_x"}, "`ent_coef` must be a number, 'auto' or 'auto_'"),
    ({"ent_coef": "auto_-1"}, "`ent_coef`: the initial value of ent_coef must be greater than 0"),
    ({"ent_coef": float("nan")}, "`ent_coef`"),
    ({"target_entropy": "low"}, "`target_entropy` must be a finite number or 'auto', got 'low'"),
    ({"policy_kwargs": 3}, "`policy_kwargs` must be keywords"),
]


@pytest.mark.parametrize(("kwargs", "message"), BAD, ids=[f"{bad}" for bad, _ in BAD])
def test_bad_arguments(kwargs, message):
    env = noisy(2) if kwargs.pop("env", None) else noisy(1)
    with pytest.raises(ValueError, match=message):
        make(env=env, **kwargs)


@pytest.mark.parametrize("engine", ["eager", "packed"])
def test_broken_environments_and_divergence_are_named(engine):
    with pytest.raises(NonFiniteError, match="reward of environment 0 is inf at step"):
        make(env=noisy(1, broken="reward"), engine=engine).learn(40)
    with pytest.raises(NonFiniteError, match="became NaN or Inf in the update after step"):
        make(learning_rate=1e30, engine=engine).learn(60)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["packed", "eager"])
def test_learns_to_swing_a_pendulum_up(engine):
    env = make_vec_env("Pendulum-v1", 1, seed=0)
    model = SAC("MlpPolicy", env, learning_rate=1e-3, seed=0, engine=engine, policy_kwargs={"net_arch": [64, 64]})
    model.learn(6000)
    recent = [episode["r"] for episode in model.ep_info_buffer][-8:]
    assert np.mean(recent) > -300
