"""Threads of batched MuJoCo: everything once, errors told, the faster way chosen."""

import gc
import multiprocessing
import threading
import time

import gymnasium as gym
import numpy as np
import pytest

from maxent_onpolicy.envs.mujoco_batch import MujocoBatchVecEnv, threads
from maxent_onpolicy.envs.mujoco_batch.threads import FasterWay, ThreadPool


@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_every_number_is_taken_once(num_threads):
    pool = ThreadPool(num_threads)
    for count in (1, 2, 50):
        taken = []
        pool.run(taken.append, count)
        assert sorted(taken) == list(range(count))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_an_error_is_raised_and_the_pool_goes_on(num_threads):
    pool = ThreadPool(num_threads)
    taken = []

    def fail_at_three(number):
        time.sleep(0.001)  # lets the other threads take part
        if number == 3:
            raise RuntimeError("three")
        taken.append(number)

    with pytest.raises(RuntimeError, match="three"):
        pool.run(fail_at_three, 8)
    assert sorted(taken) == [0, 1, 2, 4, 5, 6, 7]
    pool.run(taken.append, 2)
    assert len(taken) == 9


def test_threads_end_with_their_environments():
    before = set(threading.enumerate())
    vec_env = MujocoBatchVecEnv(gym.make("Ant-v5"), 3, num_threads=3)
    vec_env.reset()
    started = set(threading.enumerate()) - before
    assert len(started) == 2
    del vec_env
    gc.collect()
    for thread in started:
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])
def test_environments_go_on_in_a_forked_process(env_id):
    vec_env = MujocoBatchVecEnv(gym.make(env_id), 5, num_threads=2)
    vec_env.seed(0)
    vec_env.reset()
    actions = np.ones((30, *vec_env._action_shape))

    def steps():
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
