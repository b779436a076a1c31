"""Procgen as an SB3 ``VecEnv``: wrappers, training, exact resume and pictures."""

import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from procgen_games import EASY, NOOP, make
from stable_baselines3.common.evaluation import evaluate_policy as sb3_evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, VecTransposeImage
from stepping import actions_for, assert_equal_steps, check_continues

from maxent_onpolicy import PPO
from maxent_onpolicy.envs import VecNormalize, make_vec_env
from maxent_onpolicy.envs import make as make_module
from maxent_onpolicy.envs.procgen.batch import GameBatch
from maxent_onpolicy.envs.procgen.vec_env import ProcgenVecEnv
from maxent_onpolicy.envs.state import StateNotRestorableError, get_env_state, set_env_state
from maxent_onpolicy.envs.tensor import step_tensor
from maxent_onpolicy.evaluation.protocol import evaluate_policy
from maxent_onpolicy.video import record_video
from maxent_onpolicy.video.files import read_frames


def noop(vec_env, steps):
    return [vec_env.step(np.full(vec_env.num_envs, NOOP)) for _ in range(steps)]


def test_spaces_and_backend():
    vec_env = make()
    assert isinstance(vec_env, ProcgenVecEnv)
    assert vec_env.observation_space == spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert vec_env.action_space == spaces.Discrete(15)
    assert vec_env.render_mode == "rgb_array"
    assert isinstance(make(backend="procgen"), ProcgenVecEnv)
    observation = vec_env.reset()
    assert (observation.shape, observation.dtype) == ((3, 64, 64, 3), np.uint8)
    assert vec_env.options.num_levels == 10


def test_the_module_named_procgen_is_never_imported(monkeypatch):
    monkeypatch.setattr(make_module, "import_module", lambda name: pytest.fail(f"imported {name}"))
    make().reset()
    with pytest.raises(ValueError, match=r"`backend='gymnasium'` cannot make 'procgen:coinrun'.*procgen can"):
        make(backend="gymnasium")
    with pytest.raises(ValueError, match=r"cannot make 'procgen:coinrun' as asked .*; procgen can"):
        make(backend="mujoco_batch")


def test_seeds():
    first, second, other = (make(seed=seed) for seed in (3, 3, 4))
    starts = [env.reset() for env in (first, second, other)]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])
    levels = first.get_attr("level_seed")
    again = first.reset()
    assert not np.array_equal(again, starts[0])
    np.testing.assert_array_equal(second.reset(), again)
    first.seed(3)
    np.testing.assert_array_equal(first.reset(), starts[0])
    assert first.get_attr("level_seed") == levels
    # The library takes seeds below 2**31.
    np.testing.assert_array_equal(make(seed=3 + 2**31).reset(), starts[0])


def test_no_seed_follows_the_global_generator():
    results = []
    for make_one in (lambda: make(seed=None), lambda: ProcgenVecEnv("coinrun", 3, **EASY)):
        for _ in range(2):
            np.random.seed(8)
            results.append(make_one().reset())
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_reset_begins_new_episodes():
    vec_env = make(n_envs=2)
    vec_env.reset()
    noop(vec_env, 30)
    vec_env.reset()
    infos = noop(vec_env, 1)[0][3]
    assert vec_env.get_state()["lengths"].tolist() == [1, 1]
    assert [info["level_seed"] for info in infos] == [info["level_seed"] for info in vec_env.reset_infos]


def test_what_is_returned_is_never_written_to_again():
    vec_env = make(n_envs=3)
    kept = [(vec_env.reset(),), *(step[:3] for step in noop(vec_env, 2))]
    copies = [[value.copy() for value in step] for step in kept]
    for actions in actions_for(vec_env, 20):
        vec_env.step(actions)
    for step, copy in zip(kept, copies, strict=True):
        for value, before in zip(step, copy, strict=True):
            np.testing.assert_array_equal(value, before)


def test_without_copies_the_librarys_memory_is_returned():
    vec_env, expected = make(copy_observations=False), make()
    first = vec_env.reset()
    assert first.ctypes.data % 64 == 0
    np.testing.assert_array_equal(first, expected.reset())
    for actions in actions_for(expected, 10):
        observation = vec_env.step(actions)[0]
        assert observation is first
        np.testing.assert_array_equal(observation, expected.step(actions)[0])


def test_a_step_can_be_waited_for_later():
    vec_env, expected = make(), make()
    vec_env.reset(), expected.reset()
    for actions in actions_for(expected, 5):
        vec_env.step_async(actions)
        mine = actions.copy()
        actions[:] = 0
        assert_equal_steps([vec_env.step_wait()], [expected.step(mine)])


def test_images_work_with_sb3s_wrappers():
    """Only an episode that is cut off has a last observation, and the wrappers turn it round as well."""
    plain, wrapped = make("maze", 2), VecTransposeImage(make("maze", 2))
    np.testing.assert_array_equal(plain.reset().transpose(0, 3, 1, 2), wrapped.reset())
    steps = zip(noop(plain, 500), noop(wrapped, 500), strict=True)
    *_, ((observation, _, done, infos), (other, _, _, other_infos)) = steps
    assert done.all()
    np.testing.assert_array_equal(observation.transpose(0, 3, 1, 2), other)
    for info, other_info in zip(infos, other_infos, strict=True):
        np.testing.assert_array_equal(
            info["terminal_observation"].transpose(2, 0, 1), other_info["terminal_observation"]
        )


@pytest.mark.parametrize(
    "wrap", [lambda env: VecFrameStack(env, 2), lambda env: VecNormalize(env, norm_obs=False), VecMonitor]
)
def test_wrappers_accept_ends_without_last_observation(wrap):
    vec_env = wrap(make("bossfight", 4, monitor=False))
    vec_env.reset()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        steps = [vec_env.step(actions) for actions in actions_for(vec_env, 120)]
    assert sum(step[2].sum() for step in steps) > 0
    # SB3's frame stack says so; the observation that is missing would be used by no one.
    assert {str(each.message) for each in caught} <= {
        "VecFrameStack wrapping a VecEnv without terminal_observation info"
    }


def test_the_engine_bootstraps_truncations_and_nothing_else():
    vec_env = make("maze", 2)
    vec_env.reset()
    noop(vec_env, 499)
    step = step_tensor(vec_env, np.full(2, NOOP), "cpu")
    assert step.truncated.tolist() == [True, True]
    assert step.terminated.tolist() == [False, False]
    assert tuple(step.final_observation.shape) == (2, 64, 64, 3)
    boss = make("bossfight", 4)
    boss.reset()
    steps = [step_tensor(boss, actions, "cpu") for actions in actions_for(boss, 120)]
    assert sum(int(step.terminated.sum()) for step in steps) > 0
    assert not any(step.truncated.any() for step in steps)
    assert all(step.final_observation is None for step in steps)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("game", ["maze", "bossfight"])
def test_state(game, n_envs):
    assert check_continues(lambda: make(game, n_envs), before=150, after=400) > 0


def test_state_shortly_before_a_timeout():
    """The step counters are part of the state: the new environments know when their episodes are cut off."""
    vec_env = make("maze", 2)
    vec_env.reset()
    noop(vec_env, 498)
    other = make("maze", 2, seed=77)
    set_env_state(other, get_env_state(vec_env))
    expected, found = noop(vec_env, 3), noop(other, 3)
    assert expected[1][2].all()
    assert_equal_steps(expected, found)


def test_state_before_the_first_reset():
    vec_env = make()
    state = get_env_state(vec_env)
    for new in (make(seed=5), make(seed=6)):
        if new._seeds[0] == 6:
            new.reset()
        set_env_state(new, state)
        np.testing.assert_array_equal(make().reset(), new.reset())


def test_state_of_other_environments_is_refused():
    vec_env = make()
    vec_env.reset()
    state = vec_env.get_state()
    for other, message in [
        (make(n_envs=2), "saved with the num_envs 3, these environments have 2"),
        (make("maze"), "saved with the options"),
        (make(num_levels=11), "saved with the options"),
    ]:
        with pytest.raises(StateNotRestorableError, match=message):
            other.set_state(state)
    with pytest.raises(StateNotRestorableError, match="the kind None"):
        vec_env.set_state({"num_envs": 3})
    with pytest.raises(StateNotRestorableError, match="the package 'another'"):
        vec_env.set_state(state | {"package": "another"})
    gymnasium_env = make_vec_env("CartPole-v1", 3, seed=0)
    with pytest.raises(StateNotRestorableError, match="saved by a ProcgenVecEnv, not by environments in a GymVecEnv"):
        gymnasium_env.set_state(state)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda game: game[:1000], "another format, or is not complete"),
        (lambda game: game[:2], "damaged"),
        (lambda game: np.concatenate([game[:4], game[:4], game[-4:]]), "damaged"),
        (lambda game: np.concatenate([game[:8], np.frombuffer(b"coinruX", np.uint8), game[15:]]), "one of coinruX"),
        (lambda game: np.concatenate([np.ones(4, np.uint8), game[4:]]), "another format"),
    ],
)
def test_a_damaged_state_is_refused_and_the_process_lives(damage, message):
    """The library itself ends the process then."""
    vec_env, expected = make(), make()
    vec_env.reset(), expected.reset()
    state = vec_env.get_state()
    state["games"][1] = damage(state["games"][1])
    with pytest.raises(StateNotRestorableError, match=message):
        vec_env.set_state(state)
    assert_equal_steps(noop(vec_env, 2), noop(expected, 2))


def test_a_pickled_one_goes_on():
    vec_env = make("bossfight", monitor=True, timeouts="termination")
    vec_env.reset()
    noop(vec_env, 20)
    new = pickle.loads(pickle.dumps(vec_env))
    assert new.reset_infos == vec_env.reset_infos
    assert new.timeouts == "termination"
    actions = actions_for(vec_env, 50)
    assert_equal_steps([vec_env.step(each) for each in actions], [new.step(each) for each in actions])


def test_generated_assets_cannot_be_saved_but_shown():
    with pytest.raises(ValueError, match="`use_generated_assets=True` needs `timeouts='termination'`"):
        make(use_generated_assets=True)
    vec_env = make(use_generated_assets=True, timeouts="termination")
    observation = vec_env.reset()
    image = vec_env.get_images([1])[0]
    np.testing.assert_array_equal(image[::8, ::8], observation[1])
    assert image.shape == (512, 512, 3)
    with pytest.raises(StateNotRestorableError, match="use_generated_assets"):
        vec_env.get_state()


def test_pictures_are_the_librarys_own():
    vec_env = make()
    vec_env.reset()
    noop(vec_env, 5)
    drawing = GameBatch(3, vec_env.options.for_library(2, 0, render_human=True))
    for _ in range(5):
        drawing.act(NOOP)
        drawing.observe()
    images = vec_env.get_images()
    np.testing.assert_array_equal(np.stack(images), drawing.info["rgb"])
    np.testing.assert_array_equal(vec_env.get_images([2])[0], images[2])
    np.testing.assert_array_equal(vec_env.env_method("render", indices=1)[0], images[1])
    assert vec_env.render("rgb_array").ndim == 3
    observation = noop(vec_env, 1)[0][0]
    drawing.act(NOOP)
    drawing.observe()
    np.testing.assert_array_equal(observation, drawing.observation)


def test_without_a_render_mode_there_are_no_pictures():
    vec_env = make(render_mode=None)
    vec_env.reset()
    assert vec_env.render_mode is None
    assert vec_env.get_images() == [None] * 3


def test_attributes():
    vec_env = make()
    vec_env.reset()
    infos = noop(vec_env, 1)[0][3]
    for name in ("level_seed", "prev_level_seed", "prev_level_complete"):
        assert vec_env.get_attr(name) == [info[name] for info in infos]
    assert vec_env.get_attr("render_mode", 1) == ["rgb_array"]
    assert vec_env.metadata["render_fps"] == 15
    assert not vec_env.has_attr("colour")
    vec_env.set_attr("colour", "red", indices=[1])
    assert vec_env.get_attr("colour", 1) == ["red"]
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        vec_env.get_attr("colour")
    assert vec_env.env_is_wrapped(Monitor) == [True] * 3
    assert make(monitor=False).env_is_wrapped(Monitor) == [False] * 3
    assert vec_env.env_is_wrapped(gym.wrappers.TimeLimit, 0) == [False]
    vec_env.set_options([{}, {}, {}])
    with pytest.raises(ValueError, match="`options`: Procgen's reset takes none"):
        vec_env.set_options({"level": 3})


def test_without_monitor():
    vec_env = make("bossfight", monitor=False)
    vec_env.reset()
    steps = [vec_env.step(actions) for actions in actions_for(vec_env, 120)]
    assert sum(step[2].sum() for step in steps) > 0
    assert not any("episode" in info for step in steps for info in step[3])


TINY = {"features_extractor_kwargs": {"features_dim": 16}, "net_arch": []}


def test_evaluation():
    vec_env = make("bossfight", 2)
    model = PPO("CnnPolicy", vec_env, n_steps=8, batch_size=8, device="cpu", seed=0, policy_kwargs=TINY)
    first, second = (evaluate_policy(model, make("bossfight", 2), 2, seed=9) for _ in range(2))
    for mode in ("deterministic", "stochastic"):
        assert len(first[mode].returns) == 2
        np.testing.assert_array_equal(first[mode].returns, second[mode].returns)
        np.testing.assert_array_equal(first[mode].lengths, second[mode].lengths)
    returns, lengths = sb3_evaluate_policy(
        model, make("bossfight", 2), n_eval_episodes=2, return_episode_rewards=True, deterministic=False
    )
    assert len(returns) == len(lengths) == 2


@pytest.mark.parametrize(
    ("game", "policy", "settings", "n_steps"),
    [("bossfight", "CnnPolicy", TINY, 64), ("maze", "MlpPolicy", {"net_arch": [8]}, 200)],
)
def test_saved_training_goes_on_bit_for_bit(game, policy, settings, n_steps, tmp_path):
    """Episodes end after the save: in the maze by their timeout, whose last observation is bootstrapped."""

    def make_model():
        options = {"n_steps": n_steps, "batch_size": n_steps, "n_epochs": 1, "device": "cpu", "seed": 1}
        return PPO(policy, make(game, 2), policy_kwargs=settings, **options)

    rollout = 2 * n_steps
    straight = make_model().learn(3 * rollout)
    model = make_model().learn(rollout)
    model.save(tmp_path / "model")
    resumed = PPO.load(tmp_path / "model", env=make(game, 2, seed=55), device="cpu", resume=True)
    resumed.learn(2 * rollout, reset_num_timesteps=False)
    assert resumed.num_timesteps == straight.num_timesteps == 3 * rollout
    assert len(straight.ep_info_buffer) > len(model.ep_info_buffer)
    assert [(each["r"], each["l"]) for each in resumed.ep_info_buffer] == [
        (each["r"], each["l"]) for each in straight.ep_info_buffer
    ]
    pairs = zip(straight.policy.state_dict().items(), resumed.policy.state_dict().items(), strict=True)
    for (name, value), (other_name, other) in pairs:
        assert name == other_name
        np.testing.assert_array_equal(value.numpy(), other.numpy(), err_msg=name)


def test_training_changes_the_policy_and_counts_episodes():
    model = PPO("CnnPolicy", make("bossfight", 4), n_steps=64, batch_size=64, n_epochs=1, device="cpu", seed=1)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(4 * 64)
    assert len(model.ep_info_buffer) > 0
    assert all((value != before[name]).any() for name, value in model.policy.state_dict().items())


def test_video_of_a_trained_policy(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    model = PPO("CnnPolicy", make("bossfight", 2), n_steps=8, batch_size=8, device="cpu", policy_kwargs=TINY)
    path = tmp_path / "out.mp4"
    plain = evaluate_policy(model, make("bossfight", 2), 2, seed=3, modes=["stochastic"])["stochastic"]
    recorded = record_video(model, make("bossfight", 2), path, 2, seed=3, deterministic=False, length=6)
    np.testing.assert_array_equal(recorded.returns, plain.returns)
    frames = read_frames(path)
    assert frames.shape == (12, 512, 512, 3)
    vec_env = make("bossfight", 2)
    vec_env.seed(3)
    vec_env.reset()
    # H.264 loses a little.
    assert np.abs(frames[0].astype(float) - vec_env.get_images([0])[0]).mean() < 5
