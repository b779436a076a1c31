"""Counterfactual regrets of games in sequence form, compiled."""

import numpy as np

from maxent_onpolicy.games import treeplex
from maxent_onpolicy.games.compiled import njit
from maxent_onpolicy.games.evaluation import Evaluation
from maxent_onpolicy.games.sequence_form import Behaviours, SequenceFormGame
from maxent_onpolicy.games.treeplex import Payoff, Treeplex, Vector

Vectors = tuple[Vector, Vector]
_STATE = ("behaviour", "regret", "total")


class CounterfactualRegrets:
    """Both players of a game in sequence form; a regret for each sequence.

    Args:
        game: to be solved. Its symmetries are left out while solving and put back in what comes out.
        predictive: whether to expect the last payoffs once more.
    """

    def __init__(self, game: SequenceFormGame, predictive: bool) -> None:
        self.whole = game
        self.game = game.reduced.game
        self.predictive = predictive
        self.behaviour = self.game.uniform()
        first, second = self.game.trees
        self.regret = (np.zeros(first.n_sequences), np.zeros(second.n_sequences))
        self.total = (np.zeros(first.n_sequences), np.zeros(second.n_sequences))

    def advance(self, done: int, iterations: int) -> None:
        """Do some updates after those that are ``done``."""
        _advance(
            self.game.trees,
            self.game.payoffs,
            self.behaviour,
            self.regret,
            self.total,
            done,
            iterations,
            self.predictive,
        )

    def policy(self, average: bool) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the probabilities of actions by information state, in the whole game."""
        return self.whole.table(self.whole.reduced.lift(self._behaviours(average)))

    def evaluate(self, average: bool) -> Evaluation:
        """Measure the average plans, or what would be played next; without the symmetries, which changes nothing."""
        return self.game.evaluate(self._behaviours(average))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return what is needed to go on."""
        return {f"{name}_{player}": getattr(self, name)[player] for name in _STATE for player in range(2)}

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from what was saved."""
        for name in _STATE:
            setattr(self, name, (arrays[f"{name}_0"], arrays[f"{name}_1"]))

    def _behaviours(self, average: bool) -> Behaviours:
        if not average:
            return self.behaviour
        found = self.game.uniform()
        for tree, total, behaviour in zip(self.game.trees, self.total, found, strict=True):
            treeplex.fill_behaviour(tree, total, behaviour)
        return found


@njit
def _advance(
    trees: tuple[Treeplex, Treeplex],
    payoffs: tuple[Payoff, Payoff],
    behaviour: Vectors,
    regret: Vectors,
    total: Vectors,
    done: int,
    iterations: int,
    predictive: bool,
) -> None:
    plan = (np.empty_like(total[0]), np.empty_like(total[1]))
    earned = (np.empty_like(total[0]), np.empty_like(total[1]))
    ahead = (np.empty_like(total[0]), np.empty_like(total[1]))
    for player in range(2):
        treeplex.fill_reach(trees[player], behaviour[player], plan[player])
    for iteration in range(done + 1, done + iterations + 1):
        weight = float(iteration) ** 2 if predictive else float(iteration)
        for player in range(2):
            total[player][:] += weight * plan[player]
            treeplex.multiply(payoffs[player], plan[1 - player], earned[player])
            ahead[player][:] = earned[player]
            _match(trees[player], earned[player], ahead[player], regret[player], behaviour[player], predictive)
            treeplex.fill_reach(trees[player], behaviour[player], plan[player])


@njit
def _match(tree: Treeplex, earned: Vector, ahead: Vector, regret: Vector, behaviour: Vector, predictive: bool) -> None:
    """Add a player's regrets and write its next behaviour into ``behaviour``.

    Args:
        tree: of the player.
        earned: gradient; becomes what each sequence was worth under the old behaviour below it.
        ahead: gradient again; becomes what each would be worth under the new one.
        regret: so far, positive part.
        behaviour: old, then new.
        predictive: whether the new one expects the same gradient once more.
    """
    for state in range(len(tree.parent) - 1, -1, -1):
        first, end = tree.first[state], tree.first[state] + tree.actions[state]
        value, middle = 0.0, 0.0
        for sequence in range(first, end):
            value += behaviour[sequence] * earned[sequence]
            middle += behaviour[sequence] * ahead[sequence]
        positive = 0.0
        for sequence in range(first, end):
            regret[sequence] = max(regret[sequence] + earned[sequence] - value, 0.0)
            expected = ahead[sequence] - middle if predictive else 0.0
            behaviour[sequence] = max(regret[sequence] + expected, 0.0)
            positive += behaviour[sequence]
        hoped = 0.0
        for sequence in range(first, end):
            behaviour[sequence] = behaviour[sequence] / positive if positive > 0.0 else 1.0 / (end - first)
            hoped += behaviour[sequence] * ahead[sequence]
        earned[tree.parent[state]] += tree.copies[state] * value
        ahead[tree.parent[state]] += tree.copies[state] * hoped
