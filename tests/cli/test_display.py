"""Progress fits 80 columns, as bars in a terminal and as lines in a log."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from maxent_onpolicy.cli.config import make_config
from maxent_onpolicy.cli.display import BarDisplay, LogDisplay, make_display
from maxent_onpolicy.cli.jobs import Job


def make_job(label: str = "PPO", env_id: str = "Hopper-v5", **state) -> Job:
    who = {"suite": "s", "label": label, "algorithm": "PPO", "env_id": env_id, "seed": 0}
    config = make_config({"total_timesteps": 1000}, "test", **who)
    return Job(config, Path("nowhere"), prepare=lambda: None, **state)  # type: ignore[arg-type, return-value]


def make_console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)


def printed(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_gets_bars_and_a_log_lines():
    assert isinstance(make_display([], make_console(True)), BarDisplay)
    assert type(make_display([], make_console(False))) is LogDisplay


def test_the_log_tells_start_end_and_failure():
    console = make_console(False)
    job = make_job(timesteps=500, attempts=1)
    display = LogDisplay([job], console)
    display.started(job)
    job.attempts, job.state, job.error, job.seconds = 2, "waiting", "RuntimeError: no [luck]", 65.0
    display.finished(job)
    display.started(job)
    job.state = "failed"
    display.finished(job)
    job.state = "interrupted"
    display.finished(job)
    job.state = "completed"
    display.finished(job)
    assert printed(console).splitlines() == [
        "started      PPO on Hopper-v5, seed 0 from step 500",
        "will retry   PPO on Hopper-v5, seed 0: RuntimeError: no [luck]",
        "started      PPO on Hopper-v5, seed 0 from step 500 (attempt 2)",
        "failed       PPO on Hopper-v5, seed 0: RuntimeError: no [luck]",
        "interrupted  PPO on Hopper-v5, seed 0",
        "completed    PPO on Hopper-v5, seed 0: in 1 min 05 s",
    ]


def test_the_log_sums_up_now_and_then():
    console = make_console(False)
    jobs = [make_job(state="completed", timesteps=1100), make_job(state="running", timesteps=500), make_job()]
    display = LogDisplay(jobs, console, every_seconds=0)
    display.update()
    assert printed(console).startswith(" 50%  1 of 3 runs done, 1 running")
    patient = LogDisplay(jobs, make_console(False), every_seconds=3600)
    patient.update()
    assert printed(patient.console) == ""


def test_a_run_that_failed_has_nothing_left_to_do():
    jobs = [make_job(state="completed", timesteps=1000, seconds=10.0), make_job(state="failed", timesteps=200)]
    display = LogDisplay(jobs, make_console(False))
    display.began -= 10
    assert display.summary().startswith("100%  2 of 2 runs done, 0 running")
    assert display.seconds_left() == 0
    assert LogDisplay(jobs[1:], make_console(False)).share() == 1.0


def test_time_left_counts_only_what_was_done_now():
    half_done_before = make_job(state="running", timesteps=750)
    half_done_before.done_before = 500
    display = LogDisplay([half_done_before, make_job()], make_console(False))
    assert display.seconds_left() is None, "too early to tell"
    display.began -= 10
    left = display.seconds_left()
    assert left is not None
    assert 49 < left < 51, "250 steps took 10 s, 1250 are left"


def test_what_waiting_runs_have_from_before_was_not_done_now():
    waiting, running = make_job(timesteps=300), make_job(state="running")
    display = LogDisplay([waiting, running], make_console(False))
    display.began -= 10
    assert display.seconds_left() is None, "nothing is done yet, so there is no speed"
    running.timesteps = 500
    left = display.seconds_left()
    assert left == pytest.approx(24, rel=0.02), "500 steps took 10 s, 1200 are left"


def test_time_left_knows_that_algorithms_differ_in_speed():
    quick = [make_job(state="completed", timesteps=1000, seconds=10.0), make_job()]
    slow = [make_job("SAC", state="completed", timesteps=1000, seconds=100.0), make_job("SAC"), make_job("RPO")]
    display = LogDisplay([*quick, *slow], make_console(False))
    display.began -= 55
    left = display.seconds_left()
    assert left == pytest.approx((10 + 100 + 55) / 2, rel=1e-3), "two at a time, RPO as long as the mean of the others"


def test_bars_show_every_running_job_in_80_columns():
    jobs = [
        make_job(
            "Reward-augmented PPO", "InvertedDoublePendulum-v5", state="running", timesteps=400, mean_return=-1234.5
        ),
        make_job(state="running"),
        make_job(state="completed", timesteps=1000),
        make_job(),
    ]
    console = make_console(True)
    display = BarDisplay(jobs, console)
    console.print(display.render())
    lines = printed(console).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert "40%" in lines[0]
    assert "return -1,234" in lines[0] or "return -1,235" in lines[0]
    assert "starting" in lines[1]
    assert lines[2].startswith("1 of 4 runs")
