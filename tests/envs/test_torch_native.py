"""Environments in PyTorch against Gymnasium's, step by step."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from stepping import check_continues

from maxent_onpolicy import PPO, make_vec_env
from maxent_onpolicy.envs import VecNormalize
from maxent_onpolicy.envs.state import StateNotRestorableError, get_env_state
from maxent_onpolicy.envs.tensor import step_tensor
from maxent_onpolicy.envs.torch_native import (
    TorchCartPole,
    TorchPendulum,
    cartpole_transition,
    pendulum_transition,
)

B = 64
# float64 differs from Gymnasium by the rounding of a few operations, float32 by that of its own precision.
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def random_states(env_id, rng):
    if env_id == "Pendulum-v1":
        return rng.uniform([-12, -8], [12, 8], (B, 2)), rng.uniform(-3, 3, (B, 1)).astype(np.float32)
    return rng.uniform(-1, 1, (B, 4)) * [2.5, 3, 0.22, 3], rng.integers(2, size=B)


def gymnasium_step(env, state, action):
    env.reset(seed=0)
    env.unwrapped.state = state
    observation, reward, terminated, _, _ = env.step(action)
    return env.unwrapped.state, observation, reward, terminated


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(
    ("env_id", "options"), [("Pendulum-v1", {}), ("Pendulum-v1", {"g": 9.81}), ("CartPole-v1", {})]
)
def test_one_step_equals_gymnasium_from_any_state(env_id, options, dtype):
    vec_env = make_vec_env(env_id, B, seed=0, backend="torch", device="cpu", dtype=dtype, **options)
    vec_env.reset()
    env = gym.make(env_id, disable_env_checker=True, **options)
    states, actions = random_states(env_id, np.random.default_rng(0))
    expected = [gymnasium_step(env, state, action) for state, action in zip(states, actions, strict=True)]
    next_state, observation, reward, terminated = (np.stack(part) for part in zip(*expected, strict=True))

    state = torch.as_tensor(states, dtype=vec_env.dtype)
    following, own_reward, own_terminated = vec_env.transition(state, torch.as_tensor(actions))

    assert following.dtype == own_reward.dtype == vec_env.dtype
    np.testing.assert_allclose(following, next_state, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    np.testing.assert_allclose(own_reward, reward, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    np.testing.assert_array_equal(own_terminated, terminated)
    np.testing.assert_allclose(vec_env.observe(following), observation, rtol=2e-5, atol=2e-5)
    assert terminated.any() == (env_id == "CartPole-v1")


@pytest.mark.parametrize(("env_id", "steps"), [("Pendulum-v1", 450), ("CartPole-v1", 120)])
def test_whole_episodes_equal_gymnasium(env_id, steps):
    """Rewards, flags, final observations and the time limit; each new episode starts Gymnasium's in the same state."""
    vec_env = make_vec_env(env_id, 3, seed=1, backend="torch", device="cpu", dtype="float64", max_episode_steps=200)
    envs = [gym.make(env_id, max_episode_steps=200) for _ in range(3)]
    vec_env.reset()
    rng = np.random.default_rng(0)

    def start(index):
        envs[index].reset(seed=0)
        envs[index].unwrapped.state = vec_env._state[index].numpy().copy()

    for index in range(3):
        start(index)
    ends = 0
    for _ in range(steps):
        pendulum = env_id == "Pendulum-v1"
        actions = rng.uniform(-2, 2, (3, 1)).astype(np.float32) if pendulum else rng.integers(2, size=3)
        observation, reward, done, infos = vec_env.step(actions)
        for index, env in enumerate(envs):
            expected, expected_reward, terminated, truncated, _ = env.step(actions[index])
            assert reward[index] == pytest.approx(expected_reward, abs=1e-5)
            assert done[index] == (terminated or truncated)
            assert infos[index]["TimeLimit.truncated"] == truncated
            last = infos[index]["terminal_observation"] if done[index] else observation[index]
            np.testing.assert_allclose(last, expected, rtol=1e-6, atol=1e-6)
            if done[index]:
                ends += 1
                start(index)
                np.testing.assert_array_equal(
                    observation[index], vec_env.observe(vec_env._state)[index].numpy(), strict=True
                )
    assert ends >= 6


def test_sutton_and_barto_reward_punishes_only_the_fall():
    vec_env = TorchCartPole(32, sutton_barto_reward=True, device="cpu", seed=0)
    vec_env.reset()
    steps = [vec_env.step_tensor(torch.ones(32)) for _ in range(30)]
    reward, terminated = (torch.stack([getattr(step, name) for step in steps]) for name in ("reward", "terminated"))
    assert terminated.sum() >= 32
    torch.testing.assert_close(reward, -terminated.float(), rtol=0, atol=0)


def test_a_fall_on_the_last_step_of_the_time_limit_is_a_termination():
    vec_env = TorchCartPole(B, max_episode_steps=9, device="cpu", seed=0)
    vec_env.reset()
    for _ in range(9):
        step = vec_env.step_tensor(torch.ones(B))
    assert step.terminated.any()
    assert step.truncated.any()
    assert not (step.terminated & step.truncated).any()


@pytest.mark.parametrize(
    ("cls", "low", "high"),
    [(TorchPendulum, [-np.pi, -1], [np.pi, 1]), (TorchCartPole, [-0.05] * 4, [0.05] * 4)],
)
def test_start_states_fill_gymnasiums_ranges_uniformly(cls, low, high):
    vec_env = cls(20_000, device="cpu", seed=0)
    state = vec_env.initial_state().double().numpy()
    unit = (state - low) / (np.array(high) - low)
    assert unit.min() >= -1e-6
    assert unit.max() <= 1 + 1e-6
    np.testing.assert_allclose(unit.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(unit.var(0), 1 / 12, atol=0.003)
    np.testing.assert_allclose(np.corrcoef(unit.T) - np.eye(len(low)), 0, atol=0.03)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_spaces_are_gymnasiums(env_id):
    vec_env, env = make_vec_env(env_id, 2, backend="torch", device="cpu"), gym.make(env_id)
    assert vec_env.observation_space == env.observation_space
    assert vec_env.action_space == env.action_space
    assert vec_env.max_episode_steps == env.spec.max_episode_steps


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_a_step_waits_for_nothing(env_id):
    """On the meta device there are no values: whatever would read one raises."""
    vec_env = make_vec_env(env_id, 4, backend="torch", device="cpu")
    state = torch.zeros(4, 2 if env_id == "Pendulum-v1" else 4, device="meta")
    action = torch.zeros((4, 1) if env_id == "Pendulum-v1" else 4, device="meta")
    vec_env.device, vec_env.generator = torch.device("meta"), None
    vec_env._state, vec_env._elapsed = state, torch.zeros(4, dtype=torch.int64, device="meta")
    normalised = VecNormalize(make_vec_env(env_id, 4, backend="torch", device="cpu"), device="cpu")
    normalised.venv, normalised._device = vec_env, torch.device("meta")
    for moments in (normalised.obs_rms, normalised.ret_rms):
        moments.moments = type(moments.moments)(*(value.to("meta") for value in vars(moments.moments).values()))
    normalised._returns = normalised._returns.to("meta")
    for env in (vec_env, normalised):
        step = step_tensor(env, action, "meta")
        assert {step.observation.device.type, step.reward.device.type, step.final_observation.device.type} == {"meta"}
        assert step.infos is vec_env.infos


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_numpy_and_tensor_steps_are_the_same(env_id):
    by_array, by_tensor = (make_vec_env(env_id, 5, seed=3, backend="torch", device="cpu") for _ in range(2))
    np.testing.assert_array_equal(by_array.reset(), by_tensor.reset_tensor().numpy())
    by_array.action_space.seed(0)
    total, length = np.zeros(5), np.zeros(5, int)
    for _ in range(210):
        actions = np.stack([by_array.action_space.sample() for _ in range(5)])
        observation, reward, done, infos = by_array.step(actions)
        step = by_tensor.step_tensor(torch.as_tensor(actions))
        np.testing.assert_array_equal(observation, step.observation.numpy(), strict=True)
        np.testing.assert_array_equal(reward, step.reward.numpy(), strict=True)
        np.testing.assert_array_equal(done, (step.terminated | step.truncated).numpy(), strict=True)
        assert step.final_index is None
        total, length = total + reward, length + 1
        for index in range(5):
            assert ("episode" in infos[index]) == done[index] == ("terminal_observation" in infos[index])
            if done[index]:
                assert infos[index]["episode"]["r"] == pytest.approx(total[index], abs=1e-6)
                assert infos[index]["episode"]["l"] == length[index]
                np.testing.assert_array_equal(infos[index]["terminal_observation"], step.final_observation[index])
        total[done] = length[done] = 0
    assert not any(by_tensor.infos)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_training_can_go_on_from_a_saved_state(env_id, wrapped):
    def make():
        vec_env = make_vec_env(env_id, 3, seed=0, backend="torch", device="cpu")
        return VecNormalize(vec_env) if wrapped else vec_env

    assert check_continues(make, 150, 250) >= 3


def test_a_state_before_the_first_reset_keeps_the_seed():
    vec_env = make_vec_env("CartPole-v1", 3, seed=5, backend="torch", device="cpu")
    other = make_vec_env("CartPole-v1", 3, seed=6, backend="torch", device="cpu")
    other.set_state(vec_env.get_state())
    np.testing.assert_array_equal(other.reset(), vec_env.reset())


def test_states_of_other_environments_are_refused():
    state = get_env_state(make_vec_env("CartPole-v1", 3, backend="torch", device="cpu"))["base"]
    with pytest.raises(StateNotRestorableError, match="class 'TorchCartPole', this environment 'TorchPendulum'"):
        TorchPendulum(3, device="cpu").set_state(state)
    with pytest.raises(StateNotRestorableError, match="num_envs 3, this environment 4"):
        TorchCartPole(4, device="cpu").set_state(state)
    with pytest.raises(StateNotRestorableError, match="device 'cuda', this environment 'cpu'"):
        TorchCartPole(3, device="cpu").set_state({**state, "device": "cuda"})


def test_the_seed_decides_the_episodes():
    one, same, other = (make_vec_env("Pendulum-v1", 3, seed=s, backend="torch", device="cpu") for s in (0, 0, 1))
    first = one.reset()
    np.testing.assert_array_equal(first, same.reset())
    assert (first != other.reset()).any()
    assert (one.reset() != first).any()
    one.seed(0)
    np.testing.assert_array_equal(one.reset(), first)


def test_the_backend_is_taken_only_when_asked_for():
    assert isinstance(make_vec_env("CartPole-v1", 2), DummyVecEnv)
    assert isinstance(make_vec_env("CartPole-v1", 2, backend="torch", device="cpu"), TorchCartPole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devise": "cpu"}, "`devise`: 'Pendulum-v1' with `backend='torch'` takes g, .*did you mean 'device'"),
        ({"dtype": "float16"}, "`dtype` must be one of 'float32', 'float64'; got 'float16'"),
        ({"g": "heavy"}, "`g` must be a number"),
        ({"max_episode_steps": 0}, "`max_episode_steps` must be in"),
        (
            {"wrapper": Monitor},
            "as asked .it needs Pendulum-v1 or CartPole-v1, and neither .*; gymnasium can",
        ),
        (
            {"discretize_bins": 3},
            "as asked .it needs Pendulum-v1 or CartPole-v1, and neither .*; gymnasium can",
        ),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        make_vec_env("Pendulum-v1", 2, backend="torch", **options)


def test_the_rest_of_sb3s_interface():
    vec_env = make_vec_env("CartPole-v1", 3, backend="torch", device="cpu")
    with pytest.raises(RuntimeError, match="reset"):
        vec_env.step(np.zeros(3, int))
    assert vec_env.env_is_wrapped(Monitor) == [True] * 3
    assert vec_env.env_is_wrapped(gym.wrappers.ClipAction, [0]) == [False]
    assert vec_env.get_attr("max_episode_steps", [1, 2]) == [500, 500]
    assert not vec_env.has_attr("nothing")
    vec_env.set_attr("max_episode_steps", 7)
    assert vec_env.max_episode_steps == 7
    assert len(vec_env.env_method("initial_state")) == 3
    for method in (vec_env.set_attr, vec_env.env_method):
        with pytest.raises(ValueError, match="`indices`"):
            method("x", "y", indices=[0])
    with pytest.raises(ValueError, match="TorchCartPole takes none"):
        vec_env.set_options({"low": 0})
    vec_env.set_options({})
    model = PPO("MlpPolicy", vec_env, n_steps=8, batch_size=8)
    assert evaluate_policy(model, vec_env, n_eval_episodes=3)[0] <= 7
    quiet = make_vec_env("CartPole-v1", 3, backend="torch", device="cpu", monitor=False, max_episode_steps=2)
    quiet.reset(), quiet.step(np.zeros(3, int))
    assert all("episode" not in info for info in quiet.step(np.zeros(3, int))[3])
    assert quiet.env_is_wrapped(Monitor) == [False] * 3


def test_transitions_of_the_equilibria_are_known():
    still, reward = pendulum_transition(torch.tensor([[0.0, 0.0], [np.pi, 0.0]], dtype=torch.float64), torch.zeros(2))
    np.testing.assert_allclose(still, [[0, 0], [np.pi, 0]], atol=1e-15)
    np.testing.assert_allclose(reward, [0, -(np.pi**2)])
    state = torch.tensor([[0.3, -0.2, 0.1, 0.4]], dtype=torch.float64)
    right, _ = cartpole_transition(state, torch.tensor([1]))
    left, _ = cartpole_transition(-state, torch.tensor([0]))
    torch.testing.assert_close(right, -left, rtol=0, atol=0)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_ppo_trains_on_4096_environments(env_id):
    vec_env = make_vec_env(env_id, 4096, seed=0, backend="torch", device="cpu")
    model = PPO("MlpPolicy", vec_env, n_steps=16, batch_size=16384, n_epochs=2, device="cpu", seed=0)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(4096 * 16)
    assert model.num_timesteps == 4096 * 16
    assert all(not torch.equal(old, new) for old, new in zip(before, model.policy.parameters(), strict=True))


@pytest.mark.slow
def test_what_is_learnt_here_holds_in_gymnasium():
    evaluation = make_vec_env("CartPole-v1", 10, seed=1, backend="gymnasium")
    vec_env = make_vec_env("CartPole-v1", 64, seed=0, backend="torch", device="cpu")
    model = PPO("MlpPolicy", vec_env, n_steps=64, batch_size=256, n_epochs=4, learning_rate=1e-3, device="cpu", seed=2)
    before, _ = evaluate_policy(model, evaluation, n_eval_episodes=10, deterministic=False)
    model.learn(64 * 64 * 20)
    after, _ = evaluate_policy(model, evaluation, n_eval_episodes=10, deterministic=False)
    assert before < 60
    assert after > 300


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="`device='cuda'`: PyTorch finds no such device"):
        make_vec_env("CartPole-v1", 2, backend="torch", device="cuda")
