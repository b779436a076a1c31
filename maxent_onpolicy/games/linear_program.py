"""Exact equilibria by linear programming: the reference that iterative solvers are compared with.

One program gives both players' strategies: the first player's are its variables, the second's its dual variables.
SciPy's HiGHS solves it. Sizes are those of the game, not of its normal form (von Stengel 1996, "Efficient computation
of behavior strategies").
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from maxent_onpolicy.games.matrix import MatrixGame

if TYPE_CHECKING:
    from maxent_onpolicy.games.sequence_form import SequenceFormGame
    from maxent_onpolicy.games.treeplex import Treeplex

_TOLERANCE = 1e-10  # the least that HiGHS takes


class Solution(NamedTuple):
    """A Nash equilibrium.

    Attributes:
        value: what the first player earns.
        strategies: of both players, as the game's ``evaluate`` takes them.
    """

    value: float
    strategies: tuple[Any, Any]


def solve_matrix(game: MatrixGame) -> Solution:
    """Return the value of a matrix game and strategies ``[m]`` and ``[n]`` that reach it.

    Raises:
        ImportError: without SciPy, saying what to install.
        ValueError: if it is a batch of games.
    """
    if game.batch_shape:
        raise ValueError(f"linear programs solve one matrix game at a time, got a batch {game.batch_shape}")
    m, n = game.actions
    payoff = game.payoff.detach().cpu().to(torch.float64).numpy()
    # Maximise v, where v is at most what the first player's strategy earns against each action of the second.
    found = _solve(
        np.concatenate([np.zeros(m), [-1.0]]),
        upper=np.hstack([-payoff.T, np.ones((n, 1))]),
        equal=np.concatenate([np.ones(m), [0.0]])[None],
        total=np.ones(1),
        free=1,
    )
    first, second = (
        torch.as_tensor(weights / weights.sum()).to(game.payoff)
        for weights in (found.x[:m].clip(min=0.0), (-found.ineqlin.marginals).clip(min=0.0))
    )
    return Solution(0.0 - float(found.fun), (first, second))


def solve_sequence_form(game: "SequenceFormGame") -> Solution:
    """Return the value of a game in sequence form, and behaviours of its players that reach it.

    The program is that of the game without its symmetries. Its unknowns are the first player's plan ``x`` and, for each
    information state of the second, the value ``u`` of the best that the second can do there against ``x``.

    Raises:
        ImportError: without SciPy or numba, saying what to install.
    """
    from maxent_onpolicy.games import treeplex

    sparse = _scipy("sparse")
    small = game.reduced.game
    first, second = small.trees
    start, column, value = small.payoffs[1]
    paid = sparse.csr_array((value, column, start), shape=(second.n_sequences, first.n_sequences))
    own, below = _links(second)
    found = _solve(
        np.concatenate([paid[[0]].toarray()[0], -below[[0]].toarray()[0]]),
        upper=sparse.hstack([paid[1:], (own - below)[1:]], format="csr"),
        equal=sparse.hstack([_plan_rows(first), sparse.csr_array((1 + first.n_states, second.n_states))], format="csr"),
        total=np.concatenate([[1.0], np.zeros(first.n_states)]),
        free=second.n_states,
    )
    plans = (found.x[: first.n_sequences], np.concatenate([[1.0], -found.ineqlin.marginals]))
    behaviours = []
    for tree, plan in zip(small.trees, plans, strict=True):
        behaviour = np.empty(tree.n_sequences)
        treeplex.fill_behaviour(tree, plan.clip(min=0.0), behaviour)
        behaviours.append(behaviour)
    return Solution(0.0 - float(found.fun), game.reduced.lift((behaviours[0], behaviours[1])))


def _solve(cost: np.ndarray, upper: Any, equal: Any, total: np.ndarray, free: int) -> Any:
    """Minimise ``cost·z`` with ``upper·z ≤ 0``, ``equal·z = total`` and ``z ≥ 0`` but for the last ``free`` entries."""
    bounds = np.array([(0.0, np.inf)] * (len(cost) - free) + [(-np.inf, np.inf)] * free)
    options = {"primal_feasibility_tolerance": _TOLERANCE, "dual_feasibility_tolerance": _TOLERANCE}
    linprog = _scipy("optimize").linprog
    found = linprog(cost, upper, np.zeros(upper.shape[0]), equal, total, bounds, "highs", options=options)
    if found.status != 0:
        raise ArithmeticError(f"HiGHS found no equilibrium: {found.message}")
    return found


def _links(tree: "Treeplex") -> tuple[Any, Any]:
    """Return sparse ``[sequences, states]``: where a sequence's choice arises, and what it leads to, how many times."""
    csr_array = _scipy("sparse").csr_array
    shape = (tree.n_sequences, tree.n_states)
    state = np.arange(tree.n_states)
    chosen = np.arange(1, tree.n_sequences), np.repeat(state, tree.actions)
    own = csr_array((np.ones(tree.n_sequences - 1), chosen), shape=shape)
    return own, csr_array((tree.copies, (tree.parent, state)), shape=shape)


def _plan_rows(tree: "Treeplex") -> Any:
    """Return the rows that make a vector a plan: the empty sequence is 1, and a state's sum to what leads there."""
    state = np.arange(1, 1 + tree.n_states)
    row = np.concatenate([[0], np.repeat(state, tree.actions), state])
    column = np.concatenate([np.arange(tree.n_sequences), tree.parent])
    entry = np.concatenate([np.ones(tree.n_sequences), -np.ones(tree.n_states)])
    return _scipy("sparse").csr_array((entry, (row, column)), shape=(1 + tree.n_states, tree.n_sequences))


def _scipy(module: str) -> Any:
    try:
        return import_module(f"scipy.{module}")
    except ImportError as error:
        raise ImportError("linear programs need SciPy: pip install 'maxent-onpolicy[games]'") from error
