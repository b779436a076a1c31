"""TextWorld: text adventures that are generated here, each with a quest and an oracle (arXiv:1806.11532)."""

import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from maxent_onpolicy.llm.environments.base import (
    SPLITS,
    TaskSet,
    TextEnvironment,
    cache_directory,
    content_key,
    require,
    select,
)
from maxent_onpolicy.validation import check_choice, check_integer

_INFOS = ("feedback", "objective", "description", "admissible_commands", "policy_commands", "verbs")
_INFOS_OF_SCORE = ("score", "max_score", "won", "lost")
# The interpreter breaks off at overlong lines and odd characters; "then" and full stops are several commands in one.
_COMMAND = re.compile(r"[A-Za-z0-9' -]{1,100}")
_MAX_FAILURES = 50
#: Grammars that the generator has.
THEMES = ("house", "basic")
_NOT_UNDERSTOOD = "You do not know how to do that."


class TextWorldTasks(TaskSet):
    """Games of TextWorld, generated from a seed and kept in a folder; about a second each.

    A game's content decides to which split it belongs, so no two splits share a game, whatever the seeds. A split's
    first games stay the same when more are asked for.

    Args:
        train: how many games there are for training.
        validation: how many for choosing.
        test: how many for the last word.
        rooms: of a game.
        objects: of a game, those that the quest needs included.
        quest_length: commands that the quest needs, at most.
        theme: of texts: ``"house"``, which is wordy, or ``"basic"``, in which things are called such as box4.
        adjectives: whether things have any, such as a rusty box.
        seed: of the generator.
        folder: where games are kept; below the user's cache directory if not given.

    Raises:
        ValueError: if a number is too small.
    """

    def __init__(
        self,
        train: int = 64,
        validation: int = 16,
        test: int = 16,
        *,
        rooms: int = 2,
        objects: int = 3,
        quest_length: int = 2,
        theme: str = "house",
        adjectives: bool = True,
        seed: int = 0,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(train, validation, test)
        self.rooms = check_integer("rooms", rooms, 1)
        self.objects = check_integer("objects", objects, 1)
        self.quest_length = check_integer("quest_length", quest_length, 1)
        self.theme = check_choice("theme", theme, THEMES)
        self.adjectives = bool(adjectives)
        self.seed = check_integer("seed", seed, 0)
        self.folder = Path(folder) if folder is not None else cache_directory() / "text_games"
        self._ready: set[str] = set()

    def environment(self) -> "TextWorldEnvironment":
        """Return a new environment that plays these games."""
        return TextWorldEnvironment(self)

    def prepare(self, *splits: str, progress_bar: bool = True) -> None:
        """Generate the games that are not there yet.

        Args:
            *splits: which; all if none is given.
            progress_bar: whether to show one.

        Raises:
            ImportError: if TextWorld is not installed.
            ValueError: if there is no such split, or games of this size are fewer than were asked for.
        """
        for split in splits or SPLITS:
            wanted = len(self.ids(split))
            there = self._keys(split)
            last = there[-1][0] if there else -1
            found = select(split, self._candidates(split, last + 1), [key for _, key in there])
            with tqdm(total=wanted, initial=min(len(there), wanted), desc=f"TextWorld, {split}",
                      unit="game", disable=not progress_bar or len(there) >= wanted) as bar:  # fmt: skip
                number = len(there)
                while number < wanted:
                    (draw, options, game), key = next(found)
                    if self._compile(split, number, game, options, {"draw": draw, "key": key}):
                        number += 1
                        bar.update()
            self._ready.add(split)

    def path(self, task_id: str) -> Path:
        """Return a game's file; its split is generated first if it is not there.

        Raises:
            ImportError: if TextWorld is not installed.
            ValueError: if there is no such game.
        """
        split, number = self.locate(task_id)
        if split not in self._ready:
            self.prepare(split)
        return self._file(split, number, "z8")

    def keys(self, split: str) -> tuple[str, ...]:
        """Return what tells a split's games from others: digests of their worlds and quests."""
        self.prepare(split)
        return tuple(key for _, key in self._keys(split))[: self.sizes[split]]

    def _file(self, split: str, number: int, ending: str) -> Path:
        version = require("textworld", "llm").__version__
        words = ("" if self.theme == "house" else f"-{self.theme}") + ("" if self.adjectives else "-plain")
        settings = f"textworld-{version}-r{self.rooms}-o{self.objects}-q{self.quest_length}{words}-seed{self.seed}"
        return self.folder / settings / split / f"{number:05d}.{ending}"

    def _keys(self, split: str) -> list[tuple[int, str]]:
        """Draw and key of the games that are there; a game's note is written last, so it stands for all its files."""
        found: list[tuple[int, str]] = []
        while (note := self._file(split, len(found), "note.json")).is_file():
            written = json.loads(note.read_text())
            found.append((written["draw"], written["key"]))
        return found

    def _candidates(self, split: str, first: int) -> Iterator[tuple[tuple[int, Any, Any], str]]:
        """Yield games without end: number of the draw, options and game, and the digest of its world and quest."""
        textworld = require("textworld", "llm")
        generator, inform7 = require("textworld.generator", "llm"), require("textworld.generator.inform7", "llm")
        failure = require("textworld.generator.chaining", "llm").QuestGenerationError
        # Reading the rules takes ten times as long as making a game, which leaves them as they are.
        rules = require("textworld.generator.data", "llm").KnowledgeBase.load()
        draw, failures = first, 0
        while failures < _MAX_FAILURES:
            options = textworld.GameOptions()
            options.nb_rooms, options.nb_objects, options.quest_length = self.rooms, self.objects, self.quest_length
            options.kb = rules
            options.grammar.theme, options.grammar.include_adj = self.theme, self.adjectives
            options.seeds = _seed(self.seed, split, draw)
            try:
                game = generator.make_game(options)
            except failure:  # some worlds have no quest of this length
                failures += 1
            else:
                failures = 0
                readable = inform7.Inform7Game(game).get_human_readable_fact
                facts = sorted(str(readable(fact)) for fact in game.world.facts)
                yield (draw, options, game), content_key(json.dumps([facts, game.walkthrough]))
            draw += 1
        raise ValueError(
            f"`quest_length`: {_MAX_FAILURES} worlds in a row had no quest of {self.quest_length} commands; "
            f"ask for a shorter one, or for more than {self.rooms} rooms and {self.objects} objects"
        )

    def _compile(self, split: str, number: int, game: Any, options: Any, note: dict[str, Any]) -> bool:
        """Compile a game elsewhere and move it into place, so that no other process sees half of it.

        Returns:
            False if its oracle does not win: two things can have names that the interpreter cannot tell apart.
        """
        generator = require("textworld.generator", "llm")
        target = self._file(split, number, "z8")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as made:
            options.path = str(Path(made) / target.name)
            generator.compile_game(game, options)
            with self.environment() as environment:
                environment.open(options.path)
                commands, over = environment.oracle(), False
                while commands and not over:
                    _, _, over = environment.step(commands.pop(0))
                if not environment.won:
                    return False
            Path(made, f"{target.stem}.note.json").write_text(json.dumps(note))
            for ending in ("json", "z8", "note.json"):
                name = f"{target.stem}.{ending}"
                os.replace(Path(made) / name, target.parent / name)
        return True


class TextWorldEnvironment(TextEnvironment):
    """Plays games of TextWorld.

    The first observation is the quest and the room. Only commands whose first word is a verb of the game reach its
    interpreter: others would save, quit or restart it. A reward is a step's share of the game's points.

    Args:
        tasks: the games.
    """

    def __init__(self, tasks: TextWorldTasks) -> None:
        self._tasks = tasks
        self._game: Any = None
        self._state: Any = None
        self._over = True

    def reset(self, task_id: str) -> str:
        """Start a game; returns its quest and its first room."""
        return self.open(self._tasks.path(task_id))

    def open(self, path: str | Path) -> str:
        """Start a game from a file; as :meth:`reset`."""
        self.close()
        textworld = require("textworld", "llm")
        infos = textworld.EnvInfos(**dict.fromkeys((*_INFOS, *_INFOS_OF_SCORE), True))
        with warnings.catch_warnings():
            # The interpreter knows some published games by heart and says of all others that it does not.
            warnings.filterwarnings("ignore", message=".*is not fully supported")
            self._game = textworld.start(str(path), infos)
            self._state = self._game.reset()
        self._over = False
        return f"{tidy(self._state.objective)}\n{tidy(self._state.description)}"

    def step(self, command: str) -> tuple[str, float, bool]:
        """Carry out a command; see :meth:`TextEnvironment.step`."""
        if self._over:
            raise RuntimeError("no game is under way; call `reset` first")
        words = command.lower().split()
        if not words or words[0] not in self._state.verbs or "then" in words or not _COMMAND.fullmatch(command):
            return _NOT_UNDERSTOOD, 0.0, False
        before = self._state.score or 0
        self._state, _, self._over = self._game.step(command)
        return tidy(self._state.feedback), (self._state.score - before) / self._state.max_score, bool(self._over)

    @property
    def won(self) -> bool:
        """Whether the game that was started last is won."""
        return bool(self._state is not None and self._state.won)

    @property
    def admissible(self) -> tuple[str, ...]:
        """Commands that do something now."""
        return () if self._over else tuple(self._state.admissible_commands)

    def oracle(self) -> list[str]:
        """Return the commands that win from here; empty where the game can no longer be won."""
        return [] if self._over else list(self._state.policy_commands or ())

    def close(self) -> None:
        """End the interpreter."""
        if self._game is not None:
            self._game.close()
        self._game, self._over = None, True


def tidy(text: str) -> str:
    """Return what a game says without the prompt, the status line behind it and empty lines."""
    lines = (" ".join(line.split()) for line in text.split("\n>")[0].splitlines())
    return "\n".join(line for line in lines if line)


def _seed(seed: int, split: str, draw: int) -> int:
    return int(np.random.SeedSequence([seed, SPLITS.index(split), draw]).generate_state(1)[0])
