"""Games in which a policy plays itself: against OpenSpiel's own states, from saved states, with wrong arguments."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pyspiel
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecMonitor

from maxent_onpolicy.envs.capture import StateNotRestorableError
from maxent_onpolicy.envs.state import get_env_state, set_env_state, state_from_bytes, state_to_bytes
from maxent_onpolicy.games.selfplay import SelfPlayVecEnv
from maxent_onpolicy.games.selfplay.tree import GameTree
from maxent_onpolicy.games.sequence_form import SequenceFormGame

GAMES = (
    "kuhn_poker",
    "leduc_poker",
    "liars_dice(numdice=1)",
    "tic_tac_toe",
    "goofspiel(num_cards=3,imp_info=True,points_order=random)",
    "matrix_rps",
)

GOOFSPIEL = "goofspiel(num_cards=3,imp_info=True,points_order=descending)"


def choose(observation, random):
    """Legal actions, all alike."""
    mask = observation["action_mask"]
    return (random.random(mask.shape) * mask).argmax(1)


def play(env, steps, observation, random):
    """Observations, rewards and dones of some random steps."""
    found = []
    for _ in range(steps):
        observation, reward, done, _ = env.step(choose(observation, random))
        found.append((observation["observation"], observation["action_mask"], reward, done, env.acting_player))
    return found


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", GAMES)
def test_what_is_seen_and_gained_is_what_openspiel_says(name):
    env = SelfPlayVecEnv(name, 3, seed=1)
    game = pyspiel.load_game(name)
    if game.get_type().dynamics == pyspiel.GameType.Dynamics.SIMULTANEOUS:
        game = pyspiel.convert_to_turn_based(game)
    tensor = "information_state_tensor" if game.get_type().provides_information_state_tensor else "observation_tensor"
    random = np.random.default_rng(0)
    observation = env.reset()
    gained = np.zeros(3)
    ended = 0
    for _ in range(40):
        histories = env.get_state()["games"]["histories"]
        for row, history in enumerate(histories):
            state = game.new_initial_state()
            for action in history:
                state.apply_action(action)
            player = state.current_player()
            assert player == env.acting_player[row]
            expected = [*getattr(state, tensor)(player), player == 0, player == 1]
            np.testing.assert_array_equal(observation["observation"][row], np.array(expected, np.float32))
            np.testing.assert_array_equal(observation["action_mask"][row], state.legal_actions_mask(player))
        actions = choose(observation, random)
        before = [[*history, int(action)] for history, action in zip(histories, actions, strict=True)]
        observation, reward, done, infos = env.step(actions)
        gained += reward
        for row in np.flatnonzero(done):
            ended += 1
            last = [game.new_initial_state()]
            for action in before[row]:
                last[0].apply_action(action)
            assert last[0].is_terminal() or last[0].is_chance_node()
            if last[0].is_terminal():
                assert gained[row] == last[0].returns()[0]
            assert infos[row]["episode"]["r"] == gained[row]
            assert not infos[row]["TimeLimit.truncated"]
            gained[row] = 0.0
    assert ended > 3
    assert env.observation_space.contains({key: value[0] for key, value in observation.items()})


@pytest.mark.parametrize("name", ["kuhn_poker", "leduc_poker"])
def test_random_play_earns_what_the_sequence_form_says(name):
    game = SequenceFormGame.from_openspiel(name)
    env = SelfPlayVecEnv(name, 256, seed=0)
    random, observation = np.random.default_rng(3), env.reset()
    returns = []
    for _ in range(400):
        observation, _, _, infos = env.step(choose(observation, random))
        returns += [info["episode"]["r"] for info in infos if "episode" in info]
    error = np.std(returns) / np.sqrt(len(returns))
    assert len(returns) > 20_000
    assert abs(np.mean(returns) - game.value(game.uniform())) < 4 * error


def test_chance_deals_as_it_should():
    env = SelfPlayVecEnv("kuhn_poker", 6000, seed=0)
    env.reset()
    deals = [tuple(history) for history in env.get_state()["games"]["histories"]]
    counts = np.unique(deals, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5  # the 0.999 quantile of χ² with 5 degrees of freedom


@pytest.mark.parametrize("name", ["matrix_rps", GOOFSPIEL])
def test_the_second_of_two_simultaneous_moves_knows_nothing_of_the_first(name):
    env = SelfPlayVecEnv(name, 3, seed=0)
    env.reset()
    observation, *_ = env.step(np.arange(3))
    assert env.acting_player.tolist() == [1, 1, 1]
    assert (observation["observation"] == observation["observation"][0]).all()


def test_a_seed_determines_the_games():
    first, second = SelfPlayVecEnv("leduc_poker", 4, seed=7), SelfPlayVecEnv("leduc_poker", 4)
    other = SelfPlayVecEnv("leduc_poker", 4, seed=8)
    second.seed(7)
    runs = [play(env, 50, env.reset(), np.random.default_rng(0)) for env in (first, second, other)]
    assert_same(runs[0], runs[1])
    with pytest.raises(AssertionError):
        assert_same(runs[0], runs[2])


@pytest.mark.parametrize("name", ["leduc_poker", GAMES[4]])
def test_a_saved_state_goes_on_exactly(name):
    env, other = (SelfPlayVecEnv(name, 4, seed=seed, monitor=False) for seed in (2, 3))
    observation = env.reset()
    play(env, 33, observation, np.random.default_rng(0))
    saved = state_from_bytes(state_to_bytes(get_env_state(VecMonitor(env))))
    seen = env._observe()
    ahead = play(env, 60, seen, np.random.default_rng(1))
    set_env_state(VecMonitor(other), saved)
    assert_same(ahead, play(other, 60, other._observe(), np.random.default_rng(1)))


def test_a_state_before_the_first_reset_can_be_saved():
    env, other = SelfPlayVecEnv("kuhn_poker", 2, seed=2), SelfPlayVecEnv("kuhn_poker", 2, seed=3)
    other.reset()
    other.set_state(env.get_state())
    with pytest.raises(gym.error.ResetNeeded):
        other.step(np.zeros(2, int))
    np.testing.assert_array_equal(other.reset()["observation"], env.reset()["observation"])


def test_returns_and_lengths_survive_a_saved_state():
    env = SelfPlayVecEnv("leduc_poker", 2, seed=2)
    play(env, 5, env.reset(), np.random.default_rng(0))
    other = pickle.loads(pickle.dumps(env))
    infos = [[info for _ in range(30) for info in each.step(choose(each._observe(), random))[3]]
             for each, random in ((env, np.random.default_rng(1)), (other, np.random.default_rng(1)))]  # fmt: skip
    episodes = [[(info["episode"]["r"], info["episode"]["l"]) for info in each if "episode" in info] for each in infos]
    assert episodes[0] == episodes[1]
    assert len(episodes[0]) > 5


def test_a_forgetful_tree_plays_the_same_games():
    env, forgetful = SelfPlayVecEnv("leduc_poker", 3, seed=5), SelfPlayVecEnv("leduc_poker", 3, seed=5)
    forgetful.tree = GameTree(forgetful.game, most_nodes=20)
    runs = [play(each, 200, each.reset(), np.random.default_rng(0)) for each in (env, forgetful)]
    assert_same(*runs)
    assert len(forgetful.tree.states) < 50 < len(env.tree.states)


def test_states_of_other_environments_are_refused():
    env = SelfPlayVecEnv("kuhn_poker", 2, seed=0)
    env.reset()
    state = env.get_state()
    for other, what in ((SelfPlayVecEnv("leduc_poker", 2), "game"), (SelfPlayVecEnv("kuhn_poker", 3), "num_envs")):
        with pytest.raises(StateNotRestorableError, match=f"saved with the {what}"):
            other.set_state(state)
    damaged = copy.deepcopy(state)
    damaged["games"]["histories"][0] = [0, 0]
    with pytest.raises(StateNotRestorableError, match="0 is illegal after"):
        env.set_state(damaged)


def test_it_is_a_vec_env():
    env = SelfPlayVecEnv("kuhn_poker", 3, seed=0)
    env.reset()
    assert env.get_attr("acting_player") == [0, 0, 0]
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert SelfPlayVecEnv("kuhn_poker", monitor=False).env_is_wrapped(Monitor) == [False]
    env.set_attr("note", 5, indices=[1])
    assert env.get_attr("note", [1]) == [5]
    with pytest.raises(AttributeError, match=r"kuhn_poker's .* have no attribute 'not_there'"):
        env.get_attr("not_there")
    quiet = SelfPlayVecEnv("kuhn_poker", 3, seed=0, monitor=False)
    infos = [info for *_, info in [quiet.step(choose(quiet.reset(), np.random.default_rng(0))) for _ in range(3)]]
    assert not any("episode" in info for step in infos for info in step)
    env.close()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(3, int))


@pytest.mark.parametrize(
    ("game", "message"),
    [
        ("leduc_pokker", r"OpenSpiel has no game 'leduc_pokker' \(did you mean 'leduc_poker'\?\)"),
        ("kuhn_poker(players=3)", "kuhn_poker has 3 players; it must have two"),
        ("first_sealed_auction", "not zero-sum in OpenSpiel's words"),
        ("bridge", "bridge has 4 players"),
        ("kriegspiel", "offers no information-state tensor, which is what the policy would see"),
    ],
)
def test_other_games_are_refused(game, message):
    with pytest.raises(ValueError, match=message):
        SelfPlayVecEnv(game)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (1, r"`actions`: 1 is illegal for player 1 in environment 1 of goofspiel\(.*\), who may choose among 0, 2; a"),
        (7, "`actions`: 7 is illegal for player 1"),
        (-1, "`actions`: -1 is illegal for player 1"),
    ],
)
def test_illegal_actions_are_named(action, message):
    env = SelfPlayVecEnv(GOOFSPIEL, 2, seed=0)
    env.reset()
    for played in (0, 1, 1):
        env.step(np.full(2, played))
    with pytest.raises(ValueError, match=message):
        env.step(np.array([0, action]))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"`n_envs` must be in \[1, inf\), got 0"):
        SelfPlayVecEnv("kuhn_poker", 0)
    with pytest.raises(ValueError, match="`seed` must be"):
        SelfPlayVecEnv("kuhn_poker", 1, seed=-1)
    env = SelfPlayVecEnv("kuhn_poker", 2, seed=0)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(2, int))
    env.reset()
    with pytest.raises(ValueError, match=r"`actions` must be integers of shape \(2,\), got float64 \[2\]"):
        env.step(np.zeros(2))
    with pytest.raises(ValueError, match=r"`actions` must be integers of shape \(2,\), got int64 \[3\]"):
        env.step(np.zeros(3, int))
