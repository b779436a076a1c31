"""Pytest plug-in: put another class in the place of one of SB3's algorithms and write down what became of each test.

Loaded with ``-p sb3_swap`` before the tests are collected, so that what they import, parametrise over and compare with
``==`` under the name in ``SB3_SWAP_TARGET`` ("stable_baselines3:PPO") is the class named in ``SB3_SWAP_CLASS``
("module:Class"). Outcomes go to the file named in ``SB3_SWAP_REPORT``.
"""

import json
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

_module, _name = os.environ["SB3_SWAP_CLASS"].split(":")
_class = getattr(import_module(_module), _name)
_target_module, _target_name = os.environ["SB3_SWAP_TARGET"].split(":")


class _Recorder:
    def __init__(self) -> None:
        self.current = ""
        self.built: set[str] = set()
        self.results: dict[str, tuple[str, str]] = {}


_recorder = _Recorder()
_init = _class.__init__


def _recording_init(self: Any, *args: Any, **kwargs: Any) -> None:
    _recorder.built.add(_recorder.current)
    _init(self, *args, **kwargs)


_recording_init.__wrapped__ = _init  # keep the signature that inspect.signature shows
_class.__init__ = _recording_init
setattr(import_module(_target_module), _target_name, _class)


def _canonical(nodeid: str) -> str:
    return nodeid.replace(_name, _target_name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Remember which test is running."""
    _recorder.current = _canonical(item.nodeid)
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the call's outcome, or that of set-up or tear-down where it was worse."""
    if report.when == "call" or report.outcome != "passed":
        message = report.longreprtext[-3000:] if report.failed else ""
        _recorder.results[_canonical(report.nodeid)] = (report.outcome, message)


def pytest_sessionfinish() -> None:
    """Write the outcomes."""
    outcomes = {
        name: {"result": result, "built": name in _recorder.built, "message": message}
        for name, (result, message) in sorted(_recorder.results.items())
    }
    Path(os.environ["SB3_SWAP_REPORT"]).write_text(json.dumps(outcomes))
