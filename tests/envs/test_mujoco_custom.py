"""Tasks of the user's own on any MuJoCo model."""

import cloudpickle
import mujoco
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor
from stepping import actions_for, assert_equal_steps, check_continues

from maxent_onpolicy import PPO
from maxent_onpolicy.envs import GymVecEnv
from maxent_onpolicy.envs.mujoco_batch import MujocoBatchVecEnv, MujocoTask
from maxent_onpolicy.envs.mujoco_batch.simulation import make_simulation

CART = """
<mujoco>
  <option timestep="0.02" integrator="RK4"/>
  <worldbody>
    <geom name="floor" type="plane" pos="0 0 -1" size="5 5 1"/>
    <body name="cart">
      <joint name="slide" type="slide" axis="1 0 0"/>
      <geom type="box" size="0.1 0.1 0.1" mass="1"/>
      <body name="pole" pos="0 0 0.1">
        <joint name="hinge" type="hinge" axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 0 0 0 0.6" size="0.03" mass="0.1"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slide" gear="10" ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


def cart_task(**changes):
    return MujocoTask(
        **{
            "model": CART,
            "observation": lambda now: np.concatenate([now.qpos, now.qvel, now.xpos[:, 2]], axis=1),
            "reward": lambda now, before, action: (now.qpos[:, 0] - before.qpos[:, 0]) - 0.1 * action[:, 0] ** 2,
            "terminated": lambda now: np.abs(now.qpos[:, 1]) > 0.3,
            "reset": lambda rng, qpos, qvel: (qpos + rng.uniform(-0.1, 0.1, size=2), qvel),
            "info": lambda now: {"angle": now.qpos[:, 1]},
            "fields": ("qpos", "qvel", "xpos"),
            "frame_skip": 2,
            "max_episode_steps": 9,
        }
        | changes
    )


class Cart(MujocoEnv):
    """The same task as a Gymnasium environment."""

    def __init__(self, path):
        self.metadata = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"], "render_fps": 25}
        super().__init__(path, 2, spaces.Box(-np.inf, np.inf, (7,), np.float64))

    def observe(self):
        return np.concatenate([self.data.qpos, self.data.qvel, self.data.xpos[2]])

    def reset_model(self):
        self.set_state(self.init_qpos + self.np_random.uniform(-0.1, 0.1, size=2), self.init_qvel)
        return self.observe()

    def step(self, action):
        before = self.data.qpos[0]
        self.do_simulation(action, 2)
        reward = (self.data.qpos[0] - before) - (0.1 * action[:1] ** 2)[0]
        angle = self.data.qpos[1]
        return self.observe(), reward, bool(abs(angle) > 0.3), False, {"angle": angle}


@pytest.mark.parametrize("contact_forces", [False, True])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_equals_the_same_task_in_gymnasium(tmp_path, n_envs, contact_forces):
    path = tmp_path / "cart.xml"
    path.write_text(CART)
    vec_env = MujocoBatchVecEnv(cart_task(model=path, contact_forces=contact_forces), n_envs)
    expected = GymVecEnv([lambda: Monitor(TimeLimit(Cart(str(path)), 9))] * n_envs)
    assert vec_env.action_space == expected.action_space
    assert vec_env.observation_space == expected.observation_space
    vec_env.seed(1), expected.seed(1)
    np.testing.assert_array_equal(vec_env.reset(), expected.reset())
    actions = actions_for(expected, 90)
    steps = [vec_env.step(a) for a in actions]
    assert_equal_steps(steps, [expected.step(a) for a in actions])
    infos = [info for step in steps for info, done in zip(step[3], step[2], strict=True) if done]
    assert {info["TimeLimit.truncated"] for info in infos} == {True, False}


def test_state_continues():
    assert check_continues(lambda: MujocoBatchVecEnv(cart_task(), 3), before=10, after=20) > 0


def test_a_pickled_one_goes_on():
    vec_env = MujocoBatchVecEnv(cart_task(contact_forces=True), 3)
    vec_env.seed(0)
    vec_env.reset()
    new = cloudpickle.loads(cloudpickle.dumps(vec_env))
    actions = actions_for(vec_env, 20)
    assert_equal_steps([vec_env.step(each) for each in actions], [new.step(each) for each in actions])


def test_only_a_model_observation_and_reward_are_needed():
    task = MujocoTask(CART, observation=lambda now: now.qpos, reward=lambda now, before, action: now.qvel[:, 0])
    vec_env = MujocoBatchVecEnv(task, 2, monitor=False, discretize_bins=3)
    first = vec_env.reset()
    np.testing.assert_array_equal(first, 0)
    vec_env.step(np.array([[0], [2]]))
    observation, reward, done, infos = vec_env.step(np.array([[0], [2]]))
    assert reward[0] < 0 < reward[1]
    assert not done.any()
    assert list(infos) == [{"TimeLimit.truncated": False}] * 2
    np.testing.assert_array_equal(first, 0)  # a copy, although the function returned a live array
    assert observation[0, 0] < 0 < observation[1, 0]


@pytest.mark.parametrize("contact_forces", [False, True])
def test_bodies_that_fall_asleep_are_as_if_stepped_alone(contact_forces):
    task = cart_task(
        model="""
        <mujoco>
          <option sleep_tolerance="0.01"><flag sleep="enable"/></option>
          <worldbody>
            <geom type="plane" size="5 5 1"/>
            <body pos="0 0 0.12"><freejoint/><geom type="box" size="0.1 0.1 0.1"/></body>
            <body pos="1 0 0.5"><joint name="slide" type="slide"/><geom type="box" size="0.1 0.1 0.1"/></body>
          </worldbody>
          <actuator><motor joint="slide" gear="10" ctrllimited="true" ctrlrange="-1 1"/></actuator>
        </mujoco>""",
        fields=("qpos", "qvel", "xpos", "cvel", "tree_asleep"),
        observation=lambda now: np.concatenate([now.qpos, now.qvel, now.xpos[:, 1], now.cvel[:, 1]], axis=1),
        terminated=None,
        reset=lambda rng, qpos, qvel: (qpos, qvel + rng.uniform(-0.1, 0.1, size=7)),
        info=lambda now: {"asleep": now.tree_asleep[:, 0]},
        frame_skip=10,
        max_episode_steps=60,
        contact_forces=contact_forces,
    )
    vec_env, alone = MujocoBatchVecEnv(task, 3), [MujocoBatchVecEnv(task) for _ in range(3)]
    vec_env.seed(3), [env.seed(3 + index) for index, env in enumerate(alone)]
    np.testing.assert_array_equal(vec_env.reset(), np.concatenate([env.reset() for env in alone]))
    asleep = []
    for actions in actions_for(vec_env, 150):
        observation, _, _, infos = vec_env.step(actions)
        singles = [env.step(action[None]) for env, action in zip(alone, actions, strict=True)]
        np.testing.assert_array_equal(observation, np.concatenate([single[0] for single in singles]))
        asleep.append([info["asleep"] for info in infos])
        assert asleep[-1] == [single[3][0]["asleep"] for single in singles]
    assert len(np.unique(asleep)) > 1


@pytest.mark.parametrize("sleep", ["enable", "disable"])
def test_data_to_look_at_are_those_of_the_last_reset(sleep):
    model = mujoco.MjModel.from_xml_string(
        f"""
        <mujoco>
          <option><flag sleep="{sleep}"/></option>
          <worldbody><body><joint type="slide"/><geom size="0.1"/></body></worldbody>
        </mujoco>"""
    )
    simulation = make_simulation(model, mujoco.MjData(model), 3, 1, 1, contact_forces=False, fields=("qpos", "qvel"))
    simulation.reset([0, 2], [(np.array([1.0]), np.array([0.5])), (np.array([2.0]), np.array([0.5]))])
    assert [simulation.data(index).xpos[1, 2] for index in (0, 2)] == [1, 2]
    assert [simulation.data(index).cvel[1, 5] for index in (0, 2)] == [0.5, 0.5]


def test_an_actuator_without_limits_has_an_unbounded_action():
    task = MujocoTask(
        CART.replace('ctrllimited="true" ctrlrange="-1 1"', 'ctrllimited="false"'),
        observation=lambda now: now.qpos,
        reward=lambda now, before, action: now.qvel[:, 0],
    )
    assert MujocoBatchVecEnv(task).action_space == spaces.Box(-np.inf, np.inf, (1,), np.float32)


def test_attributes():
    vec_env = MujocoBatchVecEnv(cart_task(reset=None), 2)
    vec_env.reset()
    vec_env.step(np.array([[1.0], [-1.0]]))
    data = vec_env.get_attr("data")
    assert data[0].qpos[0] > 0 > data[1].qpos[0]
    assert vec_env.get_attr("dt") == [0.04, 0.04]
    assert vec_env.metadata["render_fps"] == 25


def test_trains():
    model = PPO("MlpPolicy", MujocoBatchVecEnv(cart_task(), 2), n_steps=32, batch_size=32, device="cpu", seed=0)
    assert model.learn(64).num_timesteps == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": ("qpos", "xpoz")}, "`fields` must be one of .*'xpoz' .did you mean 'xpos'"),
        ({"frame_skip": 0}, "`frame_skip` must be"),
        ({"max_episode_steps": 0}, "`max_episode_steps` must be"),
        ({"model": "no/such.xml"}, "`model`: there is no file 'no/such.xml'"),
        ({"render_mode": "rgb"}, "`render_mode` must be one of .*rgb_array"),
        ({"observation": lambda now: now.qpos[:, 0]}, r"`observation` must return an array \[B, D\], got shape \(1,\)"),
        ({"reward": lambda now, before, action: action}, r"`reward` must return an array \[2\], got shape \(2, 1\)"),
        ({"terminated": lambda now: False}, r"`terminated` must return an array \[2\], got shape \(\)"),
    ],
)
def test_errors_name_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):  # noqa: PT012 - some are found when stepping
        vec_env = MujocoBatchVecEnv(cart_task(**changes), 2)
        vec_env.reset()
        vec_env.step(np.zeros((2, 1)))
