"""Markov games: simultaneous moves in states that both players see."""

import math
import warnings
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.games.evaluation import Evaluation, digest, not_negative
from maxent_onpolicy.games.matrix import as_floats
from maxent_onpolicy.validation import check_integer, check_range

Strategies = tuple[Tensor, Tensor]
_CLOSE = 1e-6
_MOST_ROUNDS = 200
_SETTLED = 16.0  # units of rounding that a further round may still change


class _Links(NamedTuple):
    """Pairs of a state and a next one among a sparse game's transitions, sorted, and where each transition belongs.

    Attributes:
        start: ``[S + 1]`` the first pair of each state.
        after: ``[pairs]`` the next state.
        pair: ``[transitions]`` number of the pair.
        moves: ``[transitions]`` number of the state and both actions.
    """

    start: Tensor
    after: Tensor
    pair: Tensor
    moves: Tensor


class MarkovGame:
    """A two-player zero-sum Markov game, discounted or with a fixed horizon.

    Args:
        transition: probabilities of the next state: ``[S, A, B, S]``, or a sparse matrix (scipy's or torch's) ``[S·A·B,
            S]``; with a horizon also ``[H, S, A, B, S]``.
        reward: of the first player, ``[S, A, B]``; with a horizon also ``[H, S, A, B]``.
        gamma: discount in ``[0, 1)``.
        horizon: number of moves; exclusive with ``gamma``.
        start: ``[S]`` distribution of the first state; values and gaps are then expectations under it. Without it, they
            are of all states, and the largest gap counts.

    Raises:
        ValueError: if shapes do not fit, a number is not finite, a row of ``transition`` is no distribution, or not
            exactly one of ``gamma`` and ``horizon`` is given.
    """

    def __init__(
        self, transition: Any, reward: Any, gamma: float | None = None, horizon: int | None = None, start: Any = None
    ) -> None:
        if (gamma is None) == (horizon is None):
            raise ValueError(f"give one of `gamma` and `horizon`, got gamma={gamma} and horizon={horizon}")
        self.gamma = 1.0 if gamma is None else check_range("gamma", gamma, 0.0, 1.0, high_open=True)
        self.horizon = None if horizon is None else check_integer("horizon", horizon, 1)
        self.reward: Float[Tensor, "*steps S A B"] = as_floats(reward)
        if self.reward.ndim not in (3, 4) or (self.reward.ndim == 4 and self.reward.shape[0] != horizon):
            raise ValueError(
                f"`reward` must be [S, A, B] or [horizon, S, A, B], got {tuple(self.reward.shape)} "
                f"with horizon={horizon}"
            )
        if not bool(torch.isfinite(self.reward).all()):
            raise ValueError("`reward` must be finite")
        self.transition = _read_transition(transition, self)
        _check_rows(self.transition, self)
        self.start = None if start is None else _read_start(start, self)

    @property
    def states(self) -> int:
        """Number of states."""
        return self.reward.shape[-3]

    @property
    def actions(self) -> tuple[int, int]:
        """How many actions the players have."""
        return self.reward.shape[-2], self.reward.shape[-1]

    @property
    def is_sparse(self) -> bool:
        """Whether ``transition`` is stored in compressed rows."""
        return self.transition.layout == torch.sparse_csr

    @property
    def layout(self) -> tuple[int, ...]:
        """Leading dimensions of values: ``(S,)``, or ``(H, S)`` with a horizon."""
        return (self.states,) if self.horizon is None else (self.horizon, self.states)

    def uniform(self) -> Strategies:
        """Return the strategies that choose among all actions alike."""
        first, second = (self.reward.new_full((*self.layout, n), 1.0 / n) for n in self.actions)
        return first, second

    def action_values(self, values: Tensor) -> Tensor:
        """Return ``r + γ·P·v``, ``[S, A, B]``, or ``[H, S, A, B]`` with ``values[h]`` those of step ``h``.

        The value after the last move is 0.
        """
        if self.horizon is None:
            return self.reward + self.gamma * self._expected(values)
        after = torch.cat([values[1:], torch.zeros_like(values[:1])])
        if self.transition.ndim == 3:
            rows = torch.bmm(self.transition, after.unsqueeze(-1)).squeeze(-1)
            return self.reward + rows.reshape(self.horizon, self.states, *self.actions)
        rows = (self.transition @ after.T).T
        return self.reward + rows.reshape(self.horizon, self.states, *self.actions)

    def evaluate(self, strategies: tuple[Any, Any], tau: float = 0.0, q: Tensor | None = None) -> Evaluation:
        """Measure a pair of strategies by both players' exact best responses.

        Args:
            strategies: ``[..., A]`` and ``[..., B]`` for the states (and steps).
            tau: temperature of the equilibrium that ``qre_gap`` is measured to.
            q: learned action values; their distance to the equilibrium's is bounded in ``q_residual``, since those lie
                between what the best responses achieve.

        Raises:
            ValueError: if ``tau`` is negative, or a shape does not fit.
        """
        check_range("tau", tau, 0.0)
        first, second = self._checked(strategies)
        nash_high, nash_low = self.best_response_values(first, second, 0.0)
        high, low = (nash_high, nash_low) if tau == 0.0 else self.best_response_values(first, second, tau)
        residual = None
        if q is not None:
            bounds = [self.action_values(values) for values in (high, low)]
            residual = max((q - bound).abs().max().item() for bound in bounds)
        nash_conv = self._summary(nash_high - nash_low)
        value = self._policy_values(first, second, torch.zeros_like(nash_high))
        here = value if self.horizon is None else value[0]
        worth = here if self.start is None else float(here @ self.start)
        return Evaluation(self._summary(high - low), nash_conv, nash_conv / 2, worth, residual)

    def best_response_values(self, first: Tensor, second: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        """Return what each player achieves alone: the first's maximum against ``second``, its value against the worst.

        Entropy counts with weight ``tau``: the first player's for it, the second's against it.
        """
        high = self._optimise(second, tau, first=True)
        low = self._optimise(first, tau, first=False)
        return high, low

    def _optimise(self, other: Tensor, tau: float, first: bool) -> Tensor:
        """Return the values of the best response to ``other``: backward induction, or policy iteration.

        A round's first sweep changes values by how far they are from those of the best response, but for ``1/(1 − γ)``.
        """
        sign = 1.0 if first else -1.0
        fixed = -sign * tau * _entropy(other)
        if self.horizon is not None:
            values = torch.zeros(self.layout, dtype=other.dtype)
            for step in range(self.horizon - 1, -1, -1):
                payoff = self.action_values(values)[step]
                values[step] = fixed[step] + sign * _best(sign * _against(payoff, other[step], first), tau)[0]
            return values
        values = torch.zeros(self.layout, dtype=other.dtype)
        scale = self.reward.abs().max() + tau * math.log(max(self.actions))
        for _ in range(_MOST_ROUNDS):
            own = _best(sign * _against(self.action_values(values), other, first), tau)[1]
            moves, reward = self._under(*((own, other) if first else (other, own)))
            reward = reward + fixed + sign * tau * _entropy(own)
            swept = reward + self.gamma * (moves @ values)
            settled = self._settled(swept - values, values, scale)
            values = self._closer(moves, reward, swept)
            if settled:
                break
        return values

    def _policy_values(self, first: Tensor, second: Tensor, bonus: Tensor) -> Tensor:
        """Return the values of a pair of strategies, with ``bonus`` added to the reward of each state."""
        if self.horizon is not None:
            values = torch.zeros(self.layout, dtype=first.dtype)
            for step in range(self.horizon - 1, -1, -1):
                payoff = self.action_values(values)[step]
                values[step] = bonus[step] + torch.einsum("sab,sa,sb->s", payoff, first[step], second[step])
            return values
        moves, reward = self._under(first, second)
        values, reward = torch.zeros_like(reward), reward + bonus
        for _ in range(_MOST_ROUNDS):
            before, values = values, self._closer(moves, reward, values)
            if not self.is_sparse or self._settled(values - before, values, reward.abs().max()):
                break
        return values

    def _under(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transition matrix ``[S, S]`` under a pair of strategies, stored as the game's, and the reward."""
        joint = first.unsqueeze(-1) * second.unsqueeze(-2)
        reward = (self.reward * joint).sum((-2, -1))
        if not self.is_sparse:
            rows = self.transition * joint.reshape(-1, 1)
            return rows.reshape(self.states, -1, self.states).sum(1), reward
        links = self._links
        parts = self.transition.values() * joint.reshape(-1)[links.moves]
        chances = parts.new_zeros(len(links.after)).index_add_(0, links.pair, parts)
        size = (self.states, self.states)
        return torch.sparse_csr_tensor(links.start, links.after, chances, size, check_invariants=False), reward

    def _closer(self, moves: Tensor, reward: Tensor, values: Tensor) -> Tensor:
        """Return values closer to ``v = reward + γ·moves·v``: the solution, or that of some sweeps if it is sparse.

        Sparse sweeps are cheaper than dense systems, and in policy iteration few are needed between improvements
        (modified policy iteration: Puterman and Shin 1978); these leave a seventh of the distance.
        """
        if not self.is_sparse:
            return torch.linalg.solve(torch.eye(self.states, dtype=reward.dtype) - self.gamma * moves, reward)
        for _ in range(math.ceil(2.0 / (1.0 - self.gamma))):
            values = reward + self.gamma * (moves @ values)
        return values

    def _settled(self, change: Tensor, values: Tensor, scale: Any) -> bool:
        rounding = _SETTLED * torch.finfo(values.dtype).eps
        return bool(change.abs().max() <= rounding * max(float(values.abs().max()), float(scale)))

    @cached_property
    def _links(self) -> _Links:
        per_state = self.actions[0] * self.actions[1]
        moves = torch.arange(self.states * per_state).repeat_interleave(self.transition.crow_indices().diff())
        pairs, pair = torch.unique(
            moves // per_state * self.states + self.transition.col_indices(), return_inverse=True
        )
        count = torch.bincount(pairs // self.states, minlength=self.states)
        start = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return _Links(start, pairs % self.states, pair, moves)

    def _expected(self, values: Tensor) -> Tensor:
        return (self.transition @ values).reshape(self.states, *self.actions)

    def _summary(self, gap: Tensor) -> float:
        gap = gap if self.horizon is None else gap[0]
        return not_negative(float(gap.max() if self.start is None else gap @ self.start))

    def _checked(self, strategies: tuple[Any, Any]) -> Strategies:
        found = []
        for player, strategy in enumerate(strategies):
            tensor = torch.as_tensor(strategy, dtype=self.reward.dtype, device="cpu")
            expected = (*self.layout, self.actions[player])
            if tensor.shape != expected:
                raise ValueError(f"the strategy of player {player} must be {expected}, got {tuple(tensor.shape)}")
            found.append(tensor)
        return found[0], found[1]

    def choices(self, strategy: Tensor, player: int, observation: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities of the player's actions in a state, or ``(step, state)``, and their names.

        Raises:
            ValueError: if there is no such state.
        """
        where = observation if isinstance(observation, tuple) else (observation,)
        known = len(where) == len(self.layout) and all(
            isinstance(each, int | np.integer) and 0 <= each < size
            for each, size in zip(where, self.layout, strict=True)
        )
        if not known:
            raise ValueError(f"`observation` must be an index below {self.layout}, got {observation!r}")
        return strategy[where].cpu().numpy(), np.arange(self.actions[player])

    @property
    def fingerprint(self) -> str:
        """What tells this game from others, in a line."""
        values = self.transition.values() if self.is_sparse else self.transition
        return f"{self!r} {digest(self.reward.numpy(), values.numpy())}"

    def __repr__(self) -> str:
        end = f"gamma={self.gamma}" if self.horizon is None else f"horizon={self.horizon}"
        return f"MarkovGame({self.states} states, actions {self.actions[0]} × {self.actions[1]}, {end})"


def _against(payoff: Tensor, other: Tensor, first: bool) -> Tensor:
    """Return what each own action earns against the other's strategy, in the first player's payoff."""
    return torch.einsum("sab,sb->sa", payoff, other) if first else torch.einsum("sab,sa->sb", payoff, other)


def _best(earned: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Return the soft maximum over actions (with entropy) and the strategy that reaches it."""
    if tau == 0.0:
        value, action = earned.max(-1)
        return value, torch.nn.functional.one_hot(action, earned.shape[-1]).to(earned.dtype)
    return tau * torch.logsumexp(earned / tau, -1), torch.softmax(earned / tau, -1)


def _entropy(strategy: Tensor) -> Tensor:
    return -torch.xlogy(strategy, strategy).sum(-1)


def _read_transition(transition: Any, game: MarkovGame) -> Tensor:
    """Return the transition as ``[S·A·B, S]``, dense or in compressed rows, or ``[H, S·A·B, S]``."""
    rows = game.states * game.actions[0] * game.actions[1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # that compressed rows are new in PyTorch
        tensor = _as_tensor(transition).to(game.reward.dtype)
    if tensor.layout == torch.sparse_csr:
        allowed: tuple[tuple[int, ...], ...] = ((rows, game.states),)
    else:
        one = (game.states, *game.actions, game.states)
        allowed = (
            (one, (rows, game.states)) if game.horizon is None else (one, (rows, game.states), (game.horizon, *one))
        )
    if tuple(tensor.shape) not in allowed:
        raise ValueError(
            f"`transition` must have a shape of {' or '.join(map(str, allowed))}, got {tuple(tensor.shape)}"
        )
    if tensor.layout == torch.sparse_csr:
        return tensor
    return tensor.reshape(*tensor.shape[:-4], rows, game.states) if tensor.ndim > 2 else tensor


def _as_tensor(transition: Any) -> Tensor:
    if not hasattr(transition, "tocsr"):
        tensor = as_floats(transition)
        return tensor.to_sparse_csr() if tensor.layout == torch.sparse_coo else tensor
    compressed = transition.tocsr()
    start, column = (torch.from_numpy(each.astype(np.int64)) for each in (compressed.indptr, compressed.indices))
    return torch.sparse_csr_tensor(start, column, torch.from_numpy(compressed.data), compressed.shape)


def _check_rows(transition: Tensor, game: MarkovGame) -> None:
    values = transition.values() if transition.layout == torch.sparse_csr else transition
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise ValueError("`transition` must hold probabilities, got a negative or infinite number")
    sums = transition @ torch.ones(game.states, dtype=transition.dtype)
    off = (sums - 1.0).abs()
    if bool((off > _CLOSE).any()):
        shape = (*sums.shape[:-1], game.states, *game.actions)
        where = tuple(map(int, np.unravel_index(int(off.argmax()), shape)))
        raise ValueError(f"`transition` must sum to one, but row {where} sums to {sums.reshape(shape)[where].item():g}")


def _read_start(start: Any, game: MarkovGame) -> Tensor:
    tensor = torch.as_tensor(start, dtype=game.reward.dtype)
    if tensor.shape != (game.states,) or bool((tensor < 0).any()) or abs(float(tensor.sum()) - 1.0) > _CLOSE:
        raise ValueError(
            f"`start` must be a distribution over {game.states} states, got a sum of {float(tensor.sum()):g}"
        )
    return tensor
