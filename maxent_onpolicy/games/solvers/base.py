"""What all solvers of games share: learning in blocks, checks between them, a history, saving."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from tqdm.auto import tqdm

from maxent_onpolicy.games.evaluation import Evaluation
from maxent_onpolicy.games.solvers.files import read_solver, write_solver
from maxent_onpolicy.validation import check_integer, check_range

Iterate = Literal["midpoint", "last", "average"]
Arrays = dict[str, np.ndarray]


class Record(NamedTuple):
    """What a check found, before τ and η were adapted; of a batch of games the worst.

    Attributes:
        iterations: done so far.
        seconds: of this process's CPU time spent so far, in updates and checks.
        tau: temperature.
        eta: step size.
        qre_gap: of the strategies played next.
        nash_conv: of the strategies played next.
        exploitability: of the strategies played next.
        value: of the strategies played next to the first player, in the mean.
    """

    iterations: int
    seconds: float
    tau: float
    eta: float
    qre_gap: float
    nash_conv: float
    exploitability: float
    value: float


Callback = Callable[[Any], bool | None]


class Solver(ABC):
    """Base of the solvers.

    Args:
        game: what is to be solved.
        seed: of :meth:`predict`'s random actions.

    Attributes:
        iterations: done so far.
        seconds: CPU time spent so far, in updates and checks.
        history: a :class:`Record` for each check.
    """

    def __init__(self, game: Any, seed: int | None = None) -> None:
        self.game = game
        self.random = np.random.default_rng(seed)
        self.iterations = 0
        self.seconds = 0.0
        self.history: list[Record] = []

    def learn(
        self,
        total_iterations: int,
        tol: float | None = None,
        callback: Callback | None = None,
        progress_bar: bool = False,
        check_every: int = 100,
    ) -> Self:
        """Update the strategies.

        Args:
            total_iterations: how many updates, counted from here.
            tol: stop once :meth:`distance` is no more than this; 0 stops where it is exactly 0, ``None`` never does.
            callback: called with the solver after each check; learning stops if it returns ``False``.
            progress_bar: show one.
            check_every: updates between checks, which also adapt τ and η.

        Raises:
            ValueError: if ``total_iterations`` or ``check_every`` is less than 1, or ``tol`` negative.
            ArithmeticError: if the strategies have become NaN, naming the step size.
        """
        check_integer("total_iterations", total_iterations, 1)
        check_integer("check_every", check_every, 1)
        if tol is not None:
            check_range("tol", tol, 0.0)
        end = self.iterations + total_iterations
        with tqdm(total=total_iterations, unit="it", unit_scale=True, disable=not progress_bar) as bar:
            while self.iterations < end:
                block = min(check_every, end - self.iterations)
                began = time.process_time()
                self._update(block)
                self.iterations += block
                found = self._check((end - self.iterations) / total_iterations)
                self.seconds += time.process_time() - began
                self.history.append(found._replace(seconds=self.seconds))
                bar.set_postfix_str(f"exploitability {found.exploitability:.1e}", refresh=False)
                bar.update(block)
                if callback is not None and callback(self) is False:
                    break
                if tol is not None and self.distance() <= tol:
                    break
        return self

    def predict(
        self,
        observation: Any = None,
        player: int = 0,
        deterministic: bool = False,
        iterate: Iterate = "midpoint",
    ) -> tuple[Any, None]:
        """Choose an action, as SB3's ``predict`` does.

        Args:
            observation: nothing in a matrix game; the state, or ``(step, state)``, in a Markov game; the information
                state's name in sequence form.
            player: who chooses, 0 or 1.
            deterministic: choose the likeliest action instead of drawing one.
            iterate: which strategies to follow.

        Returns:
            The action (an array of them for a batch), and ``None``, for there is no hidden state.

        Raises:
            ValueError: if ``player`` is neither 0 nor 1, or there is no such state.
        """
        if player not in (0, 1):
            raise ValueError(f"`player` must be 0 or 1, got {player!r}")
        probabilities, names = self.game.choices(self.policy(iterate)[player], player, observation)
        if deterministic:
            chosen = probabilities.argmax(-1)
        else:
            below = self.random.random((*probabilities.shape[:-1], 1))
            chosen = (probabilities.cumsum(-1) < below * probabilities.sum(-1, keepdims=True)).sum(-1)
        return (names[int(chosen)] if chosen.ndim == 0 else names[chosen]), None

    def save(self, path: str | Path) -> Path:
        """Write what is needed to go on, without the game; return the file's path.

        Raises:
            ValueError: if τ follows a function, which cannot be written.
        """
        head, arrays = self._remember()
        head |= {"class": type(self).__name__, "game": self.game.fingerprint, "iterations": self.iterations}
        head["seconds"] = self.seconds
        arrays["history"] = np.array(self.history, dtype=np.float64).reshape(-1, len(Record._fields))
        return write_solver(path, head, arrays)

    @classmethod
    def load(cls, path: str | Path, game: Any) -> Self:
        """Return the solver that :meth:`save` has written; it goes on as if nothing had happened.

        Args:
            path: the file.
            game: the same game.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is of another class or game.
        """
        head, arrays = read_solver(path)
        if head["class"] != cls.__name__:
            raise ValueError(f"{path} holds a solver of the class {head['class']}, not {cls.__name__}")
        if head["game"] != game.fingerprint:
            raise ValueError(f"{path} is of another game: {head['game']} and not {game.fingerprint}")
        solver = cls._recall(game, head, arrays)
        solver.iterations, solver.seconds = head["iterations"], head["seconds"]
        solver.history = [Record(int(row[0]), *row[1:]) for row in arrays["history"].tolist()]
        return solver

    def distance(self) -> float:
        """Return what ``tol`` is compared with: the exploitability at the last check."""
        return self.history[-1].exploitability

    @abstractmethod
    def policy(self, iterate: Iterate = "midpoint") -> tuple[Any, Any]:
        """Return both players' strategies."""

    @abstractmethod
    def evaluate(self, iterate: Iterate = "midpoint") -> Evaluation:
        """Measure the strategies."""

    @abstractmethod
    def _update(self, iterations: int) -> None:
        """Do some updates."""

    @abstractmethod
    def _check(self, progress_remaining: float) -> Record:
        """Measure the strategies and adapt what adapts."""

    @abstractmethod
    def _remember(self) -> tuple[dict[str, Any], Arrays]:
        """Return the settings, for JSON, and the state."""

    @classmethod
    @abstractmethod
    def _recall(cls, game: Any, head: dict[str, Any], arrays: Arrays) -> Self:
        """Return a solver with such settings and state."""
