"""Step environments and compare what they return."""

import numpy as np

from maxent_onpolicy.envs.state import (
    get_env_state,
    set_env_state,
    state_from_bytes,
    state_to_bytes,
)


def actions_for(vec_env, steps, seed=0):
    vec_env.action_space.seed(seed)
    return [np.stack([vec_env.action_space.sample() for _ in range(vec_env.num_envs)]) for _ in range(steps)]


def comparable(info):
    """An info with its wall-clock time removed."""
    result = dict(info)
    if "episode" in result:
        result["episode"] = {key: value for key, value in result["episode"].items() if key != "t"}
    return result


def assert_equal_tree(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_equal_tree(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal_tree(one, other)
    else:
        np.testing.assert_array_equal(left, right, strict=isinstance(left, np.ndarray))


def assert_equal_steps(steps, other_steps):
    for step, other in zip(steps, other_steps, strict=True):
        assert_equal_tree(list(step[:3]), list(other[:3]))
        assert_equal_tree([comparable(info) for info in step[3]], [comparable(info) for info in other[3]])


def check_continues(make, before, after):
    """Save midway; a new environment must take the same steps from there. Returns how many episodes ended."""
    vec_env = make()
    vec_env.reset()
    actions = actions_for(vec_env, before + after)
    for action in actions[:before]:
        vec_env.step(action)
    data = state_to_bytes(get_env_state(vec_env))
    expected = [vec_env.step(action) for action in actions[before:]]
    new = make()
    set_env_state(new, state_from_bytes(data))
    assert_equal_steps(expected, [new.step(action) for action in actions[before:]])
    return sum(int(step[2].sum()) for step in expected)
