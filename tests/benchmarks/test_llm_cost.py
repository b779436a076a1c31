"""The benchmark of what entropy control costs: what is run, kept, and made of it. No timing is asserted."""

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("trl")

import torch

from benchmarks.llm import __main__ as command
from benchmarks.llm import entropies, measure, report, tables
from benchmarks.llm.contenders import CONTENDERS, EVERY_DEPTH, GRPO, SPLIT
from benchmarks.llm.measure import ENTROPY, GENERATED, TRAINING, Plan, Run
from benchmarks.llm.shapes import SHAPES
from maxent_onpolicy.evaluation.drawing import Plot
from maxent_onpolicy.llm.methods import METHODS

TINY = Plan("tiny", (1, 2), tuple(CONTENDERS), 2, 1, 16, 1)
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "llm"


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs are made here: starting a process takes longer than a tiny run."""

    def run(plan, run):
        job = {"part": run.part, "name": run.name, "layers": run.layers}
        return command.serve(**job, shape=plan.shape, steps=plan.steps, rows=plan.rows, threads=plan.threads)

    threads = torch.get_num_threads()
    monkeypatch.setattr(measure, "_in_a_process", run)
    yield
    torch.set_num_threads(threads)


def test_every_method_is_measured():
    methods = {
        name: each.settings["methods"] for name, each in CONTENDERS.items() if "methods" in (each.settings or {})
    }
    assert set(methods) == set(METHODS) - {"entropy_advantage"}
    assert all(chosen["name"] == name for name, (chosen,) in methods.items())


def test_everybody_is_run_in_every_round_beside_a_baseline():
    runs = list(measure.runs_of(TINY))
    assert len({run.key for run in runs}) == len(runs)
    for number in range(2):
        few, many = (
            [run for run in runs if (run.part, run.layers, run.round) == (TRAINING, layers, number)]
            for layers in (1, 2)
        )
        assert {run.name for run in few} == set(CONTENDERS)
        assert {run.name for run in many} == set(EVERY_DEPTH)
        for own, run in [*((few, run) for run in few), *((many, run) for run in many)]:
            slot = [each.name for each in own if each.slot == run.slot]
            assert CONTENDERS[run.name].baseline in slot
    first, second = ([run.key[:3] for run in runs if run.round == number and run.layers == 1] for number in range(2))
    assert [key for key in first if key[0] == TRAINING] == [key for key in second if key[0] == TRAINING][::-1]


def test_one_contender_alone_is_run_in_its_usual_slot():
    usual = next(run for run in measure.runs_of(TINY) if run.name == "steer")
    plan = Plan("tiny", (1,), ("steer",), 1, 1, 16, 1, (TRAINING,))
    assert [run[:5] for run in measure.runs_of(plan)] == [(TRAINING, GRPO, 1, 0, usual.slot), usual[:5]]


@pytest.mark.usefixtures("in_this_process")
def test_costs_are_measured_once_and_make_a_report(tmp_path, capsys):
    common = ["cost", "--shape", "tiny", "--rounds", "1", "--steps", "1", "--rows", "16", "--threads", "1"]
    common += ["--output", str(tmp_path), "--contenders", "critic, sampled", "--layers", "1"]
    for _ in range(2):
        command.main([*common, "--parts", TRAINING, ENTROPY])
    printed = capsys.readouterr().out
    assert printed.count("training, 1 layers, critic, sampled") == 1
    runs = measure.read(tmp_path / "cost.csv")
    assert [run.name for run in runs if run.part == TRAINING] == [GRPO, "critic, sampled"]
    assert [run.name for run in runs if run.part == ENTROPY] == list(entropies.WAYS)
    assert all(run.seconds > run.generation >= 0 and run.cpu > 0 for run in runs)
    assert all(run.memory > 100 for run in runs if run.part == TRAINING)
    command.main([*common, "--parts", GENERATED])
    runs = measure.read(tmp_path / "cost.csv")
    assert sum(run.part == GENERATED for run in runs) == 3
    assert all(run.seconds > run.generation > 0 for run in runs if run.part == GENERATED)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.parent != tmp_path}
    assert {path.name for path in written} == {
        *(f"{name}.{kind}" for name in ("training", "grpo", "generated", "entropy") for kind in ("md", "csv")),
        "cost.png",
        "cost.svg",
    }
    command.main(["report", "--output", str(tmp_path)])
    assert {path: path.read_bytes() for path in written} == written
    with pytest.raises(SystemExit, match="measurements of another settings; give another --output"):
        command.main([*common, "--steps", "2"])


def test_a_run_has_a_process_of_its_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = measure._in_a_process(TINY, Run(ENTROPY, "from hidden states, 64 rows", 0, 0, 0))
    assert found["seconds"] > 0
    with pytest.raises(RuntimeError, match="nonsense failed"):
        measure._in_a_process(TINY, Run(ENTROPY, "nonsense", 0, 0, 0))


@pytest.mark.parametrize("kind", ["hidden", "logits"])
def test_all_ways_to_entropies_agree(kind):
    random = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, 8, generator=random) for rows in (70, 11))
    inputs = (hidden, weight) if kind == "hidden" else (hidden @ weight.T,)
    token = torch.randint(11, (70,), generator=random)
    found = [compute(*inputs, token) for name, compute in entropies.WAYS.items() if kind in name]
    assert len(found) == 3
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            torch.testing.assert_close(one, other)


def pair(name, layers, number, baseline, added, slot=0):
    """A contender and its baseline, of which a second each is generation."""
    other = CONTENDERS[name].baseline
    return [
        Run(TRAINING, other, layers, number, slot, baseline + 1, 1.0, baseline, 100.0),
        Run(TRAINING, name, layers, number, slot, baseline + added + 1, 1.0, baseline + added, 140.0),
    ]


def test_what_is_added_is_extrapolated_to_all_layers():
    runs = [*pair("clip_cov", 2, 0, 10.0, 1.0), *pair("clip_cov", 4, 0, 14.0, 1.0)]
    assert tables.ratios(runs, "clip_cov", 2) == {0: 1.1}
    # GRPO's 10 and 14 seconds are 62 with 28 layers, of which the same second is a smaller part.
    assert tables.ratio_at_depth(runs, "clip_cov", 28) == pytest.approx(63 / 62)
    runs = [*pair("critic, split batch", 2, 0, 10.0, 2.0), *pair("critic, split batch", 4, 0, 14.0, 3.0)]
    assert tables.ratio_at_depth(runs, "critic, split batch", 28) == pytest.approx(1 + 15 / 62)  # a pass grows
    runs = [*pair("clip_cov", 2, 0, 10.0, 1.0), *pair("critic, sampled", 4, 0, 14.0, 1.0)]
    assert tables.ratio_at_depth(runs, "clip_cov", 28) == pytest.approx(63 / 62), "the same with all layers"
    assert math.isnan(tables.ratio_at_depth(pair("clip_cov", 2, 0, 10.0, 1.0), "clip_cov", 28))


def test_ratios_are_of_the_same_slot_and_round():
    runs = [*pair("clip_cov", 2, 0, 10.0, 1.0), *pair("clip_cov", 2, 1, 20.0, 1.0, slot=1)]
    runs += [Run(TRAINING, GRPO, 2, 0, 5, 1000.0), Run(TRAINING, "clip_cov", 2, 3, 6, 1000.0)]
    assert tables.ratios(runs, "clip_cov", 2) == {0: 1.1, 1: 1.05}
    assert tables.interval([1.1, 1.1, 1.1], "key") == pytest.approx((1.1, 1.1, 1.1))
    value, low, high = tables.interval([1.0, 1.2, 1.1], "key")
    assert (value, low, high) == pytest.approx((1.1, 1.0, 1.2))


def test_a_part_of_the_step_counts_generation():
    runs = [*pair("clip_cov", 2, 0, 10.0, 1.0), Run(GENERATED, GRPO, 2, 0, 0, 40.0, 30.0)]
    assert tables.share_of_step(runs, "clip_cov") == pytest.approx(1 / 40)
    table = tables.training_table(runs, 28)
    assert table.text.values.tolist() == [["clip_cov", "+10.0 % [10.0, 10.0]", "+10.0 %", "–", "+2.5 %", "+40", "yes"]]
    assert SPLIT not in table.data["baseline"].tolist()


def test_another_machines_measurements_are_not_mixed(tmp_path):
    (tmp_path / "cost.json").write_text(json.dumps({"cpu": {"model": "Z80", "cores": 1}}))
    with pytest.raises(SystemExit, match="measurements of another cpu; give another --output"):
        command.note(TINY, tmp_path)


def test_there_is_no_report_of_nothing(tmp_path):
    with pytest.raises(SystemExit, match="has no measurements"):
        report.write(tmp_path)


def test_the_shape_is_that_of_the_model_it_is_named_after():
    shape = SHAPES["qwen2.5-1.5b"]
    layer = 2 * shape.width**2 * (1 + shape.key_value_heads / shape.heads) + 3 * shape.width * shape.feed_forward
    assert 1.5e9 < shape.depth * layer + shape.vocabulary * shape.width < 1.6e9


@pytest.mark.skipif(not RESULTS.is_dir(), reason="an installed package without results")
def test_the_committed_report_regenerates_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(Plot, "write", lambda plot, folder: None)  # its bytes depend on the version of matplotlib
    report.write(RESULTS, tmp_path)
    for path in sorted((RESULTS / "tables").iterdir()):
        assert (tmp_path / "tables" / path.name).read_bytes() == path.read_bytes(), path.name
