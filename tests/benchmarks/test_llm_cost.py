"""The benchmark of what entropy control costs: what is run, kept, and made of it. No timing is asserted."""

import json
from pathlib import Path

import pytest

pytest.importorskip("trl")

import torch
from trl.kernels import chunked_logprob

from benchmarks.llm import __main__ as command
from benchmarks.llm import entropies, measure, report, tables, training
from benchmarks.llm.contenders import CONTENDERS, GRPO, SPLIT
from benchmarks.llm.entropies import NAIVE_HIDDEN
from benchmarks.llm.measure import ENTROPY, TRAINING, Pair, Plan, Step
from benchmarks.llm.shapes import SHAPES
from benchmarks.llm.turns import WARM_UP
from maxent_onpolicy.evaluation.drawing import Plot
from maxent_onpolicy.llm.methods import METHODS

TINY = Plan("tiny", 1, tuple(CONTENDERS), 2, 2, 16, 1)
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "llm_cost"
CHUNKED = "from hidden states, 64 rows"


class Noted:
    """Takes steps one after another and keeps what is said of them."""

    def __init__(self):
        self.waited, self.values = 0, []

    def wait(self):
        self.waited += 1

    def end(self, **values):
        assert self.waited == len(self.values) + 1
        self.values.append(values)


@pytest.fixture
def in_this_process(monkeypatch):
    """Measurements are made here: starting a process takes longer than a tiny step."""

    def run(plan, pair):
        job = {"part": pair.part, "layers": plan.layers, "shape": plan.shape, "steps": plan.steps + WARM_UP}
        found = {}
        for name in pair.names:
            turn = Noted()
            command.serve(**job, name=name, rows=plan.rows, threads=plan.threads, turn=turn)
            found[name] = turn.values[WARM_UP:]
        return found

    threads, fold = torch.get_num_threads(), chunked_logprob._backward_tile
    monkeypatch.setattr(measure, "alternate", run)
    yield
    torch.set_num_threads(threads)
    chunked_logprob._backward_tile = fold


def test_every_method_is_measured():
    methods = {
        name: each.settings["methods"] for name, each in CONTENDERS.items() if "methods" in (each.settings or {})
    }
    assert set(methods) == set(METHODS) - {"entropy_advantage"}
    assert all(chosen["name"] == name for name, (chosen,) in methods.items())


def test_everybody_is_measured_in_every_round_beside_its_baseline():
    pairs = list(measure.pairs_of(TINY))
    steps = [step for pair in pairs for step in pair.steps(TINY.steps)]
    assert len({step[:5] for step in steps}) == len(steps) == 4 * len(pairs)
    first, second = (
        [pair.names for pair in pairs if (pair.part, pair.round) == (TRAINING, number)] for number in range(2)
    )
    assert {name for _, name in first} == set(CONTENDERS) - {GRPO, SPLIT}
    assert all(baseline == CONTENDERS[name].baseline for baseline, name in first)
    assert first == second[::-1]


def test_one_contender_alone_is_measured_as_among_all():
    usual = next(pair for pair in measure.pairs_of(TINY) if "steer" in pair.names)
    plan = Plan("tiny", 1, ("steer",), 1, 1, 16, 1, (TRAINING,))
    assert list(measure.pairs_of(plan)) == [usual]


@pytest.mark.usefixtures("in_this_process")
def test_costs_are_measured_once_and_make_a_report(tmp_path, capsys):
    common = ["cost", "--shape", "tiny", "--steps", "2", "--rows", "16", "--threads", "1", "--layers", "1"]
    common += ["--output", str(tmp_path), "--contenders", "critic, sampled", "epo"]
    for _ in range(2):
        command.main(common)
    printed = capsys.readouterr().out
    assert printed.count("training, critic, sampled") == 1
    steps = measure.read(tmp_path / "cost.csv")
    assert [step.name for step in steps if step.part == TRAINING] == [
        *[GRPO, "critic, sampled"] * 2,
        *[GRPO, "epo"] * 2,
    ]
    assert {step.name for step in steps if step.part == ENTROPY} == set(entropies.WAYS)
    # epo's own time holds a difference of two times, which in tiles as small as these may be below 0.
    assert all(step.seconds > step.own and step.cpu > 0 for step in steps)
    assert all((step.own != 0) == (step.name != GRPO) for step in steps if step.part == TRAINING)
    assert all(step.own > 0 for step in steps if step.name == "critic, sampled")
    assert all(step.memory > 100 for step in steps if step.part == TRAINING)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.parent != tmp_path}
    assert {path.name for path in written} == {
        *(f"{name}.{kind}" for name in ("training", "entropy") for kind in ("md", "csv")),
        "cost.png",
        "cost.svg",
    }
    command.main(["report", "--output", str(tmp_path)])
    assert {path: path.read_bytes() for path in written} == written
    with pytest.raises(SystemExit, match="measurements of another settings; give another --output"):
        command.main([*common, "--steps", "3"])


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("method", "tiles"), [("epo", 1), ("kl_cov", 0)])
def test_gradients_of_entropies_are_counted_and_not_changed(monkeypatch, method, tiles):
    """Every tile of the logits is done twice where entropies have a gradient; what is learnt is the same."""
    fold, done = chunked_logprob._backward_tile, []

    def noted(tile, *arguments, HAS_ENTROPY_GRAD, **keywords):
        fold(tile, *arguments, HAS_ENTROPY_GRAD=HAS_ENTROPY_GRAD, **keywords)
        done.append((HAS_ENTROPY_GRAD, tile.clone()))

    found = []
    for watched in (True, False):
        monkeypatch.setattr(chunked_logprob, "_backward_tile", noted)
        if not watched:
            monkeypatch.setattr(training.Own, "watch_gradients", lambda own: None)
        training.measure(method, SHAPES["tiny"], 1, WARM_UP + 1, Noted())
        found.append([*done])
        done.clear()
    assert [flag for flag, _ in found[0]] == [bool(tiles)] * WARM_UP + [False] * tiles + [bool(tiles)]
    assert torch.equal(found[0][-1][1], found[1][-1][1])


@pytest.mark.slow
def test_two_processes_take_turns(monkeypatch):
    monkeypatch.chdir(ROOT)
    order, one_step = [], measure._one_step

    def noted(process):
        order.append(json.loads(process.args[-1])["name"])
        return one_step(process)

    monkeypatch.setattr(measure, "_one_step", noted)
    found = measure.alternate(TINY, Pair(ENTROPY, (NAIVE_HIDDEN, CHUNKED), 0, 0))
    assert order == [NAIVE_HIDDEN, CHUNKED, CHUNKED, NAIVE_HIDDEN] * 2
    assert [len(values) for values in found.values()] == [2, 2]
    assert all(value["seconds"] > 0 for values in found.values() for value in values)


@pytest.mark.slow
def test_a_process_that_fails_is_reported_with_what_it_said(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(RuntimeError, match=r"nonsense failed:(.|\n)*KeyError: 'nonsense'"):
        measure.alternate(TINY, Pair(ENTROPY, (NAIVE_HIDDEN, "nonsense"), 0, 0))


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


def steps_of(name, step, baseline, own, round=0):
    """A step of a contender and of its baseline."""
    other = CONTENDERS[name].baseline
    return [
        Step(TRAINING, other, round, 3, step, baseline, 0.0, baseline, 100.0),
        Step(TRAINING, name, round, 3, step, baseline + own, own, baseline + own, 140.0),
    ]


def test_own_time_is_a_part_of_the_rest_of_the_same_step():
    steps = [*steps_of("clip_cov", 0, 10.0, 0.2), *steps_of("clip_cov", 1, 20.0, 0.2)]
    assert tables.own_parts(steps, "clip_cov") == pytest.approx([0.02, 0.01])


def test_ratios_are_of_the_same_pair_round_and_step():
    steps = [
        *steps_of("clip_cov", 0, 10.0, 1.0),
        *steps_of("clip_cov", 1, 20.0, 1.0),
        *steps_of("clip_cov", 0, 40.0, 1.0, round=1),
        Step(TRAINING, GRPO, 0, 5, 0, 1000.0),
        Step(TRAINING, "clip_cov", 0, 6, 0, 1000.0),
        Step(ENTROPY, "clip_cov", 0, 5, 0, 1000.0),
    ]
    assert tables.ratios(steps, TRAINING, "clip_cov", GRPO) == [1.1, 1.05, 1.025]
    assert tables.interval([1.1, 1.1, 1.1], "key") == pytest.approx((1.1, 1.1, 1.1))
    assert tables.interval([1.0, 1.2, 1.1], "key") == pytest.approx((1.1, 1.0, 1.2))


def test_an_aim_is_met_if_the_whole_interval_is_below_it():
    steps = [*steps_of("clip_cov", 0, 10.0, 0.1), *steps_of("clip_cov", 1, 10.0, 0.3)]
    table = tables.training_table(steps, 2, 28)
    assert table.text.values.tolist() == [
        [GRPO, "10.00", "–", "–", "–", "100", "–", "–"],
        ["clip_cov", "10.20", "200.0", "+2.00 % [1.00, 3.00]", "+2.0 % [1.0, 3.0]", "+40", "5 %", "yes"],
    ]
    steps += steps_of("clip_cov", 2, 10.0, 0.6)
    assert tables.training_table(steps, 2, 28).text["Met"].tolist() == ["–", "open"]
    steps = [*steps_of("clip_cov", 0, 10.0, 0.6), *steps_of("clip_cov", 1, 10.0, 0.7)]
    assert tables.training_table(steps, 2, 28).text["Met"].tolist() == ["–", "no"]


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
