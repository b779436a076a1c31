"""Batched MuJoCo as an SB3 ``VecEnv``: infos, attributes, wrappers, state, images, errors."""

import pickle
from copy import deepcopy

import cloudpickle
import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecCheckNan, VecFrameStack, VecMonitor
from stable_baselines3.common.vec_env import VecNormalize as SB3VecNormalize
from stepping import actions_for, assert_equal_steps, check_continues

from maxent_onpolicy.envs import DiscretizeActions, GymVecEnv, VecNormalize, make_vec_env
from maxent_onpolicy.envs import make as make_module
from maxent_onpolicy.envs.mujoco_batch import MujocoBatchVecEnv
from maxent_onpolicy.envs.state import StateNotRestorableError, get_env_state, set_env_state


def make_both(env_id="Hopper-v5", n_envs=3, **kwargs):
    return [make_vec_env(env_id, n_envs, seed=2, backend=name, **kwargs) for name in ("mujoco_batch", "gymnasium")]


def test_is_the_default_for_mujoco():
    assert isinstance(make_vec_env("HalfCheetah-v5", 8), MujocoBatchVecEnv)
    assert isinstance(make_vec_env("gymnasium:Ant", 2), MujocoBatchVecEnv)
    for kwargs in ({"wrapper": lambda env: TimeLimit(env, 3)}, {"render_mode": "rgb_array_list"}):
        assert isinstance(make_vec_env("HalfCheetah-v5", **kwargs), GymVecEnv)


def test_says_what_it_needs():
    with pytest.raises(
        ValueError, match=r"cannot make 'CartPole-v1' as asked \(it needs MuJoCo of at least 3.17, .*v5"
    ):
        make_vec_env("CartPole-v1", backend="mujoco_batch")


def test_an_older_mujoco_leaves_the_tasks_to_gymnasium(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "maxent_onpolicy.envs.mujoco_batch.gymnasium_tasks", None)
    assert isinstance(make_vec_env("HalfCheetah-v5"), GymVecEnv)
    with pytest.raises(ValueError, match="it needs MuJoCo of at least"):
        make_vec_env("HalfCheetah-v5", backend="mujoco_batch")


@pytest.mark.parametrize(
    "wrap",
    [
        VecNormalize,
        SB3VecNormalize,
        lambda env: VecFrameStack(env, 3),
        VecCheckNan,
        pytest.param(VecMonitor, marks=pytest.mark.filterwarnings("ignore:.*already wrapped")),
    ],
    ids=["ours", "SB3", "stack", "nan", "monitor"],
)
def test_vec_env_wrappers_work_on_top(wrap):
    vec_env, expected = (wrap(env) for env in make_both(max_episode_steps=20))
    np.testing.assert_array_equal(vec_env.reset(), expected.reset())
    actions = actions_for(expected, 45)
    assert_equal_steps([vec_env.step(a) for a in actions], [expected.step(a) for a in actions])


def test_sb3s_own_make_vec_env_has_the_same_monitor_lines():
    vec_env, expected = make_vec_env("Walker2d-v5", 2, seed=7), sb3_make_vec_env("Walker2d-v5", 2, seed=7)
    vec_env.reset(), expected.reset()
    episodes = []
    for actions in actions_for(expected, 120):
        infos, expected_infos = vec_env.step(actions)[3], expected.step(actions)[3]
        for info, other in zip(infos, expected_infos, strict=True):
            assert ("episode" in info) == ("episode" in other)
            if "episode" in info:
                episodes.append(info["episode"])
                assert (info["episode"]["r"], info["episode"]["l"]) == (other["episode"]["r"], other["episode"]["l"])
                assert 0 <= info["episode"]["t"] < 100
    assert len(episodes) > 2


def test_rewards_are_remembered_across_very_long_episodes():
    vec_env, expected = make_both("Swimmer-v5", 2, max_episode_steps=2500)
    vec_env.reset(), expected.reset()
    zero = np.zeros((2, 2))
    for _ in range(2500):
        done, infos = vec_env.step(zero)[2:]
        expected_infos = expected.step(zero)[3]
    assert done.all()
    assert [(i["episode"]["r"], i["episode"]["l"]) for i in infos] == [
        (i["episode"]["r"], i["episode"]["l"]) for i in expected_infos
    ]


def test_without_monitor():
    vec_env, expected = make_both(monitor=False, max_episode_steps=5)
    vec_env.reset(), expected.reset()
    actions = actions_for(expected, 12)
    assert_equal_steps([vec_env.step(a) for a in actions], [expected.step(a) for a in actions])
    assert vec_env.env_is_wrapped(Monitor) == [False] * 3


def test_infos_behave_as_a_list_and_are_built_when_read():
    vec_env = make_vec_env("HalfCheetah-v5", 4, seed=0)
    vec_env.reset()
    built = []
    build = vec_env.task.info
    vec_env.task.info = lambda parts, index: built.append(index) or build(parts, index)

    def infos():
        return vec_env.step(np.zeros((4, 6), np.float32))[3]

    assert len(infos()) == 4
    assert infos()
    assert built == []
    lazy = infos()
    lazy[2]["mine"] = 1
    assert lazy[-2]["mine"] == 1
    assert lazy[np.int64(2)]["mine"] == 1
    assert built == [2]
    lazy[1] = {"other": 2}
    assert ["other" in info for info in lazy] == [False, True, False, False]
    assert isinstance(lazy, list)
    assert lazy[1:3] == [{"other": 2}, lazy[2]]
    for copy in (list(infos()), infos().copy(), infos()[:], deepcopy(infos()), pickle.loads(pickle.dumps(infos()))):
        assert type(copy) is list
        assert all("x_velocity" in info for info in copy)
    assert all("x_velocity" in info for info in [*infos(), *tuple(infos()), *reversed(infos()), *(infos() + infos())])
    assert len([{}] + infos()) == 5  # noqa: RUF005 - a list on the left
    lazy = infos()
    assert lazy == lazy[:]
    with pytest.raises(IndexError):
        infos()[4]


def test_what_is_returned_is_never_written_to_again():
    vec_env = make_vec_env("Hopper-v5", 3, seed=0, max_episode_steps=7)
    kept = [(vec_env.reset(),)] + [vec_env.step(actions) for actions in actions_for(vec_env, 1)]
    copies = deepcopy([step[:3] for step in kept])
    untouched = kept[1][3]
    again = make_vec_env("Hopper-v5", 3, seed=0, max_episode_steps=7)
    again.reset()
    expected = list(again.step(actions_for(again, 1)[0])[3])
    for actions in actions_for(vec_env, 30, seed=1):
        vec_env.step(actions)
    vec_env.reset()
    for step, copy in zip(kept, copies, strict=True):
        for value, before in zip(step[:3], copy, strict=True):
            np.testing.assert_array_equal(value, before)
    assert list(untouched) == expected


def test_attributes_and_methods_are_those_of_gymnasiums_environments():
    vec_env, expected = make_both("Ant-v5", 2, healthy_reward=3.0)
    vec_env.reset(), expected.reset()
    for actions in actions_for(expected, 5):
        vec_env.step(actions), expected.step(actions)
    for name in ("metadata", "render_mode", "dt", "_healthy_reward", "is_healthy", "frame_skip", "action_space"):
        assert vec_env.get_attr(name) == expected.get_attr(name), name
    assert vec_env.get_attr("spec", [1])[0].id == "Ant-v5"
    assert len(vec_env.get_attr("dt", 0)) == 1
    np.testing.assert_array_equal(vec_env.env_method("state_vector"), expected.env_method("state_vector"))
    generators = zip(vec_env.get_attr("np_random"), expected.get_attr("np_random"), strict=True)
    assert all(ours.bit_generator.state == theirs.bit_generator.state for ours, theirs in generators)
    assert vec_env.get_attr("unwrapped")[1].spec.id == "Ant-v5"
    assert vec_env.metadata == expected.metadata
    assert vec_env.has_attr("main_colour") is False
    vec_env.set_attr("main_colour", "red", indices=[1])
    assert vec_env.get_attr("main_colour", 1) == ["red"]
    assert vec_env.get_attr("_elapsed_steps") == expected.get_attr("_elapsed_steps") == [5, 5]
    assert vec_env.get_attr("_elapsed_steps", 1) == [5]
    with pytest.raises(AttributeError, match="`np_random_seed` is not kept"):
        vec_env.get_attr("np_random_seed")
    with pytest.raises(AttributeError, match=r"`_healthy_reward` was fixed .* pass it to make_vec_env"):
        vec_env.set_attr("_healthy_reward", 1.0)
    with pytest.raises(AttributeError, match="`set_state` would change one environment of a batch"):
        vec_env.env_method("set_state", 0, 0)


def test_state_vector_in_the_pool_is_current():
    vec_env, expected = make_both("HalfCheetah-v5", 3)
    vec_env.reset(), expected.reset()
    for actions in actions_for(expected, 5):
        vec_env.step(actions), expected.step(actions)
        np.testing.assert_array_equal(vec_env.env_method("state_vector"), expected.env_method("state_vector"))


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("env_id", ["Ant-v5", "Hopper-v5"])
def test_a_pickled_one_goes_on(env_id, n_envs):
    vec_env = make_vec_env(env_id, n_envs, seed=4, max_episode_steps=20, discretize_bins=3)
    vec_env.reset()
    actions = actions_for(vec_env, 50)
    for action in actions[:13]:
        vec_env.step(action)
    new = cloudpickle.loads(cloudpickle.dumps(vec_env))
    assert new.reset_infos == vec_env.reset_infos
    assert_equal_steps([vec_env.step(each) for each in actions[13:]], [new.step(each) for each in actions[13:]])


def test_the_history_of_a_monitor_is_refused_with_a_reason():
    vec_env = make_vec_env("Hopper-v5", 2, seed=0)
    for name in ("get_episode_rewards", "get_episode_lengths", "get_episode_times", "get_total_steps"):
        assert hasattr(Monitor, name)
        with pytest.raises(AttributeError, match=f"`{name}` is not kept; read .* or use make_vec_env"):
            vec_env.env_method(name)


def test_env_is_wrapped():
    vec_env = make_vec_env("HalfCheetah-v5", 2, discretize_bins=3)
    assert vec_env.env_is_wrapped(Monitor) == [True, True]
    assert vec_env.env_is_wrapped(TimeLimit, 0) == [True]
    assert vec_env.env_is_wrapped(DiscretizeActions) == [True, True]
    assert vec_env.env_is_wrapped(gym.wrappers.ClipAction) == [False, False]


def test_discrete_choices():
    vec_env, expected = make_both("Humanoid-v5", 2, discretize_bins=7)
    assert vec_env.action_space == expected.action_space
    vec_env.reset(), expected.reset()
    actions = actions_for(expected, 20)
    assert_equal_steps([vec_env.step(a) for a in actions], [expected.step(a) for a in actions])
    with pytest.raises(ValueError, match="bins"):
        make_vec_env("HalfCheetah-v5", discretize_bins=1)


def test_seeds_and_options_are_used_once():
    vec_env, expected = make_both("Reacher-v5", 2)
    for env in (vec_env, expected):
        env.set_options({"anything": 1})
    resets = [[env.reset() for _ in range(3)] for env in (vec_env, expected)]
    np.testing.assert_array_equal(*resets)
    assert vec_env._seeds == [None, None]
    assert vec_env._options == [{}, {}]
    vec_env.seed(2)
    np.testing.assert_array_equal(vec_env.reset(), resets[0][0])


@pytest.mark.parametrize("actions", [np.zeros((2, 5)), np.zeros((3, 6)), np.zeros(6), 0.0])
def test_actions_of_the_wrong_shape(actions):
    vec_env = make_vec_env("HalfCheetah-v5", 2)
    vec_env.reset()
    with pytest.raises(ValueError, match=r"Action dimension mismatch. Expected \(2, 6\), found"):
        vec_env.step(actions)


def test_reset_comes_first():
    with pytest.raises(gym.error.ResetNeeded):
        make_vec_env("HalfCheetah-v5", 2).step(np.zeros((2, 6)))


def test_only_gymnasiums_own_tasks():
    with pytest.raises(ValueError, match=r"`task` must be a MujocoTask or one of Gymnasium's MuJoCo -v5 tasks .AntEnv"):
        MujocoBatchVecEnv(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="`task` must not be wrapped: ClipAction"):
        MujocoBatchVecEnv(gym.wrappers.ClipAction(gym.make("Hopper-v5")))
    with pytest.raises(ValueError, match="`num_threads`"):
        MujocoBatchVecEnv(gym.make("Hopper-v5"), 2, num_threads=0)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("env_id", ["Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "Pusher-v5"])
def test_state(env_id, n_envs):
    ends = check_continues(lambda: make_vec_env(env_id, n_envs, seed=4, max_episode_steps=20), before=13, after=30)
    assert ends > 0


def test_state_before_the_first_reset():
    vec_env = make_vec_env("HalfCheetah-v5", 2, seed=4)
    state = get_env_state(vec_env)
    new = make_vec_env("HalfCheetah-v5", 2, seed=5)
    set_env_state(new, state)
    np.testing.assert_array_equal(vec_env.reset(), new.reset())


def test_state_of_other_environments_is_refused():
    vec_env, gymnasium_env = make_both("HalfCheetah-v5", 2)
    state = vec_env.get_state()
    for other, message in [
        (make_vec_env("HalfCheetah-v5", 3), "saved from 2 environments, but there are 3"),
        (make_vec_env("Hopper-v5", 2), "saved from HalfCheetah, but the environments are Hopper"),
    ]:
        with pytest.raises(StateNotRestorableError, match=message):
            other.set_state(state)
    with pytest.raises(StateNotRestorableError, match=r"MuJoCo 1\.2\.3"):
        vec_env.set_state(state | {"mujoco": "1.2.3"})
    gymnasium_env.reset()
    with pytest.raises(StateNotRestorableError, match="backend='gymnasium'"):
        vec_env.set_state(gymnasium_env.get_state())
    with pytest.raises(StateNotRestorableError, match="saved by a MujocoBatchVecEnv, not by environments in a GymVec"):
        gymnasium_env.set_state(state)
    other_model = gym.make("HalfCheetah-v5", xml_file="hopper.xml", frame_skip=4)
    with pytest.raises(StateNotRestorableError, match="another model"):
        MujocoBatchVecEnv(other_model, 2).set_state(state)


def test_state_of_the_same_model_in_another_task_is_refused():
    state = make_vec_env("Humanoid-v5", 2).get_state()
    with pytest.raises(StateNotRestorableError, match="saved from Humanoid, but the environments are HumanoidStandup"):
        make_vec_env("HumanoidStandup-v5", 2).set_state(state)


def test_a_state_without_rewards_cannot_continue_with_a_monitor():
    with_monitor, without = (make_vec_env("HalfCheetah-v5", 2, monitor=monitor) for monitor in (True, False))
    with_monitor.reset(), without.reset()
    with pytest.raises(StateNotRestorableError, match="saved with monitor=False"):
        with_monitor.set_state(without.get_state())
    without.set_state(with_monitor.get_state())
    without.step(np.zeros((2, 6)))


def test_close_can_be_repeated():
    vec_env = make_vec_env("HalfCheetah-v5", 2)
    vec_env.reset()
    vec_env.close()
    vec_env.close()


@pytest.mark.parametrize("n_envs", [1, 2])
def test_images(n_envs):
    vec_env, expected = make_both("HalfCheetah-v5", n_envs, width=64, height=48, camera_id=0)
    vec_env.reset(), expected.reset()
    try:
        theirs = expected.get_images()
    except Exception as error:  # the machine cannot render at all
        pytest.skip(f"no rendering: {error}")
    for image, other in zip(vec_env.get_images(), theirs, strict=True):
        np.testing.assert_array_equal(image, other)
    for actions in actions_for(expected, 10):
        vec_env.step(actions), expected.step(actions)
    images = vec_env.get_images()
    assert {image.shape for image in images} == {(48, 64, 3)}
    if n_envs > 1:  # in the pool, bodies are drawn where they are, not where they were a substep before
        for env in expected.envs:
            mujoco.mj_forward(env.unwrapped.model, env.unwrapped.data)
    for image, other in zip(images, expected.get_images(), strict=True):
        np.testing.assert_array_equal(image, other)
    assert vec_env.render().shape == expected.render().shape
    np.testing.assert_array_equal(vec_env.env_method("render", indices=0)[0], images[0])
    vec_env.close(), expected.close()


def test_images_need_their_render_mode():
    with pytest.warns(UserWarning, match="images need render_mode='rgb_array', not 'depth_array'"):
        assert make_vec_env("HalfCheetah-v5", 2, render_mode="depth_array").get_images() == [None, None]


def test_a_missing_package_is_the_business_of_the_general_backend(monkeypatch):
    request = make_module.EnvRequest("NoSuchModule:Ant-v5")
    assert not make_module.BACKENDS["mujoco_batch"].serves(request)
