"""What trackers share: failures cost nothing but time, repeated steps are written once, ends are told."""

import random
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Figure, HParam, Image

from maxent_onpolicy.tracking import base
from maxent_onpolicy.tracking.base import TrackerFormat
from maxent_onpolicy.tracking.media import Picture, to_media
from maxent_onpolicy.tracking.run import TrackedRun


class Recorder(TrackerFormat):
    """A tracker in memory that can be out of reach."""

    name = "recorder"
    package = "json"
    reachable = True
    has = -1

    def __init__(self, run):
        self.rows, self.ends, self.known, self.messages = [], [], [], []
        super().__init__(run, self.messages.append)

    def _begin(self, known):
        if not self.reachable:
            raise ConnectionError("no route to host")
        self.known.append(known)
        random.random()
        np.random.random()
        return known or "id-1", self.has

    def _log(self, rows):
        if not self.reachable:
            raise ConnectionError("no route to host")
        self.rows += [(row.step, row.numbers, row.media) for row in rows]

    def _end(self, state):
        if not self.reachable:
            raise ConnectionError("no route to host")
        self.ends.append(state)


def write(tracker, step, **values):
    tracker.write(values, dict.fromkeys(values, ("",)), step)


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""
    times = [1000.0]
    monkeypatch.setattr(base.time, "monotonic", lambda: times[0])
    return times


def test_numbers_are_sent_and_what_is_none_is_left_out(tmp_path):
    tracker = Recorder(TrackedRun(tmp_path))
    hparam = HParam({"a": 1}, {"b": 1.0})
    write(tracker, 7, a=1, b=np.float32(0.5), c=torch.tensor([2.0]), d=np.array(3), e="text", f=np.zeros(4), g=hparam)
    assert tracker.rows == [(7, {"a": 1.0, "b": 0.5, "c": 2.0, "d": 3.0}, {})]


def test_excluded_keys_stay_out(tmp_path):
    tracker = Recorder(TrackedRun(tmp_path))
    tracker.write({"a": 1, "b": 2, "c": 3}, {"a": ("recorder",), "b": ("stdout", "csv"), "c": None}, 0)
    assert tracker.rows == [(0, {"b": 2.0, "c": 3.0}, {})]


def test_what_a_tracker_cannot_take_is_sent_once_it_can(tmp_path, clock):
    tracker = Recorder(TrackedRun(tmp_path))
    write(tracker, 1, a=1)
    tracker.reachable = False
    write(tracker, 2, a=2)
    write(tracker, 3, a=3)
    tracker.reachable = True
    write(tracker, 4, a=4)
    assert [row[0] for row in tracker.rows] == [1], "a tracker that failed is left alone for a while"
    clock[0] += 61
    write(tracker, 5, a=5)
    assert [row[0] for row in tracker.rows] == [1, 2, 3, 4, 5]
    (message,) = tracker.messages
    assert "recorder is out of reach" in message
    assert "no route to host" in message


def test_a_run_can_begin_without_its_tracker(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(Recorder, "reachable", False)
    tracker = Recorder(TrackedRun(tmp_path))
    write(tracker, 1, a=1)
    monkeypatch.setattr(Recorder, "reachable", True)
    tracker.finish("failed")
    assert tracker.rows == [(1, {"a": 1.0}, {})]
    assert tracker.ends == ["failed"]


def test_what_could_never_be_sent_is_told_and_raises_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "reachable", False)
    tracker = Recorder(TrackedRun(tmp_path))
    write(tracker, 1, a=1)
    write(tracker, 2, a=1)
    tracker.finish()
    assert len(tracker.messages) == 2
    assert "the last 2 rows" in tracker.messages[1]
    assert tracker.ends == []


def test_an_interrupt_is_no_failure_of_the_tracker(tmp_path, monkeypatch):
    tracker = Recorder(TrackedRun(tmp_path))

    def interrupt(rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(tracker, "_log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tracker, 1, a=1)


def test_the_same_run_goes_on_and_repeated_steps_are_left_out(tmp_path, monkeypatch):
    first = Recorder(TrackedRun(tmp_path))
    first.finish("interrupted")
    monkeypatch.setattr(Recorder, "has", 300)
    second = Recorder(TrackedRun(tmp_path))
    for step in (100, 200, 300, 400):
        write(second, step, a=1)
    assert (first.known, second.known) == ([None], ["id-1"])
    assert [row[0] for row in second.rows] == [300, 400]


def test_an_end_is_told_once(tmp_path):
    tracker = Recorder(TrackedRun(tmp_path))
    tracker.finish("interrupted")
    tracker.close()
    assert tracker.ends == ["interrupted"]


def test_training_draws_the_same_random_numbers(tmp_path):
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    Recorder(TrackedRun(tmp_path))
    assert (random.random(), np.random.random()) == expected


@pytest.mark.parametrize(
    ("error", "state"), [(None, "completed"), (ValueError(), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_process_that_ends_without_a_word_says_how(tmp_path, monkeypatch, error, state):
    if error is not None:
        monkeypatch.setattr(sys, "last_value", error, raising=False)
    tracker = Recorder(TrackedRun(tmp_path))
    tracker._finish_at_exit()
    assert tracker.ends == [state]


@pytest.mark.slow
def test_the_end_of_a_process_ends_the_tracked_run(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_base import Recorder
from maxent_onpolicy.tracking.run import TrackedRun
Recorder._end = lambda self, state: Path({str(tmp_path / "end")!r}).write_text(state)
tracker = Recorder(TrackedRun(Path({str(tmp_path)!r})))
raise ValueError
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (tmp_path / "end").read_text() == "failed"


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "package", "no_such_package")
    with pytest.raises(ImportError, match=r"pip install 'maxent-onpolicy\[tracking\]'.*no_such_package"):
        Recorder(TrackedRun(tmp_path))


@pytest.mark.parametrize(
    ("order", "shape"), [("HWC", (4, 6, 3)), ("CHW", (3, 4, 6)), ("NCHW", (2, 3, 4, 6)), ("NHWC", (2, 4, 6, 3))]
)
def test_images_of_every_order_become_pictures(order, shape):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    axes = ["HWC".index(axis) for axis in order if axis != "N"]
    image = pixels.transpose(axes)
    given = np.stack([image, np.zeros_like(image)]) if "N" in order else image
    assert given.shape == shape
    picture = to_media(Image(torch.as_tensor(given.copy()), order))
    assert isinstance(picture, Picture)
    np.testing.assert_array_equal(picture.pixels, pixels)


def test_grey_images_and_fractions_become_colours():
    picture = to_media(Image(np.array([[0.0, 1.0]]), "HW"))
    assert picture.pixels.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_figures_become_pictures():
    figure = plt.figure(figsize=(2, 1), dpi=50, facecolor=(1, 0, 0))
    picture = to_media(Figure(figure, close=True))
    plt.close(figure)
    assert picture.pixels.shape == (50, 100, 3)
    assert (picture.pixels[0, 0] == [255, 0, 0]).all()
