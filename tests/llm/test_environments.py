"""Environments: splits that share nothing, the same games from the same seeds, oracles that win, errors that help."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from word_game import WordTasks

from maxent_onpolicy.llm.environments import SPLITS, list_tasks, make_tasks
from maxent_onpolicy.llm.environments.base import content_key, select, split_of
from maxent_onpolicy.llm.environments.textworld import TextWorldEnvironment, TextWorldTasks, tidy


def texts() -> Any:
    """Tasks that repeat after 40."""
    number = 0
    while True:
        text = f"task {number % 40}"
        yield text, content_key(text)
        number += 1


def test_splits_take_every_content_once_and_share_none() -> None:
    found: dict[str, list[str]] = {split: [] for split in SPLITS}

    def take(split: str) -> None:
        for task, _ in select(split, texts()):
            found[split].append(task)

    for split in SPLITS:
        with pytest.raises(ValueError, match=f"`{split}` asks for more tasks"):
            take(split)

    everything = [task for tasks in found.values() for task in tasks]
    assert sorted(everything) == sorted({f"task {number}" for number in range(40)})
    assert min(map(len, found.values())) > 0


def test_known_tasks_are_not_drawn_again() -> None:
    first, key = next(select("train", texts()))

    assert next(select("train", texts(), [key]))[0] != first


def test_half_of_all_tasks_are_for_training() -> None:
    drawn = [split_of(content_key(str(number))) for number in range(4000)]

    shares = [drawn.count(split) / len(drawn) for split in SPLITS]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.03)


@pytest.mark.parametrize("task_id", ["train/4", "train/-1", "train/01", "validation/0", "training/0", "train", 3])
def test_unknown_tasks_are_named(task_id: Any) -> None:
    with pytest.raises(ValueError, match="`task_id` must be one of 'train/0' to 'train/3', 'test/0' to 'test/3'; got"):
        WordTasks().locate(task_id)


def test_ids_lead_back_to_split_and_number() -> None:
    tasks = WordTasks()

    assert [tasks.locate(name) for name in tasks.ids("test")] == [("test", number) for number in range(4)]
    with pytest.raises(ValueError, match=r"`split` must be one of .* \(did you mean 'train'\?\)"):
        tasks.ids("trian")


# TextWorld


def test_games_are_the_same_from_the_same_seed(text_games: Any, tmp_path: Path) -> None:
    again = TextWorldTasks(train=1, validation=0, test=0, seed=6, folder=tmp_path)
    again.prepare(progress_bar=False)

    assert again.keys("train") == text_games.keys("train")[:1]
    more = TextWorldTasks(train=2, validation=0, test=0, seed=6, folder=tmp_path)
    more.prepare(progress_bar=False)
    assert more.keys("train") == text_games.keys("train")
    with again.environment() as one, text_games.environment() as other:
        assert one.reset("train/0") == other.reset("train/0")


def test_no_game_is_in_two_splits(text_games: Any) -> None:
    keys = {split: text_games.keys(split) for split in SPLITS}

    assert [len(found) for found in keys.values()] == [2, 1, 1]
    assert len({key for found in keys.values() for key in found}) == 4
    assert all(split_of(key) == split for split, found in keys.items() for key in found)


def test_games_are_generated_once(text_games: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextWorldTasks, "_candidates", lambda *_: iter(()))
    again = TextWorldTasks(train=2, validation=1, test=1, seed=6, folder=text_games.folder)
    again.prepare(progress_bar=False)

    assert [again.path(name) for name in again.ids("train")] == [text_games.path(name) for name in again.ids("train")]
    assert [path.name for path in sorted(again.path("train/0").parent.iterdir())] == [
        f"0000{number}.{ending}" for number in range(2) for ending in ("json", "note.json", "z8")
    ]


def test_words_can_be_fewer(text_games: Any, tmp_path: Path) -> None:
    plain = TextWorldTasks(1, 0, 0, theme="basic", adjectives=False, seed=6, folder=tmp_path)
    with plain.environment() as brief, text_games.environment() as wordy:
        told = brief.reset("train/0")
        assert len(told) < len(wordy.reset("train/0"))
        assert re.search(r"-= Room\d+ =-", told)
        assert not re.search(r"adj\d", told)
        for command in brief.oracle():
            brief.step(command)
        assert brief.won
    with pytest.raises(ValueError, match=r"`theme` must be one of .* \(did you mean 'basic'\?\)"):
        TextWorldTasks(theme="basics")


@pytest.mark.slow
def test_games_that_the_oracle_loses_are_left_out(
    text_games: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = iter([False, True])
    monkeypatch.setattr(TextWorldEnvironment, "won", property(lambda _: next(judged)))
    games = TextWorldTasks(train=1, validation=0, test=0, seed=6, folder=tmp_path)
    games.prepare(progress_bar=False)

    assert games.keys("train") == text_games.keys("train")[1:]
    assert next(judged, None) is None


def test_games_are_kept_below_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert TextWorldTasks().folder == tmp_path / "maxent_onpolicy" / "text_games"
    assert list(tmp_path.iterdir()) == []


def test_the_oracle_wins_its_games(text_games: Any) -> None:
    with text_games.environment() as environment:
        for task_id in [name for split in SPLITS for name in text_games.ids(split)]:
            environment.reset(task_id)
            assert not environment.won
            rewards, done = [], False
            while not done:
                command = environment.oracle()[0]
                assert command in environment.admissible
                _, reward, done = environment.step(command)
                rewards.append(reward)
            assert environment.won
            assert sum(rewards) == pytest.approx(1.0)
            assert environment.oracle() == []
            with pytest.raises(RuntimeError, match="call `reset` first"):
                environment.step("look")


def test_the_oracle_finds_its_way_back(text_games: Any) -> None:
    opposite = {"go north": "go south", "go south": "go north", "go east": "go west", "go west": "go east"}
    tried = 0
    with text_games.environment() as environment:
        for task_id in [name for split in SPLITS for name in text_games.ids(split)]:
            environment.reset(task_id)
            for way in [each for each in environment.admissible if each in opposite]:
                needed = environment.oracle()
                environment.step(way)
                expected = needed[1:] if needed[0] == way else [opposite[way], *needed]
                assert environment.oracle() == expected
                environment.step(opposite[way])
                assert environment.oracle() == needed
                tried += 1
    assert tried > 0


@pytest.mark.parametrize(
    "command",
    ["quit", "restart", "save", "undo", "script", "", "  ", "x" * 5000, "look" * 50, "look. look", "look\nlook",
     "look then look", "take é\x00", "tw-trace-actions"],
)  # fmt: skip
def test_commands_that_are_none_of_the_games_change_nothing(text_games: Any, command: str) -> None:
    with text_games.environment() as environment:
        environment.reset("train/0")
        before = environment.admissible

        assert environment.step(command) == ("You do not know how to do that.", 0.0, False)
        assert environment.admissible == before


def test_observations_are_tidy(text_games: Any) -> None:
    assert (
        tidy("\n\n-= Attic =-\nIt is  cold.\n\n\n\nA box.\n\n>       -= Attic =-0/1")
        == "-= Attic =-\nIt is cold.\nA box."
    )
    with text_games.environment() as environment:
        first = environment.reset("train/0")
        looked, _, _ = environment.step("look")

    assert "$$" not in first
    assert first.endswith(looked)


def test_worlds_without_a_quest_are_not_searched_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = pytest.importorskip("textworld.generator")

    def fail(_: Any) -> None:
        raise generator.QuestGenerationError("none")

    monkeypatch.setattr(generator, "make_game", fail)
    with pytest.raises(ValueError, match="`quest_length`: 50 worlds in a row had no quest of 9 commands"):
        TextWorldTasks(quest_length=9, folder=tmp_path).prepare(progress_bar=False)


# reasoning-gym


@pytest.fixture(scope="module")
def sums() -> Any:
    pytest.importorskip("reasoning_gym")
    return make_tasks("reasoning_gym", dataset="chain_sum", train=6, validation=3, test=3)


def test_right_answers_have_the_full_score(sums: Any) -> None:
    with sums.environment() as environment:
        for task_id in sums.ids("test"):
            assert environment.reset(task_id) == sums.question(task_id)
            (answer,) = environment.oracle()
            assert environment.step(answer) == ("", 1.0, True)
            assert environment.won
            assert environment.oracle() == []
            with pytest.raises(RuntimeError, match="call `reset` first"):
                environment.step(answer)
            environment.reset(task_id)
            assert environment.step("none")[1] < 1.0
            assert not environment.won


def test_questions_follow_from_the_seed_and_splits_share_none(sums: Any) -> None:
    def questions(seed: int) -> list[str]:
        tasks: Any = make_tasks("reasoning_gym", dataset="chain_sum", train=6, validation=3, test=3, seed=seed)
        return [tasks.question(name) for split in SPLITS for name in tasks.ids(split)]

    assert questions(0) == [sums.question(name) for split in SPLITS for name in sums.ids(split)]
    assert len(set(questions(0))) == 12
    assert questions(1) != questions(0)


def test_wrong_settings_of_a_data_set_are_named() -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(ValueError, match=r"`dataset`: .*'leg_countin' \(did you mean 'leg_counting'\?\)"):
        make_tasks("reasoning_gym", dataset="leg_countin")
    with pytest.raises(ValueError, match=r"`settings` of leg_counting: .*'legs'"):
        make_tasks("reasoning_gym", dataset="leg_counting", legs=3)
    with pytest.raises(ValueError, match="`settings` of leg_counting: min_animals must be positive"):
        make_tasks("reasoning_gym", dataset="leg_counting", min_animals=0)


# ScienceWorld and the registry


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("textworld", {"name": "textworld"}, "textworld: pip install 'maxent-onpolicy\\[llm\\]'"),
        ("reasoning_gym", {"name": "reasoning_gym", "dataset": "chain_sum"}, "reasoning_gym: pip install"),
        ("scienceworld", {"name": "scienceworld", "names": ["boil"]}, "'maxent-onpolicy\\[llm-scienceworld\\]'.*Java"),
    ],
)
def test_missing_packages_are_named(
    module: str, arguments: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    if module == "textworld":
        arguments = {**arguments, "folder": tmp_path}
    with pytest.raises(ImportError, match=message):
        make_tasks(**arguments).environment().reset("train/0")


def test_a_missing_java_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scienceworld", SimpleNamespace())
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ImportError, match=r"finds no Java\. It runs on Java 8 or later"):
        make_tasks("scienceworld", names=["boil"])


@pytest.mark.slow
def test_the_oracle_wins_in_scienceworld() -> None:
    pytest.importorskip("scienceworld")
    tasks: Any = make_tasks("scienceworld", names="find-living-thing", train=1, validation=1, test=1)
    assert len({tasks.variation(f"{split}/0") for split in SPLITS}) == 3
    with tasks.environment() as environment:
        environment.reset("test/0")
        rewards, done = [], False
        while not done:
            command = environment.oracle()[0]
            _, reward, done = environment.step(command)
            rewards.append(reward)
        assert environment.won
        assert sum(rewards) == pytest.approx(1.0)
        environment.reset("train/0")
        environment.step("wait")
        assert environment.oracle() == []
    with pytest.raises(ValueError, match=r"no task 'find-livin-thing' \(did you mean 'find-living-thing'"):
        make_tasks("scienceworld", names=["find-livin-thing"])


def test_names_and_arguments_are_checked() -> None:
    assert [name for name, _ in list_tasks()] == ["textworld", "scienceworld", "reasoning_gym"]
    with pytest.raises(ValueError, match=r"`name` must be one of .* \(did you mean 'textworld'\?\)"):
        make_tasks("text_world")
    with pytest.raises(ValueError, match=r"textworld has no argument 'room' \(did you mean 'rooms'\?\)"):
        make_tasks("textworld", room=3)
    with pytest.raises(ValueError, match="reasoning_gym needs the argument 'dataset'"):
        make_tasks("reasoning_gym")
    with pytest.raises(ValueError, match="`rooms` must be in"):
        make_tasks("textworld", rooms=0)
    with pytest.raises(ValueError, match="`test` must be in"):
        make_tasks("textworld", test=-1)
