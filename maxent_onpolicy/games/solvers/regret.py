"""Regret matching⁺ and CFR⁺, the no-regret solvers that others are compared with."""

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from maxent_onpolicy.games.evaluation import Evaluation, largest
from maxent_onpolicy.games.matrix import MatrixGame
from maxent_onpolicy.games.solvers.base import Arrays, Iterate, Record, Solver
from maxent_onpolicy.validation import check_choice

Pair = tuple[Any, Any]
_STATE = ("strategy", "regret", "total")


class RegretMatchingPlus(Solver):
    """Solve a two-player zero-sum game by regret matching⁺ in every information state.

    In sequence form this is CFR⁺ (Tammelin 2014, arXiv:1407.5042): the players update in turns, and the average of all
    plans, weighted by the iteration's number, converges to a Nash equilibrium. With ``predictive=True`` it is PCFR⁺
    (Farina, Kroer, Sandholm 2021, arXiv:2007.14358): each strategy is chosen as if the last payoffs came once more, and
    the average has quadratic weights. In matrix games the same with a single decision for each player: RM⁺ and PRM⁺.

    The average is what converges, and what is returned and measured by default.

    Args:
        game: a :class:`MatrixGame`, one or a batch, or a :class:`SequenceFormGame`.
        predictive: whether to expect the last payoffs once more.
        seed: of :meth:`predict`'s random actions.

    Raises:
        TypeError: if it is another kind of game.
    """

    def __init__(self, game: Any, predictive: bool = False, seed: int | None = None) -> None:
        super().__init__(game, seed)
        self.predictive = predictive
        self._players = _make_players(game, predictive)

    def policy(self, iterate: Iterate = "average") -> Pair:
        """Return both players' strategies, shaped as :meth:`OMWU.policy` does.

        Args:
            iterate: ``"average"``, which converges; ``"midpoint"`` or ``"last"``, what would be played next.
        """
        return self._players.policy(self._average(iterate))

    def evaluate(self, iterate: Iterate = "average") -> Evaluation:
        """Measure the strategies; there is no temperature, so that ``qre_gap`` is ``nash_conv``."""
        return self._players.evaluate(self._average(iterate))

    def predict(
        self,
        observation: Any = None,
        player: int = 0,
        deterministic: bool = False,
        iterate: Iterate = "average",
    ) -> tuple[Any, None]:
        """Choose an action as :meth:`Solver.predict` does, by default from the average."""
        return super().predict(observation, player, deterministic, iterate)

    def _update(self, iterations: int) -> None:
        self._players.advance(self.iterations, iterations)

    def _check(self, progress_remaining: float) -> Record:
        found = self.evaluate()
        gap, exploitability = largest(found.nash_conv), largest(found.exploitability)
        value = float(np.mean(np.asarray(found.value)))
        return Record(self.iterations, 0.0, 0.0, 0.0, gap, gap, exploitability, value)

    def _remember(self) -> tuple[dict[str, Any], Arrays]:
        return {"predictive": self.predictive}, self._players.to_arrays()

    @classmethod
    def _recall(cls, game: Any, head: dict[str, Any], arrays: Arrays) -> Self:
        solver = cls(game, head["predictive"])
        solver._players.from_arrays(arrays)
        return solver

    def _average(self, iterate: Iterate) -> bool:
        check_choice("iterate", iterate, ("midpoint", "last", "average"))
        return iterate == "average" and self.iterations > 0


class MatrixRegrets:
    """Both players of matrix games; tensors ``[..., actions]``.

    Args:
        game: one or a batch.
        predictive: whether to expect the last payoffs once more.
    """

    def __init__(self, game: MatrixGame, predictive: bool) -> None:
        self.game = game
        self.predictive = predictive
        self.strategy = list(game.uniform())
        self.regret = [torch.zeros_like(strategy) for strategy in self.strategy]
        self.total = [torch.zeros_like(strategy) for strategy in self.strategy]

    def advance(self, done: int, iterations: int) -> None:
        """Do some updates after those that are ``done``."""
        payoff = self.game.payoff
        against = (payoff, -payoff.mT)
        for iteration in range(done + 1, done + iterations + 1):
            weight = float(iteration) ** 2 if self.predictive else float(iteration)
            for player in range(2):
                mine = self.strategy[player]
                earned = (against[player] @ self.strategy[1 - player].unsqueeze(-1)).squeeze(-1)
                self.total[player] += weight * mine
                regret = earned - (earned * mine).sum(-1, keepdim=True)
                self.regret[player] = (self.regret[player] + regret).clamp(min=0.0)
                expected = self.regret[player] + regret if self.predictive else self.regret[player]
                self.strategy[player] = _matching(expected)

    def policy(self, average: bool) -> Pair:
        """Return the average strategies, or what would be played next."""
        first, second = self.total if average else self.strategy
        return (first / first.sum(-1, keepdim=True), second / second.sum(-1, keepdim=True))

    def evaluate(self, average: bool) -> Evaluation:
        """Measure the average strategies, or what would be played next."""
        return self.game.evaluate(self.policy(average))

    def to_arrays(self) -> Arrays:
        """Return what is needed to go on."""
        return {f"{name}_{player}": getattr(self, name)[player].cpu().numpy() for name in _STATE for player in range(2)}

    def from_arrays(self, arrays: Arrays) -> None:
        """Go on from what was saved."""
        for name in _STATE:
            setattr(
                self, name, [torch.from_numpy(arrays[f"{name}_{player}"]).to(self.game.payoff) for player in (0, 1)]
            )


def _matching(regret: Tensor) -> Tensor:
    """Return the strategy proportional to the positive part of regrets, uniform where there is none."""
    positive = regret.clamp(min=0.0)
    total = positive.sum(-1, keepdim=True)
    return torch.where(total > 0.0, positive / total.where(total > 0.0, 1.0), 1.0 / regret.shape[-1])


def _make_players(game: Any, predictive: bool) -> Any:
    if isinstance(game, MatrixGame):
        return MatrixRegrets(game, predictive)
    from maxent_onpolicy.games.sequence_form import SequenceFormGame

    if not isinstance(game, SequenceFormGame):
        raise TypeError(f"`game` must be a MatrixGame or SequenceFormGame, got {type(game).__name__}")
    from maxent_onpolicy.games.solvers.counterfactual import CounterfactualRegrets

    return CounterfactualRegrets(game, predictive)
