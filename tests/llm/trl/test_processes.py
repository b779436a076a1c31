"""Two processes that train together: the same model and critic on both, own completions, and exact resume."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from trl_helpers import make_tokenizer, many_a

HERE = Path(__file__).parent
Result = dict[str, Any]
pytestmark = pytest.mark.slow


def run(folder: Path, way: str, checkpoint: Path | None = None) -> list[Result]:
    """Train with two processes; return what each ends with."""
    folder.mkdir()
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    more = [checkpoint] if checkpoint is not None else []
    done = subprocess.run(
        [*launcher, HERE / "train_rank.py", folder, way, *more],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(folder / f"rank {rank} of 2.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Result]]:
    folder = tmp_path_factory.mktemp("processes") / "whole"
    return folder, run(folder, "sampled")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_both_end_with_the_same_finite_model_and_critic(together: tuple[Path, list[Result]]) -> None:
    first, second = together[1]
    for part in ("model", "critic"):
        assert_same(first[part], second[part])
        assert all(torch.isfinite(value).all() for value in first[part].values())
    assert len(first["losses"]) == 4
    assert torch.isfinite(torch.tensor(first["losses"])).all()


def test_each_has_its_own_completions_with_their_rewards_and_groups(together: tuple[Path, list[Result]]) -> None:
    tokenizer = make_tokenizer()
    for result in together[1]:
        for batch in result["noted"]:
            rows = zip(batch["completion_ids"], batch["completion_mask"].bool(), strict=True)
            texts = [tokenizer.decode(ids[own], skip_special_tokens=True) for ids, own in rows]
            assert batch["entropy_control_reward"].tolist() == pytest.approx(many_a(texts))
            same = (batch["prompt_ids"].unsqueeze(0) == batch["prompt_ids"].unsqueeze(1)).all(-1)
            group = batch["entropy_control_group"]
            assert same[group.unsqueeze(0) == group.unsqueeze(1)].all()
            assert len(group.unique()) == 2
    first, second = ([batch["completion_ids"].tolist() for batch in result["noted"]] for result in together[1])
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_they_go_on_exactly(together: tuple[Path, list[Result]], tmp_path: Path) -> None:
    folder, whole = together
    again = run(tmp_path / "again", "sampled", folder / "checkpoint-2")
    for through, resumed in zip(whole, again, strict=True):
        for part in ("model", "critic"):
            assert_same(through[part], resumed[part])
        assert through["methods"] == resumed["methods"]


def test_one_without_tokens_of_its_own_does_not_keep_the_other_waiting(tmp_path: Path) -> None:
    first, second = run(tmp_path / "empty", "sometimes empty")
    for part in ("model", "critic"):
        assert_same(first[part], second[part])
        assert all(torch.isfinite(value).all() for value in first[part].values())
