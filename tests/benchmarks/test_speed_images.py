"""The speed benchmark on images: what is run, and what is made of it. No timing is asserted."""

import importlib
import json

import pytest
import torch
from gymnasium import spaces

from benchmarks.speed import procgen_stepping, tables
from benchmarks.speed.__main__ import parse_arguments, select
from benchmarks.speed.image_workloads import IMAGE_WORKLOADS
from benchmarks.speed.summary import Measurements
from maxent_onpolicy.policies import ImpalaCNN
from tests.benchmarks.test_speed import ROOT, row


def test_images_are_measured_on_request_alone() -> None:
    names = {each.name for each in IMAGE_WORKLOADS}

    assert not names & {each.name for each in select(parse_arguments([]))[0]}
    assert names == {each.name for each in select(parse_arguments(["--only", "images"]))[0]}


def test_images_show_ratios_and_shares() -> None:
    parts = {"iteration_ms": 1000.0, "env_ms": 50.0, "policy_ms": 150.0, "update_ms": 800.0}
    rows = [
        row("procgen-impala", "sb3-images", number, steps_per_second=50.0 + number, **parts) for number in range(2)
    ] + [row("procgen-impala", "ours-images", number, steps_per_second=102.0, **parts) for number in range(2)]
    found = next(each for each in tables.all_tables(Measurements(rows)) if each.name == "images")

    assert list(found.data["times SB3"][:2]) == pytest.approx([1.0, 102 / 50.5])
    assert list(found.text["times SB3"][:3]) == ["1.00", "2.02 [2.00, 2.04]", "–"]
    assert list(found.text["environments"][:2]) == ["5.0%", "5.0%"]


def test_both_sides_of_the_comparison_have_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "speed" / "peers"))
    space = spaces.Box(0, 255, (3, 64, 64), "uint8")
    theirs = importlib.import_module("plain_impala").PlainImpala(space)

    ours = ImpalaCNN(space)
    assert [each.shape for each in theirs.parameters()] == [each.shape for each in ours.parameters()]
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.data.copy_(own.data)
    images = torch.rand(5, 3, 64, 64)
    torch.testing.assert_close(theirs(images), ours(images))


def test_the_committed_table_of_stepping_comes_from_its_measurements() -> None:
    folder = ROOT / "results" / "speed_procgen"
    document = json.loads((folder / "stepping.json").read_text(encoding="utf-8"))

    assert procgen_stepping.markdown(document) == (folder / "stepping.md").read_text(encoding="utf-8")
