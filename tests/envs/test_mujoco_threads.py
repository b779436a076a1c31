"""Threads of batched MuJoCo: gone with their environments, not missed after a fork, used where that is faster."""

import gc
import multiprocessing
import os
import sys
from itertools import groupby

import gymnasium as gym
import numpy as np
import pytest

from maxent_onpolicy.envs.mujoco_batch import MujocoBatchVecEnv, threads
from maxent_onpolicy.envs.mujoco_batch.threads import FasterWay


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("env_id", ["Hopper-v5", pytest.param("Ant-v5", marks=pytest.mark.slow)])
def test_threads_end_with_their_environments(env_id):
    def count():
        gc.collect()  # also those of other tests
        return len(os.listdir("/proc/self/task"))

    before = count()
    vec_env = MujocoBatchVecEnv(gym.make(env_id), 3, num_threads=3)
    vec_env.reset()
    assert count() == before + 2
    del vec_env
    assert count() == before


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])
def test_environments_go_on_in_a_forked_process(env_id):
    vec_env = MujocoBatchVecEnv(gym.make(env_id), 5, num_threads=2)
    vec_env.seed(0)
    vec_env.reset()
    state = vec_env.get_state()
    actions = np.ones((30, *vec_env._action_shape))

    def steps():
        vec_env.set_state(state)
        return [vec_env.step(each)[0] for each in actions] + [vec_env.reset()]

    def run(connection):
        connection.send(np.array(steps()))

    ours, theirs = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(target=run, args=(theirs,))
    child.start()
    try:
        assert ours.poll(60), "the child waits for threads that it does not have"
        np.testing.assert_array_equal(ours.recv(), steps())
    finally:
        child.kill()
        child.join()


def test_the_faster_way_is_taken_and_reconsidered(monkeypatch):
    now, calls, cost = [0.0], [], {"pool": 3.0, "here": 1.0}
    monkeypatch.setattr(threads, "perf_counter", lambda: now[0])

    def way(name):
        def call():
            calls.append(name)
            now[0] += cost[name]

        return call

    def taken(count):
        calls.clear()
        for _ in range(count):
            choose()
        return calls

    choose = FasterWay(way("pool"), way("here"), period=100.0, block=6.0)
    taken(2 + 2 * (2 + 6))
    assert set(taken(50)) == {"here"}
    cost["here"] = 9.0
    taken(50 + 2 * (2 + 1))
    assert set(taken(30)) == {"pool"}


@pytest.mark.parametrize(("pool_seconds", "expected"), [(1.0, [20, 40, 40, 40]), (5.0, [5, 5, 5, 5])])
def test_threads_that_stay_the_faster_way_are_compared_less_often(monkeypatch, pool_seconds, expected):
    now, calls = [0.0], []
    monkeypatch.setattr(threads, "perf_counter", lambda: now[0])

    def way(name, seconds):
        def call():
            calls.append(name)
            now[0] += seconds

        return call

    choose = FasterWay(way("pool", pool_seconds), way("here", 2.0), period=10.0, block=0.1)
    for _ in range(200):
        choose()
    # A comparison takes turns, one call each, and either its first or its last joins those between two comparisons.
    in_a_row = [len(list(group)) for _, group in groupby(calls[2:])]
    assert [length - 1 for length in in_a_row if length > 1][:4] == expected
