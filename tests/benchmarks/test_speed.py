"""The speed benchmark's own code: what is run, what is kept, and what is made of it. No timing is asserted."""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.speed import report, store, tables, targets, workloads
from benchmarks.speed.__main__ import measure as measure_all
from benchmarks.speed.__main__ import parse_arguments, prepare, select
from benchmarks.speed.homes import Homes, InstallError
from benchmarks.speed.image_workloads import IMAGE_WORKLOADS
from benchmarks.speed.runner import JobError, Runner, last_words, remaining
from benchmarks.speed.store import Store
from benchmarks.speed.summary import Measurements, break_even, ratio, summarise
from benchmarks.speed.workloads import CPU_WORKLOADS, GPU_WORKLOADS, Job, jobs

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "results").glob("speed*"))
FIRST = CPU_WORKLOADS[0]


def row(workload: str, contender: str, number: int = 0, **values: Any) -> dict[str, Any]:
    blank = dict.fromkeys(store.NUMBERS)
    counts = {"warmup": 1, "iterations": 2, "threads": 1}
    texts = {"status": "ok", "iterations_ms": "1.000 2.000", "error": ""}
    return {"workload": workload, "contender": contender, "round": number} | blank | counts | texts | values


def result(speed: float) -> dict[str, Any]:
    return {"steps_per_second": speed, "iterations_ms": [1.0], "versions": {"torch": "1"}}


# --- statistics ---


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_within_rounds() -> None:
    found = ratio({0: 10.0, 1: 30.0, 2: 20.0}, {0: 5.0, 1: 6.0, 2: 4.0})

    assert found == (20 / 5, 2.0, 5.0, 3)


def test_a_ratio_needs_a_round_that_both_have() -> None:
    assert ratio({0: 1.0}, {1: 1.0}) is None


def test_nothing_has_no_median() -> None:
    assert summarise([]) is None
    assert summarise([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0, 3)


@pytest.mark.parametrize(
    ("start", "speed", "steps"),
    [
        pytest.param(5.0, 1000.0, 0.0, id="never behind"),
        pytest.param(15.0, 1000.0, 2000.0 + 10.0 / (1 / 500 - 1 / 1000), id="faster, later"),
        pytest.param(15.0, 400.0, float("inf"), id="slower and later"),
    ],
)
def test_break_even(start: float, speed: float, steps: float) -> None:
    assert break_even(start, speed, 5.0, 500.0, 2000) == pytest.approx(steps)


def test_at_the_break_even_both_runs_take_the_same_time() -> None:
    steps = break_even(20.0, 3000.0, 4.0, 700.0, 2048)

    assert 20.0 + (steps - 2048) / 3000.0 == pytest.approx(4.0 + (steps - 2048) / 700.0)


def test_failed_measurements_have_no_numbers() -> None:
    measured = Measurements([row("w", "a", status="failed", steps_per_second=5.0), row("w", "b", steps_per_second=5.0)])

    assert measured.summary("w", "a") is None
    assert measured.failed("w", "a")
    assert not measured.failed("w", "b")
    assert measured.fastest("w", ["a", "b", "c"]) == "b"


# --- what is run ---


def test_contenders_take_turns() -> None:
    workload = replace(FIRST, contenders=(workloads.SB3, workloads.OURS))

    order = [(job.contender.name, job.round) for job in jobs([workload], 2)]

    assert order == [("sb3", 0), ("ours", 0), ("sb3", 1), ("ours", 1)]


def test_absent_contenders_and_surplus_rounds_are_left_out() -> None:
    workload = replace(FIRST, contenders=(workloads.SB3, workloads.OURS), rounds=1)

    assert [job.key for job in jobs([workload], 5, ["sb3"])] == [("envs-8", "ours", 0)]


def test_names_identify() -> None:
    everything = [*CPU_WORKLOADS, *GPU_WORKLOADS, *IMAGE_WORKLOADS]

    assert len({each.name for each in everything}) == len(everything)
    for each in everything:
        assert len({contender.name for contender in each.contenders}) == len(each.contenders)


@pytest.mark.parametrize("workload", [*CPU_WORKLOADS, *GPU_WORKLOADS, *IMAGE_WORKLOADS], ids=lambda each: each.name)
def test_every_contender_has_a_script_and_whole_minibatches(workload: workloads.Workload) -> None:
    assert workload.rollout % workload.batch_size == 0
    steps = workloads.OFF_POLICY_STEPS if workload.section == "sac" else workloads.ROLLOUT
    assert workload.device == "cuda" or workload.section == "images" or workload.rollout == steps
    for contender in workload.contenders:
        assert (ROOT / "benchmarks" / "speed" / "peers" / contender.script).is_file()
        message = workload.message(contender, 0, {"cleanrl": "x", "leanrl": "y"})
        assert json.loads(json.dumps(message)) == message


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda each: each.text)
def test_targets_are_about_what_is_run(target: targets.Target) -> None:
    (workload,) = [each for each in CPU_WORKLOADS if each.name == target.workload]
    names = {contender.name for contender in workload.contenders}

    assert {*target.upper, *target.lower} <= names


def test_cleanrl_and_leanrl_need_a_checkout() -> None:
    _, absent = select(parse_arguments(["--contenders", "sb3", "cleanrl"]))

    assert {"cleanrl", "leanrl", "ours"} <= absent
    assert "sb3" not in absent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--only", "envs-9"], "did you mean"),
        (["--contenders", "tianshuo"], "did you mean 'tianshou'"),
        (["--cleanrl", "/nowhere"], "no checkout"),
    ],
)
def test_wrong_options_end_with_advice(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(arguments)

    assert message in capsys.readouterr().err


# --- what is kept ---


def test_rows_survive_the_file(tmp_path: Path) -> None:
    kept = Store(tmp_path)
    job = Job(FIRST, workloads.OURS, 1)
    kept.add(job, result(1234.5) | {"startup_s": 2.5})

    again = Store(tmp_path)

    assert again.rows == [*kept.rows]
    assert again.has(job)
    assert store.render(again.rows) == (tmp_path / "runs.csv").read_text()
    assert again.machine["libraries"] == {"ours": {"torch": "1"}}


def test_other_settings_and_failures_are_measured_again(tmp_path: Path) -> None:
    kept = Store(tmp_path)
    job = Job(FIRST, workloads.OURS, 0)
    kept.add(job, result(1.0))
    longer = replace(job, contender=replace(job.contender, iterations=99))

    assert not kept.has(longer)
    kept.add(job, {}, 'broken, "quoted"\nand long')
    assert not Store(tmp_path).has(job)
    assert len(kept.rows) == 1


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Runner]:
    def make(code: str) -> Runner:
        (tmp_path / "run_ours.py").write_text(code, encoding="utf-8")
        monkeypatch.setattr("benchmarks.speed.runner.PEERS", tmp_path)
        homes = Homes(tmp_path / "homes", here=True)
        return Runner(Store(tmp_path / "out"), homes, {}, tmp_path / "caches", lambda line: None)

    return make


OK = 'import json, os, sys; w = json.loads(sys.argv[1]); print("noise"); print(json.dumps({"steps_per_second": 1.0 + w["seed"], "threads": os.environ["OMP_NUM_THREADS"], "cwd": os.getcwd()}))'  # noqa: E501


def test_a_process_gets_its_workload_and_threads_and_a_folder_of_its_own(runner: Callable[[str], Runner]) -> None:
    found = runner(OK).run(Job(FIRST, workloads.OURS_2T, 3))

    assert found["steps_per_second"] == 4.0
    assert found["threads"] == "2"
    assert not Path(found["cwd"]).exists()


def test_measured_jobs_are_not_run_again(runner: Callable[[str], Runner]) -> None:
    chosen = jobs([replace(FIRST, contenders=(workloads.OURS,))], 2)
    assert runner(OK).run_all(chosen) == []

    broken = runner("raise SystemExit(3)")

    assert broken.run_all(chosen) == []
    assert len(broken.store.rows) == 2


def test_a_contender_that_fails_is_named_and_the_others_go_on(runner: Callable[[str], Runner]) -> None:
    code = OK.replace("print(", 'w["options"].get("environments") and 1 / 0; print(', 1)
    both = replace(FIRST, contenders=(workloads.OURS_DUMMY, workloads.OURS))

    machine = runner(code)
    failures = machine.run_all(jobs([both], 2))

    assert failures == [
        "8 environments, minibatch 64: ours on SB3's DummyVecEnv: ZeroDivisionError: division by zero",
    ]
    assert [(each["contender"], each["status"]) for each in machine.store.rows] == [
        ("ours-dummy", "failed"),
        ("ours", "ok"),
        ("ours", "ok"),
    ]


def test_a_peer_that_cannot_be_installed_is_named_and_the_others_run(
    tmp_path: Path, runner: Callable[[str], Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(self: Homes, home: str, say: Callable[[str], None]) -> None:
        raise InstallError(f"{home} cannot be installed: no network")

    kept = runner(OK).store
    monkeypatch.setattr(Homes, "install", install)
    arguments = ["--only", "envs-1", "--contenders", "sbx", "ours", "--rounds", "2", "--environments", str(tmp_path)]

    failures = measure_all(parse_arguments(arguments), kept)

    assert failures == ["sbx cannot be installed: no network"]
    assert [(each["contender"], each["status"]) for each in kept.rows] == [
        ("sbx", "failed"),
        ("ours", "ok"),
        ("ours", "ok"),
    ]


def test_a_process_without_a_result_fails(runner: Callable[[str], Runner]) -> None:
    with pytest.raises(JobError, match="printed no result"):
        runner("print('hello')").run(Job(FIRST, workloads.OURS, 0))


def test_errors_are_one_line_and_name_no_places() -> None:
    words = last_words("Traceback\nOSError: cannot read '/home/me/secret.txt' of https://example.org/x\n\n", 1)

    assert store.without_places(words) == "OSError: cannot read secret.txt' of (address)"
    assert last_words("", 9) == "ended with status 9"


def test_what_remains_is_judged_by_what_ran() -> None:
    todo = [Job(FIRST, workloads.OURS, 1), Job(CPU_WORKLOADS[1], workloads.OURS, 0), Job(FIRST, workloads.SB3, 1)]

    assert remaining([], {}) == "done"
    assert remaining(todo, {("envs-8", "ours"): 10.0, ("envs-8", "sb3"): 20.0}) == "about 40 s left"


# --- the clock of the peers' scripts ---


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"speed_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def measure() -> ModuleType:
    return load(ROOT / "benchmarks" / "speed" / "peers" / "measure.py")


def test_phases_are_exclusive_and_warm_up_does_not_count(
    measure: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def work(seconds: float) -> None:
        now[0] += seconds

    def update(scale: float) -> None:
        work(scale)
        inner(2 * scale)

    watch = measure.Stopwatch(warmup=1)
    inner = watch.timed(work, "buffer")
    train = watch.timed(update, "update", ends_iteration=True)
    for scale in (100.0, 1.0, 2.0):
        work(0.5)
        train(scale)
    watch.report(30, ("no-such-package",))
    found = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert found["iterations_ms"] == [3500.0, 6500.0]
    assert found["steps_per_second"] == pytest.approx(6.0)
    assert (found["update_ms"], found["buffer_ms"]) == (1500.0, 3000.0)
    assert found["versions"] == {}
    assert found["peak_rss_mb"] > 1


# --- tables and figure ---


def measured_rows() -> list[dict[str, Any]]:
    rows = []
    for workload in (*CPU_WORKLOADS, *GPU_WORKLOADS[:1]):
        for order, contender in enumerate(workload.contenders, start=1):
            numbers = dict.fromkeys(store.NUMBERS, 1.0 * order) | {"steps_per_second": 1000.0 * order}
            rows += [row(workload.name, contender.name, n, **numbers) for n in range(2)]
    return rows


def test_targets_take_the_fastest_setting_and_the_right_direction() -> None:
    rows = [
        row("batch-512", "sb3", steps_per_second=100.0),
        row("batch-512", "sb3-2t", steps_per_second=200.0),
        row("batch-512", "ours", steps_per_second=1000.0),
        row("batch-512", "ours-2t", steps_per_second=900.0),
        row("batch-512", "environments", steps_per_second=2600.0),
    ]
    table = tables.targets(Measurements(rows)).data.set_index("Target")

    times = table.loc["8 environments, minibatch 512: times SB3"]
    alone = table.loc["minibatch 512: environments alone on all cores over ours, end to end"]
    other = table.loc["8 environments, minibatch 64: times SB3"]
    assert (times["Measured"], times["Verdict"]) == (5.0, "met")
    assert (alone["Measured"], alone["Verdict"]) == (2.6, "missed")
    assert other["Verdict"] == "not measured"


def test_sac_is_judged_by_everybodys_fastest_setting() -> None:
    rows = [
        row("sac", "sb3-sac", steps_per_second=100.0),
        row("sac", "sb3-sac-2t", steps_per_second=120.0),
        row("sac", "sbx-sac", steps_per_second=300.0),
        row("sac", "ours-sac", steps_per_second=200.0),
        row("sac", "ours-sac-2t", steps_per_second=252.0),
    ]
    table = next(each for each in tables.all_tables(Measurements(rows)) if each.name == "sac-targets")

    assert list(table.text["Verdict"]) == ["met", "missed"]
    assert list(table.data["Measured"]) == pytest.approx([2.1, 0.84])


def test_sac_on_a_gpu_has_a_table_of_its_own() -> None:
    rows = [row("gpu-sac", "sb3-sac", steps_per_second=100.0), row("gpu-sac", "ours-sac", steps_per_second=400.0)]
    measured = {each.name: each for each in tables.all_tables(Measurements(rows))}

    assert "sac" not in measured
    assert list(measured["gpu-sac"].data["times SB3's fastest"].dropna()) == [1.0, 4.0]


def test_peers_show_what_was_not_run_and_what_failed() -> None:
    rows = [row("envs-8", "sb3", steps_per_second=3000.0), row("envs-8", "sbx", status="failed")]
    text = tables.peers(Measurements(rows)).text.set_index("Workload").loc["8 environments, minibatch 64"]

    assert (text["SB3"], text["SBX"], text["ours"]) == ("3,000", "failed", "–")


def test_operations_of_an_update_by_hand() -> None:
    gflop, megabytes = tables.update_cost(replace(FIRST, width=1, n_epochs=1, n_envs=1, n_steps=10, batch_size=10))

    # actor 17-1-1-6: 24 multiplications forward, 24 for weights, 7 for inputs; critic 17-1-1-1: 19, 19, 2; two each
    assert gflop == pytest.approx(2 * (24 + 24 + 7 + 19 + 19 + 2) * 10 / 1e9)
    # 24 + 8 and 19 + 3 parameters, six deviations; 28 bytes each for the one minibatch
    assert megabytes == pytest.approx(28 * (32 + 22 + 6) / 1e6)


def test_the_report_is_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        kept = Store(tmp_path / name)
        kept.rows = measured_rows()
        kept.write()
        report.write(Store(tmp_path / name))

    first = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
    second = {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.*")}
    assert first == second
    assert {"speed.png", "speed.svg", "targets.md", "gpu.csv", "report.md"} <= {path.name for path in first}


def test_a_report_without_measurements_says_so(tmp_path: Path) -> None:
    report.write(Store(tmp_path))

    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert ", no GPU, " in text
    assert "## " not in text
    assert not list((tmp_path / "tables").iterdir())


@pytest.mark.parametrize(("load", "warned"), [(1.4, False), (4.0, True)])
def test_a_busy_machine_is_mentioned(load: float, warned: bool) -> None:
    text = report.load_text(Measurements([row("w", "a", load=load)]), {"cpu": {"cores": 2}})

    assert ("busy" in text) is warned


def test_what_was_not_measured_has_neither_table_nor_figure(tmp_path: Path) -> None:
    kept = Store(tmp_path)
    kept.rows = [row("gpu-sac", "ours-sac", steps_per_second=400.0)]
    report.write(kept)

    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"gpu-sac.md", "gpu-sac.csv"}
    assert not (tmp_path / "figures").exists()
    assert "speed.svg" not in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not RESULTS, reason="no committed measurements")
@pytest.mark.parametrize("results", RESULTS, ids=lambda folder: folder.name)
def test_committed_tables_come_from_the_committed_measurements(results: Path, tmp_path: Path) -> None:
    for name in ("runs.csv", "machine.json"):
        (tmp_path / name).write_bytes((results / name).read_bytes())
    report.write(Store(tmp_path))

    for path in [*(tmp_path / "tables").iterdir(), tmp_path / "report.md"]:
        assert path.read_bytes() == (results / path.relative_to(tmp_path)).read_bytes(), path.name


def test_the_readme_shows_the_peers_and_the_figure(tmp_path: Path) -> None:
    kept = Store(tmp_path / "speed")
    kept.rows = measured_rows()
    report.write(kept)
    markers = "<!-- results:speed:start -->\n<!-- results:speed:end -->\n"

    updated = load(ROOT / "scripts" / "update_readme.py").update(markers, tmp_path)

    assert (tmp_path / "speed" / "tables" / "peers.md").read_text(encoding="utf-8").strip() in updated
    assert "](results/speed/figures/speed.svg)" in updated


def test_quick_is_one_round_of_few_iterations() -> None:
    chosen, _ = select(parse_arguments(["--quick"]))

    assert {each.rounds for each in chosen} == {1}
    assert {contender.iterations for each in chosen for contender in each.contenders} == {2}
    assert sys.executable == str(Homes(Path("x"), here=True).python("sb3"))


def test_measurements_of_another_machine_are_not_continued(tmp_path: Path) -> None:
    kept = Store(tmp_path)
    kept.machine = {"cpu": {"model": "abacus", "cores": 1}}
    kept.add(Job(FIRST, workloads.OURS, 0), result(1.0))
    arguments = ["--out", str(tmp_path)]

    with pytest.raises(ValueError, match="another machine's measurements"):
        prepare(parse_arguments(arguments), Store(tmp_path))

    cleared = Store(tmp_path)
    prepare(parse_arguments([*arguments, "--restart"]), cleared)
    assert cleared.rows == []
    assert cleared.machine["cpu"]["cores"] >= 1
