"""Run jobs in processes of their own, one after the other, and write down what each measured."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.speed.homes import Homes
from benchmarks.speed.store import Store
from benchmarks.speed.workloads import Job

PEERS = Path(__file__).resolve().parent / "peers"
LIMIT_SECONDS = 900


class JobError(Exception):
    """A contender's process gave no result; the message is its last words."""


@dataclass
class Runner:
    """Runs jobs.

    Attributes:
        store: where results go.
        homes: where interpreters are.
        checkouts: folders of CleanRL and LeanRL, by library.
        caches: where compilers keep what they compiled, a folder for each contender.
        say: takes the lines of progress.
    """

    store: Store
    homes: Homes
    checkouts: dict[str, str]
    caches: Path
    say: Callable[[str], None]

    def run_all(self, jobs: list[Job]) -> list[str]:
        """Run what has not been measured yet; return what failed, a line each."""
        todo = [job for job in jobs if not self.store.has(job)]
        if len(todo) < len(jobs):
            self.say(f"{len(jobs) - len(todo)} of {len(jobs)} measurements are there already")
        failures, broken = [], set()
        durations: dict[tuple[str, str], float] = {}
        for number, job in enumerate(todo, start=1):
            kind = job.key[:2]
            name = f"[{number}/{len(todo)}] {job.workload.title}: {job.contender.label}, round {job.round + 1}"
            if kind in broken:
                self.say(f"{name}: left out, it failed before")
                continue
            begin = time.perf_counter()
            load = os.getloadavg()[0]
            try:
                result = self.run(job)
            except JobError as error:
                broken.add(kind)
                failures.append(f"{job.workload.title}: {job.contender.label}: {error}")
                self.store.add(job, {"load": load}, str(error))
                self.say(f"{name}: FAILED: {error}")
                continue
            row = self.store.add(job, result | {"load": load})
            durations[kind] = time.perf_counter() - begin
            left = remaining(todo[number:], durations)
            self.say(f"{name}: {row['steps_per_second']:,.0f} steps/s; {left}")
        return failures

    def run(self, job: Job) -> dict[str, Any]:
        """Run one process and return what it printed last.

        Raises:
            JobError: if it fails, or prints no result.
        """
        contender = job.contender
        message = job.workload.message(contender, job.round, self.checkouts)
        command = [str(self.homes.python(contender.home)), str(PEERS / contender.script), json.dumps(message)]
        with tempfile.TemporaryDirectory() as scratch:
            cache = Path(scratch) / "cache" if contender.cold else self.caches.resolve() / contender.name
            variables = environment(contender.threads, cache, self.caches.resolve() / "matplotlib")
            if job.workload.device == "cuda":
                # MJX takes a minute to compile, and its contenders all compile the same.
                variables["JAX_COMPILATION_CACHE_DIR"] = str(self.caches.resolve() / "jax")
            done = call(command, Path(scratch), variables)
        if done.returncode:
            raise JobError(last_words(done.stderr, done.returncode))
        try:
            return json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise JobError("printed no result") from error


def environment(threads: int, cache: Path, fonts: Path) -> dict[str, str]:
    """Return the environment variables of a contender's process."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "XDG_CACHE_HOME": str(cache),
        # Finding the machine's fonts is no part of anybody's start-up.
        "MPLCONFIGDIR": str(fonts),
    }


def call(command: list[str], folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; an interrupt or the time limit ends it and everything it started."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=LIMIT_SECONDS)
        except BaseException as reason:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(reason, subprocess.TimeoutExpired):
                raise
            output, errors = process.communicate()
            errors += f"\ntook longer than {LIMIT_SECONDS} s"
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def last_words(text: str, status: int) -> str:
    """Return the last line of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with status {status}"


def remaining(todo: list[Job], durations: dict[tuple[str, str], float]) -> str:
    """Return how long what is left will take, judging by what has run."""
    if not todo:
        return "done"
    by_contender: dict[str, list[float]] = defaultdict(list)
    for (_, contender), seconds in durations.items():
        by_contender[contender].append(seconds)
    overall = mean(durations.values())
    seconds = sum(durations.get(job.key[:2]) or mean(by_contender.get(job.contender.name) or [overall]) for job in todo)
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"
