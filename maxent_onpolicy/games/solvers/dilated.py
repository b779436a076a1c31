"""The dilated softmax: responses and updates of games in sequence form, compiled."""

import numpy as np

from maxent_onpolicy.games import treeplex
from maxent_onpolicy.games.compiled import njit
from maxent_onpolicy.games.evaluation import Evaluation
from maxent_onpolicy.games.sequence_form import Behaviours, SequenceFormGame
from maxent_onpolicy.games.solvers.core import VARIANTS, DualState, Pair, Variant, from_arrays, to_arrays
from maxent_onpolicy.games.solvers.newton import NewtonSteps
from maxent_onpolicy.games.treeplex import Payoff, Treeplex, Vector

Trees = tuple[Treeplex, Treeplex]
Payoffs = tuple[Payoff, Payoff]
Vectors = tuple[Vector, Vector]
_CAUTION = 0.3
_ROUNDS = 6
_LARGEST = 5000  # sequences: dense matrices of their square, a second a step


class DilatedResponse:
    """Responses in a game in sequence form; strategies are realisation plans.

    Args:
        game: to be solved. Its symmetries are left out while solving and put back in what comes out.
    """

    def __init__(self, game: SequenceFormGame) -> None:
        self.whole = game
        self.game = game.reduced.game
        self._newton: NewtonSteps | None = None
        self._probe = np.random.default_rng(0).normal(size=self.game.trees[0].n_sequences)

    def start(self) -> DualState:
        """Return the state in which both players have seen nothing and play the plan of most (dilated) entropy."""
        return DualState(self._zeros(), self._zeros(), self._zeros())

    def respond(self, dual: Pair) -> Pair:
        """Return realisation plans."""
        return self._responses(dual)[1]

    def gradients(self, strategies: Pair) -> Pair:
        """Return what each sequence earns."""
        found = self._zeros()
        for player in range(2):
            treeplex.multiply(self.game.payoffs[player], strategies[1 - player], found[player])
        return found

    def advance(self, state: DualState, iterations: int, eta: float, tau: float, variant: Variant) -> DualState:
        """:func:`~maxent_onpolicy.games.solvers.core.advance` in one compiled loop, in place."""
        _advance(
            self.game.trees,
            self.game.payoffs,
            state.dual,
            state.gradient,
            state.total,
            iterations,
            eta,
            tau,
            VARIANTS.index(variant),
        )
        for tree, dual in zip(self.game.trees, state.dual, strict=True):
            treeplex.recentre(tree, dual)
        return state

    def learn(self, strategies: Pair, eta: float, tau: float) -> None:
        """Nothing: payoffs are known."""

    def bound(self, tau: float) -> float:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError("no step size is proved for games in sequence form; give eta='auto' or a number")

    def suggested_eta(self, state: DualState, tau: float) -> float:
        """Return a step size for which optimistic updates are stable near the current strategies.

        It is 0.3 divided by :meth:`strength`, which falls as strategies become sharper, and grows nowhere above the
        payoffs' own size.
        """
        return _CAUTION / max(self.strength(state), 1e-12)

    def strength(self, state: DualState) -> float:
        """Return how strongly the players' responses depend on each other at the current strategies.

        It is the largest singular value of the payoffs between the responses' derivatives, found by power iteration
        that goes on from where it was.
        """
        behaviours, plans = self._responses(state.dual)
        return float(_dependence(self.game.trees, self.game.payoffs, behaviours, plans, self._probe, _ROUNDS))

    def accelerate(self, state: DualState, tau: float) -> None:
        """Move the state to where Newton steps lead, if they make the QRE gap smaller.

        Raises:
            ValueError: if the game is too large for the dense systems of Newton's method.
        """
        if self._newton is None:
            largest = max(tree.n_sequences for tree in self.game.trees)
            if largest > _LARGEST:
                raise ValueError(
                    f"acceleration='newton' is for up to {_LARGEST} sequences, {self.whole.name} has {largest}"
                )
            self._newton = NewtonSteps(self.game)
        dual, steps = self._newton.solve(state.dual, tau)
        if steps and self.evaluate(dual, tau).qre_gap < self.evaluate(state.dual, tau).qre_gap:
            state.dual, state.gradient = dual, self.gradients(self.respond(dual))

    def policy(self, dual: Pair) -> Pair:
        """Return the probabilities of actions by information state, in the whole game."""
        return self._exported(self._responses(dual)[0])

    def average_policy(self, state: DualState) -> Pair:
        """Return the behaviours of the average realisation plan, by information state."""
        return self._exported(self._averages(state))

    def evaluate(self, dual: Pair, tau: float) -> Evaluation:
        """Measure the responses to ``dual``; without the symmetries, which changes nothing."""
        return self.game.evaluate(self._responses(dual)[0], tau)

    def evaluate_average(self, state: DualState, tau: float) -> Evaluation:
        """Measure the average realisation plans."""
        return self.game.evaluate(self._averages(state), tau)

    def to_arrays(self, state: DualState) -> dict[str, np.ndarray]:
        """Return what is needed to go on."""
        return to_arrays(state) | {"probe": self._probe}

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> DualState:
        """Return the state that was saved."""
        self._probe = arrays["probe"]
        return from_arrays(arrays, np.ascontiguousarray)

    def _exported(self, behaviours: Behaviours) -> Pair:
        return self.whole.table(self.whole.reduced.lift(behaviours))

    def _responses(self, dual: Pair) -> tuple[Vectors, Vectors]:
        behaviours, plans = self._zeros(), self._zeros()
        for player, tree in enumerate(self.game.trees):
            treeplex.respond(tree, dual[player], behaviours[player], plans[player], np.empty(tree.n_sequences))
        return behaviours, plans

    def _averages(self, state: DualState) -> Vectors:
        found = self._zeros()
        for player, tree in enumerate(self.game.trees):
            treeplex.fill_behaviour(tree, state.total[player], found[player])
        return found

    def _zeros(self) -> Vectors:
        first, second = self.game.trees
        return np.zeros(first.n_sequences), np.zeros(second.n_sequences)


@njit
def _advance(
    trees: Trees,
    payoffs: Payoffs,
    dual: Vectors,
    gradient: Vectors,
    total: Vectors,
    iterations: int,
    eta: float,
    tau: float,
    variant: int,
) -> None:
    keep = 1.0 - eta * tau
    point = (np.empty_like(dual[0]), np.empty_like(dual[1]))
    plan = (np.empty_like(dual[0]), np.empty_like(dual[1]))
    behaviour = (np.empty_like(dual[0]), np.empty_like(dual[1]))
    work = (np.empty_like(dual[0]), np.empty_like(dual[1]))
    for _ in range(iterations):
        if variant > 0:
            for player in range(2):
                treeplex.respond(trees[player], dual[player], behaviour[player], plan[player], work[player])
            for player in range(2):
                treeplex.multiply(payoffs[player], plan[1 - player], gradient[player])
        if variant < 2:
            for player in range(2):
                point[player][:] = keep * dual[player] + eta * gradient[player]
                treeplex.respond(trees[player], point[player], behaviour[player], plan[player], work[player])
            for player in range(2):
                treeplex.multiply(payoffs[player], plan[1 - player], gradient[player])
        for player in range(2):
            dual[player][:] = keep * dual[player] + eta * gradient[player]
            total[player][:] += plan[player]


@njit
def _dependence(trees: Trees, payoffs: Payoffs, behaviour: Vectors, plan: Vectors, probe: Vector, rounds: int) -> float:
    moved = (np.empty_like(plan[0]), np.empty_like(plan[1]))
    answer = np.empty_like(plan[1])
    length = 0.0
    for _ in range(rounds):
        treeplex.respond_derivative(trees[0], behaviour[0], plan[0], probe, moved[0])
        treeplex.multiply(payoffs[1], moved[0], answer)
        treeplex.respond_derivative(trees[1], behaviour[1], plan[1], answer, moved[1])
        treeplex.multiply(payoffs[0], moved[1], probe)
        length = np.sqrt(np.dot(probe, probe))
        if length == 0.0:
            probe[:] = 1.0
            return 0.0
        probe /= length
    return np.sqrt(length)
