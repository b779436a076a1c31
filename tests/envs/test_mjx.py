"""MJX against Gymnasium: the same states and actions, one step."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stepping import actions_for, check_continues

from maxent_onpolicy import PPO, make_vec_env, train_seeds
from maxent_onpolicy.envs import VecNormalize

jax = pytest.importorskip("jax")
mujoco = pytest.importorskip("mujoco")
pytest.importorskip("mujoco.mjx")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

from maxent_onpolicy.envs.mjx.tasks import SimState, Simulation  # noqa: E402
from maxent_onpolicy.envs.mjx.vec_env import MjxVecEnv, _gymnasium_env, to_jax, to_torch  # noqa: E402

N = 12
FREE_JOINT = ("Ant-v5", "Humanoid-v5")
# MuJoCo 4 integrates free joints otherwise than MuJoCo 3 and MJX 3.17; with MuJoCo 3.17 the solver's tolerance remains.
OLD_MUJOCO = int(mujoco.__version__.partition(".")[0]) < 4


def gymnasium_steps(env_id, lift, effort, options):
    """States of a random episode, and what Gymnasium makes of each in one step; Humanoid with the solver of MJX."""
    env = gym.make(env_id, disable_env_checker=True, **options).unwrapped
    env.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    rng = np.random.default_rng(1)
    low, high = env.action_space.low, env.action_space.high
    env.reset(seed=3)
    records = []
    for index in range(3 * N):
        action = (effort * rng.uniform(low, high)).astype(np.float32)
        if index % 3 == 0:
            saved = env.data.qpos.copy(), env.data.qvel.copy()
            qpos, qvel = saved[0].copy(), saved[1]
            qpos[2] += lift
            env.set_state(qpos, qvel)
            warmstart = env.data.qacc_warmstart.copy()
            observation, reward, terminated, _, _ = env.step(action)
            records.append((qpos, qvel, warmstart, action, observation, reward, terminated, env.data.ncon))
            env.set_state(*saved)
        env.step(0.5 * action)
    return [np.stack(part) for part in zip(*records, strict=True)]


def mjx_steps(env_id, qpos, qvel, warmstart, action, options):
    template, options = _gymnasium_env(env_id, options)
    simulation = Simulation(env_id, template.model, options, N, 1000)
    dtype = simulation.blank.qpos.dtype
    qpos, qvel, warmstart = (jax.numpy.asarray(part, dtype) for part in (qpos, qvel, warmstart))
    _, position = jax.jit(simulation.begin)(qpos, qvel)
    state = SimState(qpos, qvel, warmstart, position, jax.numpy.zeros(N, int), jax.random.PRNGKey(0))
    _, step = jax.jit(simulation.step)(state, jax.numpy.asarray(action))
    return jax.tree.map(np.asarray, step)


def assert_same_step(env_id, tolerance, lift=0.0, effort=1.0, contact=None, **options):
    *start, observation, reward, terminated, contacts = gymnasium_steps(env_id, lift, effort, options)
    step = mjx_steps(env_id, *start, options)
    if contact is not None:
        assert (contacts > 0).any() == contact
    scale = 1 + np.abs(observation).max(axis=1, keepdims=True)
    np.testing.assert_allclose(step.final / scale, observation / scale, rtol=0, atol=tolerance)
    np.testing.assert_allclose(step.reward, reward, rtol=10 * tolerance, atol=10 * tolerance)
    np.testing.assert_array_equal(step.terminated, terminated)
    assert not step.truncated.any()
    return step


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"])
def test_planar_tasks_equal_gymnasium_in_float64_with_contacts(env_id):
    with jax.enable_x64(True):
        step = assert_same_step(env_id, 1e-9, contact=True)
    assert step.final.dtype == np.float64


@pytest.mark.slow
@pytest.mark.parametrize("env_id", FREE_JOINT)
def test_free_joint_tasks_equal_gymnasium_in_float64_in_the_air(env_id):
    with jax.enable_x64(True):
        assert_same_step(env_id, 1e-7 if OLD_MUJOCO else 3e-5, lift=3.0, contact=False)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5"])
def test_planar_tasks_equal_gymnasium_in_float32(env_id):
    assert_same_step(env_id, 1e-4, contact=True)


@pytest.mark.slow
def test_a_free_joint_task_equals_gymnasium_in_float32_in_the_air():
    """Humanoid in float32 is the test of its options."""
    assert_same_step("Ant-v5", 1e-4, lift=3.0, contact=False)


@pytest.mark.slow
def test_contact_forces_of_humanoid_equal_gymnasium():
    with jax.enable_x64(True):
        step = assert_same_step("Humanoid-v5", 1e-3, contact=True)
    assert (np.abs(step.final[:, -6 * 13 :]) > 1).any()


@pytest.mark.slow
def test_contact_forces_of_ant_equal_gymnasium_with_round_cones(tmp_path):
    """Under a steep capsule MJX turns the friction pyramid otherwise; a round cone cannot be turned."""
    model = (Path(gym.__file__).parent / "envs/mujoco/assets/ant.xml").read_text()
    assert model.count(" timestep=") == 1
    path = tmp_path / "round.xml"
    path.write_text(model.replace(" timestep=", ' cone="elliptic" timestep='))
    with jax.enable_x64(True):
        step = assert_same_step("Ant-v5", 2e-3, effort=0.5, contact=True, xml_file=str(path))
    assert (np.abs(step.final[:, -6 * 13 :]) > 1e-2).any()


@pytest.mark.slow
def test_every_option_of_humanoid_reaches_the_task():
    options = {
        "forward_reward_weight": 2.0,
        "ctrl_cost_weight": 0.3,
        "contact_cost_weight": 1e-3,
        "contact_cost_range": (0.01, 0.5),
        "healthy_reward": 3.0,
        "healthy_z_range": (1.3, 5.0),
        "frame_skip": 2,
        "exclude_current_positions_from_observation": False,
        "include_cinert_in_observation": False,
        "include_qfrc_actuator_in_observation": False,
    }
    assert_same_step("Humanoid-v5", 1e-3, **options)


def small(env_id="HalfCheetah-v5", n_envs=3, **options):
    return make_vec_env(env_id, n_envs, seed=0, backend="mjx", **options)


def test_tensors_and_arrays_share_their_memory():
    array = jax.numpy.arange(64.0)
    assert to_torch(array).data_ptr() == array.unsafe_buffer_pointer()
    tensor = torch.arange(64.0)
    assert to_jax(tensor).unsafe_buffer_pointer() == tensor.data_ptr()
    vec_env = small()
    observation = vec_env.reset_tensor()
    assert observation.dtype == torch.float32
    assert observation.shape == (3, *vec_env.observation_space.shape)


def test_start_states_have_gymnasiums_distribution():
    vec_env = small(n_envs=4000, reset_noise_scale=0.2)
    vec_env.reset()
    state = vec_env._sim_state
    start = vec_env.simulation.host_model.qpos0
    noise = (np.asarray(state.qpos) - start) / 0.2
    assert np.abs(noise).max() <= 1 + 1e-5
    np.testing.assert_allclose(noise.var(0), 1 / 3, atol=0.03)
    np.testing.assert_allclose(np.asarray(state.qvel).std(0), 0.2, atol=0.02)
    assert np.abs(np.asarray(state.qvel)).max() > 0.5


def test_the_seed_decides_the_start_states():
    one, other = small(), small()
    first = one.reset()
    np.testing.assert_array_equal(first, other.reset())
    assert (one.reset() != first).any()
    one.seed(0)
    np.testing.assert_array_equal(one.reset(), first)


@pytest.mark.slow
def test_episodes_end_begin_and_continue_from_a_saved_state():
    def make():
        return VecNormalize(small("Hopper-v5", max_episode_steps=25))

    assert check_continues(make, 20, 60) >= 3
    vec_env = small("Hopper-v5", max_episode_steps=25)
    vec_env.reset_tensor()
    kinds = set()
    for action in actions_for(vec_env, 60):
        step = vec_env.step_tensor(torch.as_tensor(action))
        assert step.final_index is None
        assert step.infos is vec_env.infos
        for index in (step.terminated | step.truncated).nonzero()[:, 0].tolist():
            kinds.add((step.terminated[index].item(), step.truncated[index].item()))
            height = step.observation[index, 0]
            assert abs(height - 1.25) < 0.01  # a new episode stands
            assert not torch.equal(step.final_observation[index], step.observation[index])
    assert kinds == {(True, False), (False, True)}


def test_only_environments_with_the_same_settings_share_what_is_compiled(tmp_path):
    one, other = small(), small()
    assert one._programs is other._programs
    changed = [small(n_envs=5), small(ctrl_cost_weight=0.2), small(max_episode_steps=7)]
    source = Path(mujoco.__file__).parent.parent / "gymnasium/envs/mujoco/assets/half_cheetah.xml"
    file = tmp_path / "own.xml"
    for mass in ("14", "15"):  # the name of a file does not tell its content
        file.write_text(source.read_text().replace('settotalmass="14"', f'settotalmass="{mass}"'))
        changed.append(small(xml_file=str(file)))
    assert len({id(env._programs) for env in (one, *changed)}) == 6


@pytest.mark.slow
def test_ppo_trains_on_it():
    vec_env = VecNormalize(small(n_envs=16), device="cpu")
    model = PPO("MlpPolicy", vec_env, n_steps=16, batch_size=64, device="cpu").learn(1024)
    assert model.num_timesteps == 1024


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("HalfCheetah-v5", {"ctrl_cost": 1}, "takes no `ctrl_cost` .did you mean 'ctrl_cost_weight'"),
        ("HalfCheetah-v5", {"device": "cuda:77"}, "`device='cuda:77'`: JAX has only"),
        ("HalfCheetah-v5", {"max_episode_steps": 0}, "`max_episode_steps`"),
        ("HalfCheetah-v5", {"discretize_bins": 3}, "neither `wrapper` nor `discretize_bins`"),
        ("Swimmer-v5", {}, "it needs one of HalfCheetah-v5"),
    ],
)
def test_errors_name_the_argument(env_id, options, message):
    with pytest.raises(ValueError, match=message):
        make_vec_env(env_id, 2, backend="mjx", **options)


def test_automatic_choice_leaves_mjx_alone():
    assert not isinstance(make_vec_env("Hopper-v5", 1), MjxVecEnv)


@pytest.mark.slow
def test_a_stack_steps_each_environment_as_it_steps_itself():
    def make():
        envs = [MjxVecEnv("HalfCheetah-v5", 3, 12, "cpu", seed) for seed in (1, 2)]
        for env in envs:
            env.reset_tensor()
        return envs

    alone, together = make(), make()
    assert together[0].stack_kind() == together[1].stack_kind() is not None
    stack = MjxVecEnv.stack(together)
    ended = 0
    for action in actions_for(alone[0], 30):
        actions = torch.as_tensor(np.concatenate([action, 0.5 * action]))
        whole = stack.step_tensor(actions)
        parts = [env.step_tensor(part) for env, part in zip(alone, actions.chunk(2), strict=True)]
        for name in ("observation", "reward", "terminated", "truncated", "final_observation"):
            expected = torch.cat([getattr(part, name) for part in parts])
            torch.testing.assert_close(getattr(whole, name), expected, rtol=1e-3, atol=1e-3)
        ended += (whole.terminated | whole.truncated).sum().item()
    assert ended >= 12
    stack.put_back()
    for one, other in zip(alone, together, strict=True):
        state, own = other.get_state()["simulation"], one.get_state()["simulation"]
        np.testing.assert_array_equal(state["key"], own["key"])
        np.testing.assert_array_equal(state["elapsed"], own["elapsed"])
        np.testing.assert_allclose(state["qpos"], own["qpos"], atol=1e-3)


@pytest.mark.slow
def test_seeds_are_collected_in_one_loop(monkeypatch):
    def make(seed):
        return MjxVecEnv("HalfCheetah-v5", 4, 1000, "cpu", seed)

    options = {"n_steps": 8, "batch_size": 32, "n_epochs": 2, "device": "cpu"}
    with monkeypatch.context() as patch:
        patch.setattr(MjxVecEnv, "step_tensor", lambda self, actions: pytest.fail("stepped by itself"))
        models = train_seeds(PPO, "MlpPolicy", make, [1, 2], 64, **options)
    for seed, model in zip((1, 2), models, strict=True):
        own = PPO("MlpPolicy", make(seed), seed=seed, **options).learn(64)
        for field in ("observation", "action", "reward", "value"):
            ours, theirs = (getattr(each.rollout_buffer, field) for each in (model, own))
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
