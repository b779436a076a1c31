"""MiniGrid's environments: the same episodes as MiniGrid's own, made on demand, and a state that can be restored."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minigrid.core.world_object import Key
from minigrid.wrappers import FullyObsWrapper, ImgObsWrapper
from stable_baselines3.common.callbacks import BaseCallback
from stepping import check_continues

from maxent_onpolicy import PPO, MaxEntPPO, make_vec_env
from maxent_onpolicy.envs.state import StateNotRestorableError, get_env_state, set_env_state
from maxent_onpolicy.policies.minigrid_cnn import MaxEntMiniGridCnnPolicy, MiniGridCnnPolicy

DOOR_KEY, EMPTY = "MiniGrid-DoorKey-8x8-v0", "MiniGrid-Empty-8x8-v0"
TASKS = {
    DOOR_KEY: {},
    EMPTY: {"max_steps": 30},
    "MiniGrid-DoorKey-5x5-v0": {"agent_view_size": 5},
    "MiniGrid-LavaCrossingS9N1-v0": {},
    "MiniGrid-Dynamic-Obstacles-8x8-v0": {},
    "MiniGrid-FourRooms-v0": {},
    "MiniGrid-ObstructedMaze-1Dlhb-v0": {},
    "BabyAI-GoToLocal-v0": {},
    "BabyAI-PutNextLocal-v0": {},
}
LEFT, RIGHT, FORWARD = 0, 1, 2
SETTINGS = {"n_steps": 32, "batch_size": 64, "n_epochs": 2, "seed": 3, "device": "cpu"}


def base(vec_env, index=0):
    return vec_env.envs[index].unwrapped


def full(env):
    return ImgObsWrapper(FullyObsWrapper(env))


def act_at_random(theirs, ours, steps, seed):
    """Step both with the same actions and compare; returns how many episodes ended."""
    rng = np.random.default_rng(seed)
    (expected, info), (result, our_info) = theirs.reset(seed=seed), ours.reset(seed=seed)
    ended = 0
    for _ in range(steps):
        assert result.dtype == expected.dtype == np.uint8
        np.testing.assert_array_equal(result, expected)
        assert our_info == info
        action = int(rng.integers(theirs.action_space.n))
        expected, *outcome, info = theirs.step(action)
        result, *our_outcome, our_info = ours.step(action)
        assert our_outcome == outcome
        if outcome[1] or outcome[2]:
            ended += 1
            (expected, info), (result, our_info) = theirs.reset(), ours.reset()
    return ended


@pytest.mark.parametrize(("env_id", "kwargs"), TASKS.items(), ids=TASKS)
@pytest.mark.parametrize(("observation", "wrapper"), [("view", ImgObsWrapper), ("full", full)], ids=["view", "full"])
def test_equals_minigrid_step_by_step(env_id, kwargs, observation, wrapper):
    theirs = wrapper(gym.make(env_id, **kwargs))
    ours = make_vec_env(env_id, 1, seed=0, observation=observation, monitor=False, **kwargs).envs[0]
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    ended = sum(act_at_random(theirs, ours, 150, seed) for seed in range(3))
    if env_id == EMPTY:
        assert ended > 9, "both must also agree on episodes that follow others"


def test_the_dictionary_is_left_to_a_wrapper():
    theirs = ImgObsWrapper(gym.make(DOOR_KEY))
    ours = make_vec_env(DOOR_KEY, 1, observation="dict", wrapper=ImgObsWrapper, monitor=False).envs[0]
    act_at_random(theirs, ours, 100, seed=5)


def test_environments_are_registered_on_demand():
    program = f"""
import sys, maxent_onpolicy
assert "minigrid" not in sys.modules
env = maxent_onpolicy.make_vec_env("{DOOR_KEY}", n_envs=64, seed=0)
print(env.reset().shape, env.reset().dtype)
"""
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert result.stdout.split("\n")[0] == "(64, 7, 7, 3) uint8"


def test_environment_i_is_seeded_with_seed_plus_i():
    both, second = make_vec_env(DOOR_KEY, 2, seed=3).reset(), make_vec_env(DOOR_KEY, 1, seed=4).reset()
    np.testing.assert_array_equal(both[1], second[0])
    assert not np.array_equal(both[0], both[1])


def test_pictures_are_drawn():
    vec_env = make_vec_env(EMPTY, 2, seed=0)
    vec_env.reset()
    assert [image.shape for image in vec_env.get_images()] == [(256, 256, 3)] * 2


def test_an_advancing_turn_turns_and_moves_in_one_step():
    env = base(make_vec_env(EMPTY, 1, seed=0, advancing_turns=True))
    env.reset(seed=0)
    env.step(LEFT)
    assert (tuple(env.agent_pos), env.agent_dir, env.step_count) == ((1, 1), 3, 1), "the wall is in the way"
    env.reset(seed=0)
    for _ in range(5):
        env.step(FORWARD)
    env.step(RIGHT)
    assert (tuple(env.agent_pos), env.agent_dir, env.step_count) == ((6, 2), 1, 6)
    for _ in range(3):
        env.step(FORWARD)
    _, reward, terminated, truncated, _ = env.step(FORWARD)
    assert (reward, terminated, truncated) == (1 - 0.9 * 10 / 256, True, False)


def test_a_turn_that_ends_the_episode_does_not_advance():
    """To face the object is enough in some tasks of BabyAI."""
    env = base(make_vec_env("BabyAI-GoToObj-v0", 1, seed=0, advancing_turns=True))
    ends = 0
    rng = np.random.default_rng(0)
    for seed in range(20):
        env.reset(seed=seed)
        done = False
        while not done:
            before, action = tuple(env.agent_pos), int(rng.integers(3))
            _, _, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            if terminated and action != FORWARD and tuple(env.agent_pos) == before:
                ends += 1
                assert env.instrs.verify(6) == "success"
    assert ends > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"env_id": "MiniGrid-DoorKey-8x9-v0"}, ["'MiniGrid-DoorKey-8x9-v0'", "'MiniGrid-DoorKey-8x8-v0'"]),
        ({"env_id": "Minigrid-DoorKey-8x8-v0"}, ["'MiniGrid-DoorKey-8x8-v0'"]),
        ({"env_id": "BabyAI-GoToLocl-v0"}, ["'BabyAI-GoToLocal-v0'"]),
        ({"env_id": EMPTY, "observation": "image"}, ["`observation`", "'view', 'full', 'dict'", "'image'"]),
        ({"env_id": EMPTY, "advancing_turns": "yes"}, ["`advancing_turns`", "True, False", "'yes'"]),
        ({"env_id": EMPTY, "observtion": "full"}, ["no 'observtion'", "did you mean 'observation'"]),
    ],
)
def test_errors_name_what_is_allowed(arguments, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        make_vec_env(**arguments)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("env_id", [DOOR_KEY, "BabyAI-GoToLocal-v0"])
def test_the_error_says_what_to_install(monkeypatch, env_id):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(ImportError, match=r"pip install 'maxent-onpolicy\[minigrid\]'"):
        make_vec_env(env_id)


@pytest.mark.parametrize(("env_id", "kwargs"), TASKS.items(), ids=TASKS)
def test_continues_exactly_across_episode_ends(env_id, kwargs):
    kwargs = kwargs | ({} if env_id.startswith("BabyAI") else {"max_steps": 40})
    ended = check_continues(lambda: make_vec_env(env_id, 2, seed=3, **kwargs), before=30, after=100)
    assert ended >= 2


@pytest.mark.parametrize("before", [0, 1])
def test_continues_exactly_from_the_first_steps(before):
    check_continues(lambda: make_vec_env(DOOR_KEY, 2, seed=3), before, after=50)


def carrying_a_key():
    """A DoorKey whose agent has the key in its hands, which is then on no cell of the grid."""
    vec_env = make_vec_env(DOOR_KEY, 1, seed=3)
    vec_env.reset()
    env = base(vec_env)
    key = next(item for item in env.grid.grid if isinstance(item, Key))
    env.agent_pos, env.agent_dir = (key.cur_pos[0], key.cur_pos[1] - 1), 1
    env.step(3)
    assert env.carrying is key
    return vec_env


def test_what_is_carried_is_restored():
    saved, restored = carrying_a_key(), make_vec_env(DOOR_KEY, 1, seed=9)
    set_env_state(restored, get_env_state(saved))
    assert base(restored).carrying.encode() == base(saved).carrying.encode()
    assert type(base(restored).carrying) is Key
    np.testing.assert_array_equal(saved.step([4])[0], restored.step([4])[0])
    assert base(restored).grid == base(saved).grid


def test_one_object_in_two_places_is_one_object_again():
    saved, restored = (make_vec_env("BabyAI-GoToLocal-v0", 1, seed=seed) for seed in (3, 9))
    saved.reset()
    set_env_state(restored, get_env_state(saved))
    for env in (base(saved), base(restored)):
        goals = env.instrs.desc.obj_set
        assert goals
        assert all(any(goal is item for item in env.grid.grid) for goal in goals)
        assert env.instrs.env is env


def test_random_actions_continue():
    saved, restored = (make_vec_env(DOOR_KEY, 1, seed=seed) for seed in (3, 9))
    saved.reset()
    base(saved).action_space.sample()
    set_env_state(restored, get_env_state(saved))
    spaces_of_both = [base(vec_env).action_space for vec_env in (saved, restored)]
    drawn = [[space.sample() for _ in range(20)] for space in spaces_of_both]
    assert drawn[0] == drawn[1]


def test_attributes_of_the_users_own_are_restored_or_named():
    vec_env = make_vec_env(EMPTY, 1, seed=0)
    vec_env.reset()
    base(vec_env).visited = {"cells": [1, 2], "agent": (3, 4)}
    other = make_vec_env(EMPTY, 1)
    set_env_state(other, get_env_state(vec_env))
    assert base(other).visited == {"cells": [1, 2], "agent": (3, 4)}
    base(vec_env).visited["log"] = object()
    with pytest.raises(StateNotRestorableError, match=r"`visited\.log` is a builtins\.object"):
        get_env_state(vec_env)


def test_a_state_cannot_name_foreign_classes():
    env = base(make_vec_env(EMPTY, 1))
    env.reset(seed=0)
    for name in ("subprocess:Popen", "minigrid.core.world_object:Nothing", "minigrid.core.world_object:np"):
        state = env.get_env_state()
        state["attributes"]["carrying"] = {"__class__": name}
        with pytest.raises(StateNotRestorableError, match=f"names '{name}'"):
            env.set_env_state(state)


def test_a_state_of_other_spaces_is_refused():
    env = base(make_vec_env(EMPTY, 1))
    env.reset(seed=0)
    state = env.get_env_state()
    state["generators"].append(None)
    with pytest.raises(StateNotRestorableError, match="EmptyEnv"):
        env.set_env_state(state)


@pytest.mark.parametrize(
    ("algorithm", "policy", "kwargs"),
    [(PPO, MiniGridCnnPolicy, {}), (MaxEntPPO, MaxEntMiniGridCnnPolicy, {"popart": True})],
    ids=["PPO", "MaxEntPPO"],
)
def test_training_resumes_bit_for_bit(tmp_path, algorithm, policy, kwargs):
    def make():
        return make_vec_env(DOOR_KEY, 4, seed=3, max_steps=50)

    def train(model, steps):
        return model.learn(steps, reset_num_timesteps=False)

    whole = train(train(algorithm(policy, make(), **SETTINGS, **kwargs), 256), 384)
    train(algorithm(policy, make(), **SETTINGS, **kwargs), 256).save(tmp_path / "model")
    torch.manual_seed(999)
    resumed = train(algorithm.load(tmp_path / "model", env=make(), resume=True, device="cpu"), 384)
    assert resumed.num_timesteps == whole.num_timesteps
    expected, result = whole.policy.state_dict(), resumed.policy.state_dict()
    assert expected.keys() == result.keys()
    for name, value in expected.items():
        assert torch.equal(result[name], value), name
    np.testing.assert_array_equal(whole._last_obs, resumed._last_obs)


def test_the_end_of_time_is_bootstrapped_from_the_last_view():
    """Nobody gets to the goal in three steps, so that every episode is truncated and its reward is 0."""

    class LastViews(BaseCallback):
        def __init__(self):
            super().__init__()
            self.views = []

        def _on_step(self):
            for index, info in enumerate(self.locals["infos"]):
                if self.locals["dones"][index]:
                    assert info["TimeLimit.truncated"]
                    self.views.append((self.n_calls - 1, index, info["terminal_observation"]))
            return True

    vec_env = make_vec_env(EMPTY, 2, seed=0, max_steps=3)
    model = PPO(MiniGridCnnPolicy, vec_env, **SETTINGS | {"learning_rate": 0.0}, gae_lambda=0.0, gamma=0.9)
    model.policy.value_net.bias.data.fill_(5.0)
    callback = LastViews()
    model.learn(64, callback=callback)
    assert len(callback.views) == 2 * 10
    buffer = model.rollout_buffer
    for step, index, view in callback.views:
        assert view.shape == (3, 7, 7)
        with torch.no_grad():
            value = model.policy.predict_values(torch.as_tensor(view)[None]).item()
        assert value > 1.0
        assert buffer.returns[step, index] == pytest.approx(0.9 * value, rel=1e-5)
        assert buffer.rewards[step, index] == pytest.approx(0.0)


def test_observations_are_images():
    vec_env = make_vec_env(DOOR_KEY, 2, seed=0)
    assert vec_env.observation_space == spaces.Box(0, 255, (7, 7, 3), np.uint8)
    assert vec_env.reset().max() <= 10
