"""PettingZoo's games in which a policy plays itself."""

import sys

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("pettingzoo")
from gymnasium import spaces
from pettingzoo import AECEnv, make

from maxent_onpolicy import MaxEntPPO
from maxent_onpolicy.envs.state import get_env_state, set_env_state, state_from_bytes, state_to_bytes
from maxent_onpolicy.games.selfplay import PettingZooVecEnv


def choose(observation, random):
    mask = observation["action_mask"]
    return (random.random(mask.shape) * mask).argmax(1)


class Guess(AECEnv):
    """Player 0 hides a number, player 1 guesses it; who is right wins. Its length and gains may be wrong."""

    metadata = {"name": "guess"}  # noqa: RUF012

    def __init__(self, agents=2, limit=None, second=-1.0, masks=True, actions=None):
        self.possible_agents = [f"p{index}" for index in range(agents)]
        self.limit, self.second = limit, second
        box = spaces.Box(0, 1, (2, 2), np.float32)
        seen = {"observation": box, "action_mask": spaces.Box(0, 1, (3,), np.int8)}
        self.observation_spaces = dict.fromkeys(self.possible_agents, spaces.Dict(seen) if masks else box)
        self.action_spaces = dict.fromkeys(self.possible_agents, actions or spaces.Discrete(3))

    def observation_space(self, agent):
        return self.observation_spaces[agent]

    def action_space(self, agent):
        return self.action_spaces[agent]

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.played = []
        self.mark = np.random.default_rng(seed).random()
        self.agent_selection = self.agents[0]

    def observe(self, agent):
        seen = np.array([[self.mark, len(self.played)], [0, 0]], np.float32)
        return {"observation": seen, "action_mask": np.array([1, 1, 0], np.int8)}

    def step(self, action):
        self.played.append(action)
        if len(self.played) % 2 == 0:
            gain = 1.0 if self.played[-1] != self.played[-2] else -1.0
            self.rewards = {"p0": gain, "p1": self.second * gain}
            self.terminations = dict.fromkeys(self.agents, self.limit is None)
            self.truncations = dict.fromkeys(self.agents, self.limit is not None and len(self.played) >= self.limit)
        else:
            self.rewards = dict.fromkeys(self.agents, 0.0)
        self.agent_selection = self.agents[len(self.played) % 2]


def test_what_is_seen_is_what_pettingzoo_says():
    env, random = PettingZooVecEnv("tictactoe_v3", 2, seed=0), np.random.default_rng(0)
    game = make("aec", "classic/tictactoe-v3")
    observation = env.reset()
    game.reset()
    gained, ended = 0.0, 0
    for _ in range(40):
        seen = game.observe(game.agent_selection)
        player = game.possible_agents.index(game.agent_selection)
        assert env.acting_player[0] == player
        expected = [*seen["observation"].ravel(), player == 0, player == 1]
        np.testing.assert_array_equal(observation["observation"][0], np.array(expected, np.float32))
        np.testing.assert_array_equal(observation["action_mask"][0], seen["action_mask"])
        actions = choose(observation, random)
        observation, reward, done, infos = env.step(actions)
        game.step(int(actions[0]))
        gained += reward[0]
        assert done[0] == all(game.terminations.values())
        if done[0]:
            ended += 1
            assert infos[0]["episode"]["r"] == gained == game.rewards["player_1"]
            game.reset()
            gained = 0.0
    assert ended > 3


@pytest.mark.parametrize("game", ["tictactoe_v3", "connect_four_v3"])
def test_a_policy_trains_and_goes_on_bit_for_bit(game, tmp_path):
    settings = {"n_steps": 12, "batch_size": 24, "n_epochs": 2, "seed": 0, "device": "cpu", "compile": False}
    whole = MaxEntPPO("MaskedMlpPolicy", PettingZooVecEnv(game, 2, seed=0), gamma=1.0, **settings).learn(48)
    whole.save(tmp_path / "model")
    whole.learn(48, reset_num_timesteps=False)
    env = PettingZooVecEnv(game, 2, seed=7)
    resumed = MaxEntPPO.load(tmp_path / "model", env=env, device="cpu", resume=True)
    resumed.learn(48, reset_num_timesteps=False)
    for name, value in whole.policy.state_dict().items():
        assert (resumed.policy.state_dict()[name] == value).all(), name
    assert whole.rollout_buffer.acting_player.float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_seeds_and_saved_states_determine_the_games():
    def play(env, observation, steps=30):
        random, found = np.random.default_rng(1), []
        for _ in range(steps):
            observation, reward, done, _ = env.step(choose(observation, random))
            found.append([*observation["observation"].ravel(), *reward, *done])
        return np.array(found)

    first, second, other = (PettingZooVecEnv(Guess, 3, seed=seed) for seed in (4, 4, 5))
    runs = [play(env, env.reset()) for env in (first, second, other)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
    first.step(np.zeros(3, int))
    saved = state_from_bytes(state_to_bytes(get_env_state(first)))
    ahead = play(first, first._observe())
    set_env_state(other, saved)
    np.testing.assert_array_equal(ahead, play(other, other._observe()))


def test_a_game_that_is_cut_off_keeps_its_last_observation():
    env = PettingZooVecEnv(lambda: Guess(limit=4), 1, seed=0)
    observation = env.reset()
    mark = observation["observation"][0, 0]
    for _ in range(4):
        observation, _, done, infos = env.step(np.zeros(1, int))
    assert done[0]
    assert infos[0]["TimeLimit.truncated"]
    last = infos[0]["terminal_observation"]
    assert last["observation"].tolist() == [mark, 4, 0, 0, 1, 0]
    assert observation["observation"][0, 1] == 0
    assert infos[0]["episode"]["l"] == 4


@pytest.mark.parametrize(
    ("game", "message"),
    [
        ("tictactoe_v4", r"PettingZoo has no classic game 'tictactoe_v4' \(did you mean 'tictactoe_v3'\?\)"),
        (lambda: Guess(agents=3), "has 3 players; it must have two"),
        (lambda: Guess(masks=False), "has no action masks: its observations are Box"),
        (lambda: Guess(actions=spaces.Box(0, 1, (1,))), "has the actions Box.*; they must be discrete"),
    ],
)
def test_other_games_are_refused(game, message):
    with pytest.raises(ValueError, match=message):
        PettingZooVecEnv(game)


def test_illegal_actions_and_other_sums_are_named():
    env = PettingZooVecEnv(lambda: Guess(second=1.0), 1, seed=0)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(1, int))
    env.reset()
    with pytest.raises(ValueError, match=r"`actions`: 2 is illegal for player 0 in environment 0 of .*among 0, 1;"):
        env.step(np.full(1, 2))
    env.step(np.zeros(1, int))
    with pytest.raises(ValueError, match="is not zero-sum: it pays -1 and -1 in one step"):
        env.step(np.zeros(1, int))


def test_without_pettingzoo_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    with pytest.raises(ImportError, match=r"pip install 'maxent-onpolicy\[games\]'"):
        PettingZooVecEnv("tictactoe_v3")


def test_without_what_a_game_needs_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rlcard", None)
    with pytest.raises(
        ImportError, match=r"texas_holdem_v4 cannot be imported .*: pip install 'pettingzoo\[classic\]'"
    ):
        PettingZooVecEnv("texas_holdem_v4")
