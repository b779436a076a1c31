"""A player's strategies in sequence form, and the loops over them.

A *sequence* is an information state with an action taken there; sequence 0 is the empty one. A strategy is a vector
``x[sequence]``, the probability with which the player's own choices lead there, or the behaviour ``b[sequence]``, the
probability of the action where the choice arises. The loops run bottom-up over information states (they are stored
parents first) or top-down, and are compiled by numba.

The dilated entropy ``ψ(x) = Σ_j x[parent(j)]·H(b_j)`` (Hoda et al. 2010) has unit weights, which makes it the entropy
of the sequences of actions that the player will be asked for, given chance and the opponent let it get there.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from maxent_onpolicy.games.compiled import njit

Vector = Float64[np.ndarray, " sequences"]
Array = Float64[np.ndarray, "sequences *directions"]


class Treeplex(NamedTuple):
    """The tree of one player's information states, parents first.

    Attributes:
        parent: the sequence that leads to each information state.
        first: its first own sequence; the others follow.
        actions: how many there are.
        copies: how many alike information states each stands for below one parent sequence; 1 unless reduced.
        size: ``[sequences]`` how many alike sequences each stands for; 1 unless reduced.
    """

    parent: Int64[np.ndarray, " states"]
    first: Int64[np.ndarray, " states"]
    actions: Int64[np.ndarray, " states"]
    copies: Float64[np.ndarray, " states"]
    size: Float64[np.ndarray, " sequences"]

    @property
    def n_states(self) -> int:
        """Number of information states."""
        return len(self.parent)

    @property
    def n_sequences(self) -> int:
        """Number of sequences, the empty one among them."""
        return len(self.size)


class Payoff(NamedTuple):
    """A sparse matrix in compressed rows: what each sequence earns against each of the opponent's."""

    start: Int64[np.ndarray, " rows_and_one"]
    column: Int64[np.ndarray, " entries"]
    value: Float64[np.ndarray, " entries"]


@njit
def multiply(payoff: Payoff, opponent: Vector, out: Vector) -> None:
    """Write the payoff of every sequence against the opponent's strategy into ``out``."""
    for row in range(len(out)):
        total = 0.0
        for entry in range(payoff.start[row], payoff.start[row + 1]):
            total += payoff.value[entry] * opponent[payoff.column[entry]]
        out[row] = total


@njit
def respond(tree: Treeplex, dual: Vector, behaviour: Vector, reach: Vector, work: Vector) -> float:
    """Write the dilated softmax of ``dual`` into ``behaviour`` and ``reach``.

    It maximises ``⟨dual, x⟩ + ψ(x)``: bottom-up, an information state's value is the log-sum-exp of its sequences'
    values, and is added to that of the sequence that leads to it.

    Returns:
        The maximum.
    """
    work[:] = dual
    for state in range(len(tree.parent) - 1, -1, -1):
        first, end = tree.first[state], tree.first[state] + tree.actions[state]
        highest = work[first]
        for sequence in range(first + 1, end):
            highest = max(highest, work[sequence])
        total = 0.0
        for sequence in range(first, end):
            behaviour[sequence] = np.exp(work[sequence] - highest)
            total += behaviour[sequence]
        for sequence in range(first, end):
            behaviour[sequence] /= total
        work[tree.parent[state]] += tree.copies[state] * (highest + np.log(total))
    fill_reach(tree, behaviour, reach)
    return work[0]


@njit
def fill_reach(tree: Treeplex, behaviour: Vector, reach: Vector) -> None:
    """Write the sequence form of ``behaviour`` into ``reach``."""
    behaviour[0] = reach[0] = 1.0
    for state in range(len(tree.parent)):
        arrival = reach[tree.parent[state]]
        for sequence in range(tree.first[state], tree.first[state] + tree.actions[state]):
            reach[sequence] = arrival * behaviour[sequence]


@njit
def fill_behaviour(tree: Treeplex, reach: Vector, behaviour: Vector) -> None:
    """Write the behaviour of a sequence-form vector, of any scale, into ``behaviour``; uniform where it never gets."""
    behaviour[0] = 1.0
    for state in range(len(tree.parent)):
        first, end = tree.first[state], tree.first[state] + tree.actions[state]
        total = 0.0
        for sequence in range(first, end):
            total += reach[sequence]
        for sequence in range(first, end):
            behaviour[sequence] = reach[sequence] / total if total > 0.0 else 1.0 / (end - first)


@njit
def best_response(tree: Treeplex, gradient: Vector, behaviour: Vector, work: Vector) -> float:
    """Write a pure best response to ``gradient`` into ``behaviour``; return what it earns."""
    work[:] = gradient
    behaviour[:] = 0.0
    behaviour[0] = 1.0
    for state in range(len(tree.parent) - 1, -1, -1):
        best = tree.first[state]
        for sequence in range(best + 1, tree.first[state] + tree.actions[state]):
            if work[sequence] > work[best]:
                best = sequence
        behaviour[best] = 1.0
        work[tree.parent[state]] += tree.copies[state] * work[best]
    return work[0]


@njit
def recentre(tree: Treeplex, dual: Vector) -> None:
    """Shift ``dual`` along what its response does not depend on, so that it is the response's ``log b``.

    Else the values of actions that are no longer played grow without bound, and with them the rounding of the others.
    """
    for state in range(len(tree.parent) - 1, -1, -1):
        first, end = tree.first[state], tree.first[state] + tree.actions[state]
        highest = dual[first]
        for sequence in range(first + 1, end):
            highest = max(highest, dual[sequence])
        total = 0.0
        for sequence in range(first, end):
            total += np.exp(dual[sequence] - highest)
        value = highest + np.log(total)
        for sequence in range(first, end):
            dual[sequence] -= value
        dual[tree.parent[state]] += tree.copies[state] * value
    dual[0] = 0.0


@njit
def divergence(tree: Treeplex, behaviour: Vector, reach: Vector, log_other: Vector) -> float:
    """``Σ_j x[parent(j)]·KL(b_j‖b'_j)``, the divergence that belongs to the dilated entropy, from ``log b'``."""
    total = 0.0
    for state in range(len(tree.parent)):
        kl = 0.0
        for sequence in range(tree.first[state], tree.first[state] + tree.actions[state]):
            if behaviour[sequence] > 0.0:
                kl += behaviour[sequence] * (np.log(behaviour[sequence]) - log_other[sequence])
        parent = tree.parent[state]
        total += tree.copies[state] * tree.size[parent] * reach[parent] * kl
    return total


@njit
def entropy(tree: Treeplex, behaviour: Vector, reach: Vector) -> float:
    """``ψ(x)`` in nats."""
    total = 0.0
    for state in range(len(tree.parent)):
        here = 0.0
        for sequence in range(tree.first[state], tree.first[state] + tree.actions[state]):
            if behaviour[sequence] > 0.0:
                here -= behaviour[sequence] * np.log(behaviour[sequence])
        parent = tree.parent[state]
        total += tree.copies[state] * tree.size[parent] * reach[parent] * here
    return total


@njit
def respond_derivative(tree: Treeplex, behaviour: Vector, reach: Vector, work: Array, out: Array) -> None:
    """Write the derivative of the response's ``reach`` along a direction of the dual variable into ``out``.

    Args:
        tree: of the player.
        behaviour: the response.
        reach: its sequence form.
        work: ``[sequences]`` the direction, or ``[sequences, directions]``; becomes the derivative of ``log b``.
        out: as ``work``.
    """
    for state in range(len(tree.parent) - 1, -1, -1):
        first, end = tree.first[state], tree.first[state] + tree.actions[state]
        mean = behaviour[first] * work[first]
        for sequence in range(first + 1, end):
            mean += behaviour[sequence] * work[sequence]
        for sequence in range(first, end):
            work[sequence] -= mean
        work[tree.parent[state]] += tree.copies[state] * mean
    out[0] = 0.0
    for state in range(len(tree.parent)):
        parent = tree.parent[state]
        for sequence in range(tree.first[state], tree.first[state] + tree.actions[state]):
            out[sequence] = behaviour[sequence] * (out[parent] + reach[parent] * work[sequence])
