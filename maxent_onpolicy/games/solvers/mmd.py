"""Magnetic mirror descent with the magnet that entropy stands for."""

from typing import Any, ClassVar, Literal

import torch

from maxent_onpolicy.games.solvers.omwu import OMWU
from maxent_onpolicy.games.solvers.step_size import proximal_step
from maxent_onpolicy.games.solvers.temperature import Temperature


class MMD(OMWU):
    """Solve a two-player zero-sum game by magnetic mirror descent (Sokota et al. 2023, arXiv:2206.05825).

    Each step maximises ``η·⟨g, x⟩ − ητ·D(x‖magnet) − D(x‖x_t)``. With the strategy of most entropy for a magnet (the
    uniform one, or in sequence form the uniform one over plans), that is in logits ``θ ← (θ + η·g)/(1 + ητ)``:
    :class:`OMWU`'s variant ``"mwu"`` with the step ``η/(1 + ητ)``.

    Args:
        game: a :class:`MatrixGame`, :class:`MarkovGame` or :class:`SequenceFormGame`.
        tau: temperature τ, as in :class:`OMWU`.
        eta: step size η; ``"theory"``, in matrix games only, is ``τ/‖A‖²``, the largest for which convergence is proved
            (Theorem 3.4); ``"auto"`` has an estimate of how strongly the players depend on each other in place of
            ``‖A‖``, and backs off when the QRE gap grows, in matrix games no further than to the proved step.
        dtype: ``"float64"`` or, in matrix and Markov games, ``"float32"``.
        device: of matrix and Markov games.
        seed: of :meth:`predict`'s random actions.

    Raises:
        ValueError: if an argument is out of range, or ``tau`` is 0 and ``eta`` no number.
    """

    _REMEMBERED: ClassVar[tuple[str, ...]] = ("eta", "dtype")

    def __init__(
        self,
        game: Any,
        tau: Temperature | Literal["anneal"],
        eta: float | Literal["auto", "theory"] = "auto",
        dtype: str = "float64",
        device: str | torch.device = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__(game, tau, eta, "mwu", dtype, device, seed)

    @property
    def eta(self) -> Any:
        """Step size η of the next updates: a number, or in matrix games, unless given, one for each of the batch."""
        return self._named(self._step) if isinstance(self._rule, str) else self._rule

    def _named(self, step: Any) -> Any:
        return proximal_step(step, self.tau)

    def _step_size(self) -> Any:
        size = super()._step_size()
        return size if isinstance(self._rule, str) else size / (1.0 + size * self.tau)
