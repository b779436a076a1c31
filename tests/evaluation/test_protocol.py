"""Evaluation measures the policy and leaves the training as it was."""

import random

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import maxent_onpolicy
from maxent_onpolicy.evaluation.protocol import (
    CsvFormat,
    EvaluationCallback,
    copy_normalization,
    evaluate_policy,
    evaluation_seed,
    frozen_normalization,
    preserved_random_state,
)
from maxent_onpolicy.evaluation.runs import EVAL_COLUMNS, TRAIN_COLUMNS, CsvLog


class Countdown(gym.Env):
    """Pays 1 a step; its episodes last 1, 2, ..., ``longest`` steps in turn, whatever the action."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, longest: int = 4) -> None:
        self.longest = longest
        self.played = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.played = 0
        self.left = self.played % self.longest + 1
        self.played += 1
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(2, np.float32), 1.0, self.left == 0, False, {}


class ActionReward(gym.Env):
    """Ten steps that pay the action taken: 1 for action 1, else 0."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), float(action), self.steps == 10, False, {}


def make_ppo(env, **kwargs):
    settings = {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu", **kwargs}
    return PPO("MlpPolicy", env, **settings)


def parameters(model) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.policy.parameters()])


@pytest.mark.parametrize("monitor", [False, True])
def test_every_environment_plays_its_share_so_that_short_episodes_do_not_win(monitor):
    env = DummyVecEnv([lambda: Monitor(Countdown()) if monitor else Countdown()] * 2)
    result = evaluate_policy(make_ppo(env), env, episodes=7, seed=0)
    # 3 and 4 episodes, each environment's in the order it played them
    assert result["deterministic"].returns.tolist() == [1, 2, 3, 1, 2, 3, 4]
    assert result["stochastic"].lengths.tolist() == [1, 2, 3, 1, 2, 3, 4]


def test_more_environments_than_episodes():
    env = DummyVecEnv([Countdown] * 5)
    result = evaluate_policy(make_ppo(env), env, episodes=3, seed=0, modes=["deterministic"])
    assert list(result) == ["deterministic"]
    assert result["deterministic"].returns.tolist() == [1, 1, 1]


def test_deterministic_takes_the_mode_and_stochastic_samples():
    env = DummyVecEnv([ActionReward] * 2)
    model = make_ppo(env)
    with torch.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.copy_(torch.tensor([0.0, 0.5]))
    result = evaluate_policy(model, env, episodes=40, seed=1)
    assert set(result["deterministic"].returns) == {10.0}
    expected = 10 / (1 + np.exp(-0.5))
    assert result["stochastic"].returns.mean() == pytest.approx(expected, abs=0.75)
    assert result["stochastic"].returns.std() > 0.5


def test_the_result_depends_on_the_seed_only():
    env = DummyVecEnv([ActionReward] * 3)
    model = make_ppo(env)
    first = evaluate_policy(model, env, episodes=9, seed=5)
    torch.manual_seed(99)
    env.reset()
    again = evaluate_policy(model, env, episodes=9, seed=5)
    other = evaluate_policy(model, env, episodes=9, seed=6)
    np.testing.assert_array_equal(first["stochastic"].returns, again["stochastic"].returns)
    assert not np.array_equal(first["stochastic"].returns, other["stochastic"].returns)


def test_random_state_train_mode_and_normalisation_are_as_before():
    env = VecNormalize(DummyVecEnv([ActionReward] * 2), gamma=0.9)
    model = make_ppo(env)
    model.policy.set_training_mode(True)
    env.reset()
    mean = env.obs_rms.mean.copy()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = torch.rand(3), np.random.rand(3), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    result = evaluate_policy(model, env, episodes=4, seed=0)
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])
    assert random.random() == expected[2]
    assert model.policy.training
    assert (env.training, env.norm_reward) == (True, True)
    np.testing.assert_array_equal(env.obs_rms.mean, mean)
    assert set(result["stochastic"].returns) <= set(range(11)), "the raw reward, not the normalised one"


def test_state_is_restored_when_the_evaluation_fails():
    class Broken(ActionReward):
        def step(self, action):
            observation, _, _, truncated, info = super().step(action)
            return observation, float("nan"), True, truncated, info

    env = VecNormalize(DummyVecEnv([Broken]), norm_reward=True)
    model = make_ppo(env)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"evaluation environment 0 .* nan"):
        evaluate_policy(model, env, episodes=1, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert env.norm_reward


def test_exploration_noise_of_gsde_survives_the_evaluation():
    env = make_vec_env("Pendulum-v1", n_envs=2)
    model = make_ppo(env, use_sde=True)
    model.policy.reset_noise(2)
    before = model.policy.action_dist.exploration_matrices
    evaluation = make_vec_env("Pendulum-v1", n_envs=3)
    evaluate_policy(model, evaluation, episodes=3, seed=0)
    assert model.policy.action_dist.exploration_matrices is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": 0}, r"`episodes` must be in \[1"),
        ({"seed": -1}, r"`seed` must be in \[0"),
        ({"modes": ["greedy"]}, "`modes` must be one of 'deterministic', 'stochastic'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    env = DummyVecEnv([Countdown])
    with pytest.raises(ValueError, match=message):
        evaluate_policy(make_ppo(env), env, **{"episodes": 1, "seed": 0, **arguments})


def train(tmp_path, evaluate: bool, normalize: bool = True, steps: int = 192):
    env = make_vec_env("CartPole-v1", n_envs=2, seed=0)
    evaluation = make_vec_env("CartPole-v1", n_envs=2)
    if normalize:
        env, evaluation = VecNormalize(env), VecNormalize(evaluation, training=False)
    log = CsvLog(tmp_path / "eval.csv", EVAL_COLUMNS)
    callback = EvaluationCallback(evaluation, log, every=50, episodes=3, seed=11)
    model = make_ppo(env)
    model.learn(steps, callback=callback if evaluate else None)
    return model, evaluation


def test_training_with_evaluation_is_bit_identical_to_training_without(tmp_path):
    with_evaluation, evaluation_env = train(tmp_path, evaluate=True)
    without, _ = train(tmp_path, evaluate=False)
    assert torch.equal(parameters(with_evaluation), parameters(without))
    assert with_evaluation._last_obs.tolist() == without._last_obs.tolist()
    # the statistics that judged the final policy are the training's final ones
    np.testing.assert_array_equal(evaluation_env.obs_rms.mean, with_evaluation.get_env().obs_rms.mean)


def test_evaluations_fall_on_the_same_steps_if_rollouts_without_one_go_by_unseen(tmp_path):
    steps: list[int] = []

    class Counts(EvaluationCallback):
        def _on_step(self):
            steps.append(self.num_timesteps)
            return super()._on_step()

    def evaluated(cls, name):
        log = CsvLog(tmp_path / name, EVAL_COLUMNS)
        callback = cls(make_vec_env("CartPole-v1", 2), log, every=50, episodes=1, seed=11)
        env = make_vec_env("CartPole-v1", 2, seed=0)
        maxent_onpolicy.PPO("MlpPolicy", env, n_steps=8, batch_size=16, seed=0).learn(192, callback)
        return (tmp_path / name).read_text()

    rows = evaluated(EvaluationCallback, "silent.csv")
    assert evaluated(Counts, "told.csv") == rows
    assert [line.split(",")[0] for line in rows.splitlines()[1::2]] == ["0", "50", "100", "150", "192"]
    assert steps == list(range(2, 193, 2))  # whoever changes what is done in a step is told of each


def test_rows_come_at_fixed_timesteps_with_both_modes(tmp_path):
    train(tmp_path, evaluate=True)
    lines = (tmp_path / "eval.csv").read_text().splitlines()
    assert lines[0] == "timesteps,mode,episode,return,length"
    rows = [line.split(",") for line in lines[1:]]
    assert sorted({int(row[0]) for row in rows}) == [0, 50, 100, 150, 192]
    assert [row[1:3] for row in rows[:6]] == [
        [mode, str(episode)] for mode in ("deterministic", "stochastic") for episode in range(3)
    ]
    assert len(rows) == 5 * 2 * 3


def test_a_repeated_run_writes_the_same_rows(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        train(tmp_path / name, evaluate=True)
    assert (tmp_path / "a" / "eval.csv").read_bytes() == (tmp_path / "b" / "eval.csv").read_bytes()


def test_a_test_distribution_has_rows_and_seeds_of_its_own(tmp_path):
    log = CsvLog(tmp_path / "eval.csv", EVAL_COLUMNS)
    seen = []
    callback = EvaluationCallback(
        make_vec_env("CartPole-v1", 2),
        log,
        every=100,
        episodes=3,
        seed=11,
        modes=["stochastic"],
        test_env=make_vec_env("CartPole-v1", 2),
        on_result=lambda timesteps, results: seen.append((timesteps, list(results))),
    )
    make_ppo(make_vec_env("CartPole-v1", 2, seed=0)).learn(128, callback=callback)
    frame = pd.read_csv(tmp_path / "eval.csv")
    assert frame.columns.tolist() == [*EVAL_COLUMNS, "split"]
    assert frame["split"].tolist() == (["train"] * 3 + ["test"] * 3) * 3
    first = frame[frame["timesteps"] == 0].groupby("split")["return"].apply(list)
    assert first["train"] != first["test"], "the same environments, but other seeds"
    assert seen == [(step, ["stochastic, train", "stochastic, test"]) for step in (0, 100, 128)]


def test_images_are_evaluated_though_training_transposes_them(tmp_path):
    class Picture(Countdown):
        observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)

        def reset(self, **kwargs):
            super().reset(**kwargs)
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), *super().step(action)[1:]

    env, evaluation = DummyVecEnv([Picture]), DummyVecEnv([Picture])
    callback = EvaluationCallback(evaluation, CsvLog(tmp_path / "eval.csv", EVAL_COLUMNS), every=50, episodes=2, seed=1)
    PPO("CnnPolicy", env, n_steps=16, batch_size=16, n_epochs=1, device="cpu").learn(16, callback)
    assert len((tmp_path / "eval.csv").read_text().splitlines()) == 1 + 2 * 2 * 2


def test_normalisation_on_one_side_alone_is_an_error():
    plain = DummyVecEnv([Countdown])
    with pytest.raises(ValueError, match="the training has 1 VecNormalize, the evaluation has 0; wrap both alike"):
        copy_normalization(VecNormalize(plain), plain)


def test_seeds_of_the_training_distribution_are_what_they_were():
    assert evaluation_seed("train", 11, 50) == int(np.random.SeedSequence([11, 50]).generate_state(1)[0])
    assert len({evaluation_seed(split, 11, steps) for split in ("train", "test") for steps in (0, 1, 50)}) == 6


def test_train_rows_hold_the_logged_numbers(tmp_path):
    model = make_ppo(make_vec_env("CartPole-v1", n_envs=1, seed=0))
    log = CsvLog(tmp_path / "train.csv", TRAIN_COLUMNS)
    model.set_logger(Logger(None, [CsvFormat(log, clock=lambda: 1.25)]))
    model.learn(96, callback=CallbackList([]))
    lines = (tmp_path / "train.csv").read_text().splitlines()
    header = lines[0].split(",")
    assert header[:2] == ["timesteps", "wall_seconds"]
    assert {"rollout/ep_rew_mean", "train/value_loss", "time/fps"} <= set(header)
    assert "time/iterations" not in header
    assert [line.split(",")[:2] for line in lines[1:]] == [["32", "1.25"], ["64", "1.25"], ["96", "1.25"]]


def test_non_numbers_are_not_logged(tmp_path):
    log = CsvLog(tmp_path / "train.csv", TRAIN_COLUMNS)
    row = {"text": "hello", "tensor": torch.tensor(0.5), "count": np.int64(3), "loss": 1 / 3, "many": np.zeros(2)}
    CsvFormat(log, clock=lambda: 0.0).write(row, {}, step=8)
    assert (tmp_path / "train.csv").read_text().splitlines() == [
        "timesteps,wall_seconds,count,loss,tensor",
        "8,0.0,3,0.33333,0.5",
    ]


def test_a_long_run_keeps_one_row_of_each_interval_wherever_it_was_killed(tmp_path):
    whole, killed = (CsvLog(tmp_path / name, TRAIN_COLUMNS) for name in ("whole.csv", "killed.csv"))
    steps = range(8, 200, 8)
    format = CsvFormat(whole, clock=lambda: 0.0, every=20)
    for step in steps:
        format.write({"loss": step}, {}, step)
    for part in (steps[:9], steps[9:17], steps[17:]):
        format = CsvFormat(killed, clock=lambda: 0.0, every=20)
        for step in part:
            format.write({"loss": step}, {}, step)
    assert whole.path.read_text() == killed.path.read_text()
    assert [line.split(",")[0] for line in whole.path.read_text().splitlines()[1:]] == [
        *("8", "24", "40", "64", "80", "104", "120", "144", "160", "184")
    ]


def test_helpers_nest():
    env = VecNormalize(DummyVecEnv([Countdown]))
    with frozen_normalization(env), frozen_normalization(env), preserved_random_state():
        assert not env.training
        torch.rand(1)
    assert env.training
