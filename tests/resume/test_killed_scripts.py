"""Scripts that train with ``CheckpointCallback``: killed, started again, and compared with one left alone."""

import re
import signal
from pathlib import Path

import pytest
from killing import HERE, KillServer, contents, differences

from maxent_onpolicy import PPO
from maxent_onpolicy.callbacks import CheckpointCallback

pytestmark = pytest.mark.timeout(900)
GUIDE = HERE.parents[1] / "docs" / "guide" / "saving.md"
ROLLOUT = 4 * 64


def example() -> str:
    """The script of the guide, with little to do and a checkpoint before every rollout."""
    (script,) = re.findall(r"```python\n(from pathlib.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    for old, new in (
        ("TOTAL = 1_000_000", f"TOTAL = {6 * ROLLOUT}"),
        ("n_steps=256", 'n_steps=64, n_epochs=2, device="cpu"'),
        ("every_seconds=60", "every_seconds=0"),
    ):
        assert script.count(old) == 1
        script = script.replace(old, new)
    return script


def start(server: KillServer, folder: Path, cut: int | None = None) -> tuple[int, int]:
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(example(), encoding="utf-8")
    return server.start(folder, "script.py", cut=cut).wait()


@pytest.mark.slow
def test_the_guides_example_survives_kills(server: KillServer, tmp_path: Path) -> None:
    status, touched = start(server, tmp_path / "whole")
    assert status == 0, (tmp_path / "whole" / "log.txt").read_text()
    expected = contents(tmp_path / "whole" / "checkpoint.zip")
    assert expected["data"]["num_timesteps"] == str(6 * ROLLOUT)
    killed = tmp_path / "killed"
    assert start(server, killed, touched // 2)[0] == -signal.SIGKILL
    assert start(server, killed)[0] == 0, (killed / "log.txt").read_text()
    assert differences(expected, contents(killed / "checkpoint.zip")) == []
    assert start(server, killed)[0] == 0, "nothing is left to do"
    assert differences(expected, contents(killed / "checkpoint.zip")) == []
    assert sorted(path.name for path in killed.iterdir()) == ["checkpoint.zip", "log.txt", "script.py"]


def trained(callback: CheckpointCallback, rollouts: int = 4) -> PPO:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    return model.learn(32 * rollouts, callback=callback)


def test_checkpoints_are_written_when_they_are_due(tmp_path: Path) -> None:
    trained(CheckpointCallback(tmp_path / "by_steps", every_steps=40, keep=9))
    assert names(tmp_path) == ["by_steps-128.zip", "by_steps-64.zip", "by_steps.zip"]
    assert (tmp_path / "by_steps.zip").read_bytes() == (tmp_path / "by_steps-128.zip").read_bytes()


def test_only_the_end_is_written_when_nothing_is_due_before(tmp_path: Path) -> None:
    trained(CheckpointCallback(tmp_path / "deep" / "by_time.zip", every_seconds=1000))
    assert names(tmp_path / "deep") == ["by_time.zip"]
    assert PPO.load(tmp_path / "deep" / "by_time", device="cpu").num_timesteps == 128


def test_as_many_are_kept_as_asked_for(tmp_path: Path) -> None:
    (tmp_path / "m-999.zip").write_bytes(b"of another training")
    (tmp_path / "m-first.zip").write_bytes(b"of the user")
    (tmp_path / ".m-abcdefgh.zip").write_bytes(b"half of one")
    trained(CheckpointCallback(tmp_path / "m.zip", every_seconds=0, keep=2))
    assert names(tmp_path) == ["m-128.zip", "m-96.zip", "m-999.zip", "m-first.zip", "m.zip"]


def test_a_training_stopped_within_a_rollout_keeps_the_checkpoint_before_it(tmp_path: Path) -> None:
    class Stopping(CheckpointCallback):
        every_step = True

        def _on_step(self) -> bool:
            return self.num_timesteps < 70

    trained(Stopping(tmp_path / "m", every_seconds=0))
    assert PPO.load(tmp_path / "m", device="cpu").num_timesteps == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_seconds": -1.0}, r"`every_seconds` must be in \[0, inf\), got -1.0"),
        ({"every_steps": 0}, r"`every_steps` must be in \[1, inf\), got 0"),
        ({"keep": 0}, r"`keep` must be in \[1, inf\), got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CheckpointCallback(tmp_path / "m", **arguments)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
