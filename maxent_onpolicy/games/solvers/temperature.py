"""Temperatures that change while a game is solved."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from maxent_onpolicy.validation import check_range

_COLDEST = 1e-30
_LOSS = 2.0


@dataclass(frozen=True)
class Annealing:
    """Lower τ each time the strategies have come close to its equilibrium, and never before.

    The quantal response equilibrium of a lower temperature is the harder one, and a good start is the one before. So
    τ falls only once the QRE gap is no more than ``ratio·τ``: a gap that is small beside the entropy's weight.

    Args:
        start: the first τ.
        factor: what it is multiplied with; 0.5 halves it.
        ratio: how small the gap must be, in units of τ.
        minimum: where it stops falling; at the latest at 1e-30, lest payoffs divided by it be infinite.

    Raises:
        ValueError: if ``start`` is not positive, ``factor`` not between 0 and 1, ``ratio`` not positive, or
            ``minimum`` negative.
    """

    start: float = 1.0
    factor: float = 0.5
    ratio: float = 1.0
    minimum: float = 0.0

    def __post_init__(self) -> None:
        check_range("start", self.start, 0.0, low_open=True)
        check_range("factor", self.factor, 0.0, 1.0, low_open=True, high_open=True)
        check_range("ratio", self.ratio, 0.0, low_open=True)
        check_range("minimum", self.minimum, 0.0, self.start)

    def next(self, tau: float, qre_gap: float) -> float:
        """Return the temperature after a check that found ``qre_gap`` at ``tau``."""
        return max(self.minimum, tau * self.factor, _COLDEST) if qre_gap <= self.ratio * tau else tau


@dataclass
class Floor:
    """Where Newton steps end when τ falls, and whether it stays there.

    Below it, rounding of payoffs divided by τ is worse than what Newton steps gain. In small games plain updates go on
    from there; in larger ones they lose what was gained, and then τ goes back and stays.

    Args:
        tau: the temperature.
        reached: exploitability there; infinite before.
        stays: whether it was better than what came below.
    """

    tau: float
    reached: float = inf
    stays: bool = False

    def hold(self, tau: float, proposed: float, exploitability: float) -> float:
        """Return the temperature after a check at ``tau`` that would be followed by ``proposed``."""
        if tau == self.tau:
            self.reached = min(self.reached, exploitability)
        elif tau < self.tau and exploitability > _LOSS * self.reached:
            self.stays = True
        return max(proposed, self.tau) if self.stays or tau > self.tau else proposed


Temperature = float | Annealing | Callable[[float], float]


def check_temperature(tau: object) -> Temperature:
    """Return τ as it was given, with ``"anneal"`` replaced by its defaults.

    Raises:
        ValueError: if it is negative, or none of the kinds there are.
    """
    if tau == "anneal":
        return Annealing()
    if isinstance(tau, Annealing) or callable(tau):
        return tau
    if isinstance(tau, str):
        raise ValueError(f"`tau` must be a number of at least 0, 'anneal', an Annealing or a schedule; got {tau!r}")
    return check_range("tau", tau, 0.0)  # type: ignore[arg-type]
