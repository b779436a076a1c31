"""Entropy-regularised optimistic multiplicative weights."""

import warnings
from dataclasses import asdict, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from maxent_onpolicy.games.evaluation import Evaluation, largest
from maxent_onpolicy.games.markov import MarkovGame
from maxent_onpolicy.games.matrix import MatrixGame
from maxent_onpolicy.games.solvers.base import Arrays, Iterate, Record, Solver
from maxent_onpolicy.games.solvers.core import VARIANTS, Pair, Variant, midpoint
from maxent_onpolicy.games.solvers.responses import make_response
from maxent_onpolicy.games.solvers.step_size import BackOff, magnetic_step
from maxent_onpolicy.games.solvers.temperature import Annealing, Floor, Temperature, check_temperature
from maxent_onpolicy.validation import check_choice, check_range

_COLDEST = 2e-9  # where Newton steps end, in units of what both players could gain from uniform strategies
_UNOPTIMISTIC = "Sokota et al., arXiv:2206.05825, Theorem 3.4"
_MOST_FORGOTTEN = 0.5  # of the logits in one update, where η is ours to choose


class OMWU(Solver):
    """Solve a two-player zero-sum game by entropy-regularised optimistic multiplicative weights.

    With a constant temperature it converges to the quantal response equilibrium (QRE), the solution of
    ``max_μ min_ν value(μ, ν) + τ·H(μ) − τ·H(ν)``; in matrix games in the last iterate and at the rate
    ``KL ≤ (1 − ητ)^t·KL_0`` (Cen, Wei, Chi, arXiv:2105.15186), in Markov games too (Cen, Chi, Du, Xiao,
    arXiv:2210.01050). With ``tau="anneal"`` it goes on to a Nash equilibrium.

    Args:
        game: a :class:`MatrixGame`, :class:`MarkovGame` or :class:`SequenceFormGame`.
        tau: temperature τ; a number of at least 0, ``"anneal"``, an :class:`Annealing`, or a schedule that maps the
            part of learning that is left, 1 to 0, to τ.
        eta: step size η; ``"theory"`` is the largest for which convergence is proved; ``"auto"`` is the same in matrix
            games, and elsewhere, or without optimism, follows how strongly the players depend on each other, and backs
            off when the QRE gap grows.
        variant: ``"omwu"``, ``"extragradient"`` (two looks at the payoffs a step) or ``"mwu"`` (no optimism).
        dtype: ``"float64"`` or, in matrix and Markov games, ``"float32"``.
        device: of matrix and Markov games.
        seed: of :meth:`predict`'s random actions.
        acceleration: ``"newton"`` adds a few Newton steps toward the QRE at each check, in games in sequence form
            without too many sequences: it gets there in a fraction of the time, mostly at low temperatures.
        compile: let ``torch.compile`` fuse the updates of matrix games; worth its ten seconds for large batches.

    Raises:
        ValueError: if an argument is out of range, or ``eta="theory"`` and no theorem covers the game.
    """

    _REMEMBERED: ClassVar[tuple[str, ...]] = ("variant", "eta", "dtype", "acceleration")

    def __init__(
        self,
        game: Any,
        tau: Temperature | Literal["anneal"],
        eta: float | Literal["auto", "theory"] = "auto",
        variant: Variant = "omwu",
        dtype: str = "float64",
        device: str | torch.device = "cpu",
        seed: int | None = None,
        acceleration: Literal["newton"] | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(game, seed)
        self.acceleration = check_choice("acceleration", acceleration, (None, "newton"))
        self._schedule = check_temperature(tau)
        self.variant: Variant = check_choice("variant", variant, VARIANTS)
        self._settings = {"variant": variant, "eta": eta, "dtype": dtype, "acceleration": acceleration}
        self._response = make_response(game, dtype, device, compile)
        self._state = self._response.start()
        self._rule = _check_rule(eta)
        self._back_off = BackOff()
        self.tau = self._temperature(1.0, float("inf"))
        self._floor = Floor(_COLDEST * game.evaluate(game.uniform()).nash_conv) if acceleration else None
        if variant == "mwu" and isinstance(eta, str) and self.tau == 0.0:
            raise ValueError(f"without optimism and with tau=0 only a number will do for `eta`, got {eta!r}")
        self._step: Any = self._step_size()
        if not isinstance(eta, str):
            self._warn_if_large()

    @property
    def eta(self) -> Any:
        """Step size η of the next updates: a number, or in matrix games, unless given, one for each of the batch."""
        return self._step

    @property
    def q_values(self) -> np.ndarray:
        """Learned action values ``Q`` of a Markov game, ``[S, A, B]`` or ``[H, S, A, B]``; 0 before the first update.

        They are the first player's, and count what entropy is worth in later states. How far they are from those of the
        equilibrium is bounded by ``evaluate().q_residual``.

        Raises:
            AttributeError: if it is another kind of game, whose payoffs are known.
        """
        if not isinstance(self.game, MarkovGame):
            raise AttributeError(f"only in Markov games action values are learned, not in {self.game!r}")
        return self._response.action_values().cpu().numpy().copy()

    def policy(self, iterate: Iterate = "midpoint") -> Pair:
        """Return both players' strategies.

        Args:
            iterate: ``"midpoint"``, what would be played next; ``"last"``, the regular iterate of the theorems;
                ``"average"`` of all that was played.

        Returns:
            A probability for each action: ``[..., actions]`` in a matrix game, ``[states, actions]`` or ``[horizon,
            states, actions]`` in a Markov game, a dictionary by information state in sequence form.
        """
        if self._average(iterate):
            return self._response.average_policy(self._state)
        return self._response.policy(self._dual(iterate))

    def evaluate(self, iterate: Iterate = "midpoint") -> Evaluation:
        """Measure the strategies, at the current temperature."""
        if self._average(iterate):
            return self._response.evaluate_average(self._state, self.tau)
        return self._response.evaluate(self._dual(iterate), self.tau)

    def distance(self) -> float:
        """Return the QRE gap at the last check, or the exploitability where τ is 0 or changes."""
        found = self.history[-1]
        return found.qre_gap if self._schedule == self.tau and self.tau > 0 else found.exploitability

    def _update(self, iterations: int) -> None:
        self._state = self._response.advance(self._state, iterations, self._step, self.tau, self.variant)

    def _check(self, progress_remaining: float) -> Record:
        if self._floor is not None and self.tau >= self._floor.tau:
            self._response.accelerate(self._state, self.tau)
        found = self.evaluate()
        gap = largest(found.qre_gap)
        if not np.isfinite(gap):
            raise ArithmeticError(f"the strategies diverged after {self.iterations} iterations; lower eta={self.eta}")
        record = Record(
            self.iterations,
            0.0,
            self.tau,
            largest(self.eta),
            gap,
            largest(found.nash_conv),
            largest(found.exploitability),
            float(np.mean(np.asarray(found.value))),
        )
        self._back_off.see(gap, scale=self.tau + record.nash_conv + float(np.abs(np.asarray(found.value)).max()))
        tau = self._temperature(progress_remaining, gap)
        if self._floor is not None and isinstance(self._schedule, Annealing):
            tau = self._floor.hold(self.tau, tau, record.exploitability)
        if tau != self.tau:
            self._back_off.forget()
        self.tau = tau
        self._step = self._step_size()
        return record

    def _remember(self) -> tuple[dict[str, Any], Arrays]:
        if callable(self._schedule):
            raise ValueError("a solver whose `tau` is a function cannot be saved; give a number or an Annealing")
        schedule = asdict(self._schedule) if isinstance(self._schedule, Annealing) else self._schedule
        step = self._step.cpu().numpy() if isinstance(self._step, torch.Tensor) else np.array(self._step)
        arrays = self._response.to_arrays(self._state) | {"step": step}
        head = {**self._settings, "schedule": schedule, "tau": self.tau, "back_off": vars(self._back_off)}
        return head | {"floor": None if self._floor is None else vars(self._floor)}, arrays

    @classmethod
    def _recall(cls, game: Any, head: dict[str, Any], arrays: Arrays) -> Self:
        schedule = head["schedule"]
        schedule = Annealing(**schedule) if isinstance(schedule, dict) else schedule
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the step size: it was said before
            solver = cls(game, schedule, **{name: head[name] for name in cls._REMEMBERED})
        solver._state = solver._response.from_arrays(arrays)
        solver.tau = head["tau"]
        vars(solver._back_off).update(head["back_off"])
        if solver._floor is not None:
            vars(solver._floor).update(head["floor"])
        step = arrays["step"]
        solver._step = torch.from_numpy(step) if step.ndim else float(step)
        return solver

    def _temperature(self, progress_remaining: float, gap: float) -> float:
        if isinstance(self._schedule, Annealing):
            return self._schedule.next(self.tau, gap) if self.iterations else self._schedule.start
        if callable(self._schedule):
            return check_range("tau", self._schedule(progress_remaining), 0.0)
        return self._schedule

    def _step_size(self) -> Any:
        if not isinstance(self._rule, str):
            return self._rule
        if self._rule == "theory":
            return self._bound()
        if self.variant == "mwu":
            step = magnetic_step(self._response.strength(self._state), self.tau) * self._back_off.factor
            return torch.maximum(step, self._bound()) if isinstance(self.game, MatrixGame) else step
        eta = self._response.suggested_eta(self._state, self.tau)
        if eta is None:
            return self._response.bound(self.tau)
        limit = _MOST_FORGOTTEN / self.tau if self.tau > 0 else float("inf")
        return min(eta * self._back_off.factor, limit)

    def _bound(self) -> Any:
        """Return the largest step size for which convergence is proved."""
        if self.variant != "mwu":
            return self._response.bound(self.tau)
        if not isinstance(self.game, MatrixGame):
            raise ValueError("no step size is proved for updates without optimism but in matrix games")
        return self._response.magnetic_bound(self.tau)

    def _named(self, step: float) -> float:
        """Return the η of an update that keeps ``1 − step·τ`` of the logits."""
        return step

    def _warn_if_large(self) -> None:
        try:
            bound = largest(self._bound(), smallest=True)
        except ValueError:
            return
        if self._step > bound:
            warnings.warn(
                f"eta={self.eta:g} is above {self._named(bound):.3g}, the largest step size for which convergence is "
                f"proved ({_UNOPTIMISTIC if self.variant == 'mwu' else self._response.theorem})",
                stacklevel=3,
            )

    def _dual(self, iterate: Iterate) -> Pair:
        if iterate == "last" or self.variant == "mwu":
            return self._state.dual
        state = self._state
        if self.variant == "extragradient":
            state = replace(state, gradient=self._response.gradients(self._response.respond(state.dual)))
        return midpoint(state, self._step, self.tau)

    def _average(self, iterate: Iterate) -> bool:
        check_choice("iterate", iterate, ("midpoint", "last", "average"))
        return iterate == "average" and self.iterations > 0


def _check_rule(eta: Any) -> Any:
    if isinstance(eta, str):
        return check_choice("eta", eta, ("auto", "theory"))
    return check_range("eta", eta, 0.0, low_open=True)
