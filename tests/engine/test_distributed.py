"""Several processes that train one model do what a single one does."""

import os
import socket
import subprocess
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from maxent_onpolicy import PPO
from maxent_onpolicy.algorithms.resume import of_rank
from maxent_onpolicy.engine.distributed import RankFailedError, World, world
from maxent_onpolicy.engine.host_exchange import HostExchange
from maxent_onpolicy.engine.parallel import Recorder, merge, own_callback
from maxent_onpolicy.envs.state import StateNotRestorableError

HERE = Path(__file__).parent
CASES = (
    "PPO, categorical",
    "PPO, more settings",
    "PPO, stopped early",
    "PPO, normalised environment",
    "PPO, saved and resumed",
    "PPO, small minibatches",
    "PPO, a sample for one rank alone",
    "MaxEntPPO, PopArt",
    "MaxEntPPO, separate normalisation",
    "MaxEntPPO, automatic temperature",
    "PPO, controllers",
    "RPO",
    "MaxEntPPO, two players and a magnet",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_ranks(size: int, *arguments: str | Path, **variables: str) -> list[subprocess.Popen]:
    """Start processes as ``torchrun`` does, without what it does to the others when one ends."""
    common = {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "TORCHELASTIC_RUN_ID": "test",
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", *map(str, arguments)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def finish(processes: list[subprocess.Popen], seconds: float = 300.0) -> list[tuple[int, str]]:
    """Return every rank's exit status and output."""
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Results of all cases, from one process and from two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for size, folder in ((1, one), (2, two)):
        for status, output in finish(start_ranks(size, HERE / "rank_cases.py", folder)):
            assert status == 0, output
    return one, two


def load(folder: Path, name: str, rank: int) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}, rank {rank}.npz") as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["split", "whole"])
@pytest.mark.parametrize("engine", ["eager", "packed"])
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_do_what_one_process_does(outcomes: tuple[Path, Path], case: str, engine: str, way: str) -> None:
    one, two = outcomes
    alone = load(one, f"{engine}, {case}", 0)
    first, second = (load(two, f"{engine}, {case}, {way}", rank) for rank in range(2))

    assert first.keys() == alone.keys()
    for name, value in alone.items():
        tolerance = {"rtol": 1e-3, "atol": 1e-5} if name.startswith("log") else {"rtol": 1e-4, "atol": 1e-6}
        np.testing.assert_allclose(first[name], value, **tolerance, err_msg=name)
    # What the ranks hold is not close but the same; only rank 0 logs.
    for name in second:
        np.testing.assert_array_equal(second[name], first[name], err_msg=name)
    assert any(name.startswith("parameter") for name in second)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "packed"])
def test_ranks_resume_exactly(outcomes: tuple[Path, Path], engine: str) -> None:
    for rank in range(2):
        through = load(outcomes[1], f"{engine}, PPO, normalised environment, whole", rank)
        resumed = load(outcomes[1], f"{engine}, PPO, saved and resumed, whole", rank)
        for name in through:
            if not name.startswith("log"):
                np.testing.assert_array_equal(resumed[name], through[name], err_msg=name)


@pytest.mark.slow
def test_the_case_that_stops_early_does(outcomes: tuple[Path, Path]) -> None:
    log = load(outcomes[1], "packed, PPO, stopped early, split", 0)
    rollouts = 512 // 128

    assert 1 < log[f"log {rollouts - 1} train/n_updates"] < (rollouts - 1) * 3


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # Schedulers set these for programs that know nothing of each other.
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")

    assert world() == World(rank=0, size=1, local_rank=0)


def test_environments_are_divided_evenly_or_not_at_all() -> None:
    assert World(rank=1, size=2).share(8) == 4
    with pytest.raises(ValueError, match=r"`n_envs` counts the environments of all 3 processes .* got 8"):
        World(rank=1, size=3).share(8)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64])
def test_parts_of_a_minibatch_make_it_up(count: int) -> None:
    parts = [World(rank, 3).part(count) for rank in range(3)]

    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_episodes_are_merged_in_the_order_one_process_would_see() -> None:
    first, second = Recorder(deque(["old"], maxlen=4)), Recorder(deque(["old"], maxlen=4))
    first.append("a1")
    second.step = 1
    second.append("b2")
    first.step = 2
    first.extend(["a3"])
    second.step = 2
    second.append("b3")

    merged = merge(["old"], [first.new, second.new], maxlen=4)

    assert list(merged) == ["a1", "b2", "a3", "b3"]
    assert list(first) == ["old", "a1", "a3"]


class Everywhere(BaseCallback):
    every_rank = True

    def _on_step(self) -> bool:
        return True


class Once(Everywhere):
    every_rank = False


def test_only_rank_0_runs_callbacks_unless_they_ask_to_run_everywhere() -> None:
    everywhere, once = Everywhere(), Once()
    callbacks = [everywhere, once]

    assert own_callback(callbacks, rank=0) is callbacks
    assert own_callback(callbacks, rank=1) == [everywhere]
    assert own_callback(CallbackList(callbacks), rank=1) == [everywhere]
    assert own_callback(everywhere, rank=1) is everywhere
    assert not isinstance(own_callback(once, rank=1), Once)


def test_a_state_goes_on_with_as_many_processes_as_saved_it() -> None:
    state = {"env": "first", "size": 2, "ranks": [{"env": "first"}, {"env": "second"}]}

    assert of_rank(state, rank=1, size=2)["env"] == "second"
    with pytest.raises(StateNotRestorableError, match=r"saved by 2 process\(es\), and 1 would go on"):
        of_rank(state, rank=0, size=1)
    with pytest.raises(StateNotRestorableError, match=r"saved by 1 process\(es\), and 2 would go on"):
        of_rank({"env": "only"}, rank=0, size=2)
    with pytest.raises(StateNotRestorableError, match="gather_training_state"):
        of_rank(state | {"ranks": None}, rank=0, size=2)


def test_gathering_the_state_of_one_process_does_nothing() -> None:
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8).gather_training_state()


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["in every step", "in every rollout"])
def test_a_rank_that_raises_is_named_with_its_reason(exchange: str) -> None:
    (first_status, first), (second_status, second) = finish(start_ranks(2, HERE / "failing_rank.py", "raise", exchange))

    assert second_status == 1, second
    assert "ValueError: no more oil" in second
    assert first_status == 1, first
    assert "RankFailedError: rank 0 of 2 cannot go on: rank 1 failed with ValueError: no more oil" in first


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="other systems do not tell a zombie")
@pytest.mark.parametrize("exchange", ["in every step", "in every rollout"])
def test_a_rank_that_dies_without_a_word_is_named(exchange: str) -> None:
    processes = start_ranks(2, HERE / "failing_rank.py", "exit", exchange)
    number = processes[1].pid
    (first_status, first), (second_status, _) = finish(processes)

    assert second_status == 7
    assert first_status == 1
    assert f"rank 1 (process {number}) died without a word" in first


@pytest.mark.slow
def test_torchrun_ends_the_whole_job_when_a_rank_dies() -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, HERE / "failing_rank.py", "exit", "rarely"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    assert done.returncode != 0
    assert "exitcode  : 7" in done.stderr
    assert "(local_rank: 1)" in done.stderr


@pytest.mark.slow
def test_ranks_that_would_train_different_models_do_not_start() -> None:
    for rank, (status, output) in enumerate(finish(start_ranks(2, HERE / "failing_rank.py", "differ", "rarely"))):
        assert status == 1, output
        assert f"`n_steps` is {16 << rank} in rank {rank}, but {16 << (1 - rank)} in rank {1 - rank}" in output


def test_processes_of_a_machine_exchange_through_memory(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(bytes(HostExchange.file_size(3)))
    exchanges = [HostExchange(path, rank, 3, check=lambda: None) for rank in range(3)]
    totals = np.zeros((3, 200))

    def work(rank: int) -> None:
        for turn in range(200):
            parts = exchanges[rank].exchange(np.full((5, 2), 10.0 * turn + rank, dtype=np.float32))
            assert parts.shape == (3, 5, 2)
            totals[rank, turn] = parts.sum()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))

    np.testing.assert_array_equal(totals, np.tile(10.0 * (30.0 * np.arange(200) + 3.0), (3, 1)))


def test_whoever_waits_in_vain_asks_what_happened(tmp_path: Path) -> None:
    def check() -> None:
        raise RankFailedError("rank 1 is gone")

    path = tmp_path / "memory"
    path.write_bytes(bytes(HostExchange.file_size(2)))

    with pytest.raises(RankFailedError, match="rank 1 is gone"):
        HostExchange(path, 0, 2, check).exchange(np.zeros(3))
