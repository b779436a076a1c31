"""Procgen's games: the same as on OpenAI's own interface, deterministic, and exact about how episodes end."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from procgen_episodes import Digest, actions_of

from maxent_onpolicy.envs.make import make_vec_env
from maxent_onpolicy.envs.procgen.batch import GameBatch
from maxent_onpolicy.envs.procgen.games import ACTIONS, EXPLORATION_LEVELS, GAMES, MODES, GameOptions
from maxent_onpolicy.envs.procgen.library import load_library
from maxent_onpolicy.envs.procgen.saved_game import read_saved_game, without_timeout
from maxent_onpolicy.envs.procgen.vec_env import ProcgenVecEnv

try:
    PACKAGE = load_library().package
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

GOLDEN = json.loads((Path(__file__).parent / "procgen_golden.json").read_text(encoding="utf-8"))
ALL = [(game, mode) for mode, (_, games) in MODES.items() for game in games]
NOOP = ACTIONS.index("")
MAZE = {"distribution_mode": "easy", "num_levels": 20}


def play(case, **kwargs):
    timeouts = "termination" if "use_generated_assets" in case["options"] else "truncation"
    vec_env = ProcgenVecEnv(case["game"], case["n_envs"], timeouts=timeouts, **case["options"], **kwargs)
    vec_env.seed(case["seed"])
    digest = Digest()
    digest.begin(vec_env.reset())
    for actions in actions_of(case):
        digest.add(*vec_env.step(actions))
    vec_env.close()
    return digest.found


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: "-".join([case["game"], *map(str, case["options"])]))
def test_episodes_are_those_of_openais_interface(case):
    found, expected = play(case), case["expected"]
    if GOLDEN["made_with"].get(PACKAGE) is None:  # the wheel of Python 3.13 draws with another version of Qt
        found, expected = ({**each, "frames": []} for each in (found, expected))
    assert found == expected


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_threads_change_nothing(num_threads):
    case = next(case for case in GOLDEN["cases"] if case["game"] == "starpilot" and case["steps"] == 200)
    assert play(case, num_threads=num_threads) == play(case, num_threads=0)


def test_the_golden_episodes_cover_every_game_and_mode_and_ends_of_all_kinds():
    played = {(case["game"], case["options"].get("distribution_mode", "hard")) for case in GOLDEN["cases"]}
    assert played >= set(ALL)
    assert sum(case["expected"]["ends"] for case in GOLDEN["cases"]) > 20
    assert sum(case["expected"]["reward"] for case in GOLDEN["cases"]) > 0


def test_nothing_of_the_wheels_python_is_imported():
    """Not ``gym`` either, but where that is installed SB3 imports it."""
    code = (
        "import sys; from maxent_onpolicy import make_vec_env; make_vec_env('procgen:coinrun', 2, seed=0).reset(); "
        "print(sorted({'procgen', 'procgen_gym', 'gym3', 'cffi', 'mujoco'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numbers_of_openais_package():
    assert len(GAMES) == 16
    assert len(ACTIONS) == 15
    assert sorted({game for game, mode in ALL if mode == "exploration"}) == sorted(EXPLORATION_LEVELS)
    assert len(ALL) == 16 + 16 + 4 + 6 + 8


@pytest.mark.parametrize(("game", "mode"), ALL)
def test_saved_games_are_read_as_they_are(game, mode):
    options = GameOptions(game, distribution_mode=mode)
    games = GameBatch(1, options.for_library(3, 0, False))
    for _ in range(7):
        games.act(NOOP)
        games.observe()
    state = games.get_state(0)
    timeouts = {"bigfish": 6000, "bossfight": 4000, "plunder": 4000, "leaper": 500, "maze": 500}
    timeout = 2000 if (game, mode) == ("jumper", "memory") else timeouts.get(game, 1000)
    assert read_saved_game(state)[:3] == (game, timeout, 7)
    endless = without_timeout(state)
    assert read_saved_game(endless)[:3] == (game, 2**31 - 1, 7)
    assert sum(old != new for old, new in zip(state, endless, strict=True)) <= 4
    if mode == "exploration":
        assert games.info["level_seed"][0] == EXPLORATION_LEVELS[game]


def noop_until(vec_env, steps):
    for _ in range(steps):
        result = vec_env.step(np.full(vec_env.num_envs, NOOP))
    return result


def test_the_last_observation_of_an_episode_that_times_out_is_the_true_one():
    """Doing nothing in a maze: what is seen after 500 steps is what was seen after 499, but for what moves."""
    vec_env, counting_as_ends = (
        ProcgenVecEnv("maze", 3, timeouts=timeouts, **MAZE) for timeouts in ("truncation", "termination")
    )
    for env in (vec_env, counting_as_ends):
        env.seed(4)
        env.reset()
    before = noop_until(vec_env, 499)
    assert not before[2].any()
    assert all(not info["TimeLimit.truncated"] for info in before[3])
    noop_until(counting_as_ends, 499)
    states = [vec_env._games.get_state(index) for index in range(3)]
    observation, reward, done, infos = noop_until(vec_env, 1)
    others = noop_until(counting_as_ends, 1)
    assert done.all()
    for index, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert info["episode"]["l"] == 500
        # The maze stands still, so its last picture is the one before.
        np.testing.assert_array_equal(info["terminal_observation"], before[0][index])
        assert not np.array_equal(info["terminal_observation"], observation[index])
        # An own game without timeout, made here, sees the same.
        replay = GameBatch(1, vec_env.options.for_library(99, 0, False))
        replay.set_state(0, without_timeout(states[index]))
        replay.act(NOOP)
        replay.observe()
        np.testing.assert_array_equal(info["terminal_observation"], replay.observation[0])
    np.testing.assert_array_equal(observation, others[0])
    np.testing.assert_array_equal(reward, others[1])
    for info in others[3]:
        assert info["TimeLimit.truncated"] is False
        assert "terminal_observation" not in info
        assert info["episode"]["l"] == 500


@pytest.mark.parametrize(
    ("game", "options"), [("coinrun", {}), ("maze", {"use_sequential_levels": True}), ("leaper", {})]
)
def test_looking_past_the_timeout_changes_nothing_else(game, options):
    options = {"distribution_mode": "easy", "num_levels": 30, **options}
    vec_envs = [ProcgenVecEnv(game, 4, timeouts=timeouts, **options) for timeouts in ("truncation", "termination")]
    for vec_env in vec_envs:
        vec_env.seed(8)
        vec_env.reset()
    rng, cut_off = np.random.default_rng(0), 0
    for _ in range(1100):
        actions = rng.integers(15, size=4)
        # Some stand still, so that episodes of every game reach their timeout.
        actions[:2] = NOOP
        (observation, reward, done, infos), other = (vec_env.step(actions) for vec_env in vec_envs)
        np.testing.assert_array_equal(observation, other[0])
        np.testing.assert_array_equal(reward, other[1])
        np.testing.assert_array_equal(done, other[2])
        for index, info in enumerate(infos):
            assert ("terminal_observation" in info) == info["TimeLimit.truncated"]
            cut_off += info["TimeLimit.truncated"]
            if info["TimeLimit.truncated"]:
                assert done[index]
    assert cut_off > 0


def test_an_episode_that_ends_in_the_step_of_its_timeout_is_no_truncation():
    """A game of fruitbot that is about to end by itself is given a timeout that comes with the same step."""
    vec_env = ProcgenVecEnv("fruitbot", 1, num_levels=5)
    vec_env.seed(0)
    vec_env.reset()
    history = []
    done = np.zeros(1, dtype=bool)
    while not done[0]:
        history.append(vec_env._games.get_state(0))
        done = vec_env.step([NOOP])[2]
    length = len(history)
    vec_env._games.set_state(0, history[-1])
    vec_env._start_counting(0.0, length - 1, length - 1)
    vec_env._timeout = length
    _, _, done, infos = vec_env.step([NOOP])
    assert done[0]
    assert infos[0]["TimeLimit.truncated"] is False
    assert "terminal_observation" not in infos[0]
    # One step before, the same game would have gone on.
    vec_env._games.set_state(0, history[-2])
    position = read_saved_game(history[-2]).timeout_at
    short = history[-2][:position] + (length - 1).to_bytes(4, "little") + history[-2][position + 4 :]
    vec_env._games.set_state(0, short)
    vec_env._start_counting(0.0, length - 2, length - 2)
    vec_env._timeout = length - 1
    _, _, done, infos = vec_env.step([NOOP])
    assert done[0]
    assert infos[0]["TimeLimit.truncated"] is True


def test_sequential_levels_go_on_within_the_episode():
    case = next(case for case in GOLDEN["cases"] if case["options"].get("use_sequential_levels"))
    vec_env = ProcgenVecEnv(case["game"], case["n_envs"], **case["options"])
    vec_env.seed(case["seed"])
    vec_env.reset()
    completed, lengths = 0, np.zeros(case["n_envs"], dtype=int)
    for actions in actions_of(case):
        _, _, done, infos = vec_env.step(actions)
        lengths += 1
        for index, info in enumerate(infos):
            if info["prev_level_complete"]:
                completed += 1
                assert not done[index]
                assert info["level_seed"] == info["prev_level_seed"] + 997
            if done[index]:
                assert info["episode"]["l"] == lengths[index]
                lengths[index] = 0
        clocks = [read_saved_game(vec_env._games.get_state(index)).elapsed for index in range(2)]
        assert vec_env._clocks()[:2].tolist() == clocks
    assert completed > 5


@pytest.mark.parametrize("game", ["coinrun", "bossfight"])
def test_levels_of_training_and_testing_are_disjoint(game):
    seen = {}
    for name, levels in {"train": {"num_levels": 20}, "test": {"start_level": 20, "num_levels": 30}}.items():
        vec_env = make_vec_env(f"procgen:{game}", 16, seed=1, distribution_mode="easy", **levels)
        vec_env.reset()
        seen[name] = set(vec_env.get_attr("level_seed"))
        rng = np.random.default_rng(0)
        for _ in range(60):
            infos = vec_env.step(rng.integers(15, size=16))[3]
            seen[name] |= {info["level_seed"] for info in infos}
        vec_env.reset()
        seen[name] |= set(vec_env.get_attr("level_seed"))
    assert len(seen["train"]) > 5
    assert seen["train"] <= set(range(20))
    assert seen["test"] <= set(range(20, 50))


def test_returns_and_lengths_are_those_of_the_steps():
    vec_env = make_vec_env("procgen:bossfight", 5, seed=3, distribution_mode="easy")
    vec_env.reset()
    rng = np.random.default_rng(1)
    returns, lengths, ended = np.zeros(5), np.zeros(5, dtype=int), 0
    for _ in range(300):
        _, reward, done, infos = vec_env.step(rng.integers(15, size=5))
        assert reward.dtype == np.float32
        returns += reward
        lengths += 1
        for index, info in enumerate(infos):
            assert ("episode" in info) == done[index]
            if done[index]:
                ended += 1
                assert (info["episode"]["r"], info["episode"]["l"]) == (round(returns[index], 6), lengths[index])
                assert vec_env.reset_infos[index] == {"level_seed": info["level_seed"]}
                returns[index], lengths[index] = 0, 0
    assert ended > 5


def test_the_library_is_loaded_once():
    assert load_library() is load_library()
