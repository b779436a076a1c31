"""Action distributions for bounded continuous actions, beside SB3's own.

All follow SB3's ``Distribution`` contract. The bounded ones act on ``[-1, 1]``
(the policy rescales to the environment's bounds), so their entropies are those
of the rescaled action and cannot be inflated by probability mass that the
environment would clip away.
"""

import math
from typing import Literal, Self

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution, sum_independent_dims
from stable_baselines3.common.preprocessing import get_action_dim
from torch import Tensor, nn
from torch.distributions import Beta, Normal
from torch.nn import functional as F

from maxent_onpolicy.validation import check_choice, check_pair, check_range

ActionDistribution = Literal["auto", "gaussian", "tanh_gaussian", "beta"]
ACTION_DISTRIBUTIONS: tuple[ActionDistribution, ...] = ("auto", "gaussian", "tanh_gaussian", "beta")

LOG_2 = 0.6931471805599453


class BoxDistribution(Distribution):
    """A factorised distribution over ``A`` continuous actions whose parameters come from one linear layer.

    Attributes:
        n_parameters: outputs of that layer.
        bounded: whether actions lie in ``[-1, 1]``.
    """

    bounded = False

    def __init__(self, action_dim: int) -> None:
        super().__init__()
        self.action_dim = action_dim

    @property
    def n_parameters(self) -> int:
        """Outputs that the action layer must have."""
        return 2 * self.action_dim

    def proba_distribution_net(self, latent_dim: int) -> nn.Module:
        """Return the linear layer from the actor's features to the distribution's parameters."""
        return nn.Linear(latent_dim, self.n_parameters)

    def actions_from_params(self, *args: Tensor, deterministic: bool = False) -> Tensor:
        """Return actions ``[N, A]`` for the given parameters."""
        return self.proba_distribution(*args).get_actions(deterministic=deterministic)

    def log_prob_from_params(self, *args: Tensor) -> tuple[Tensor, Tensor]:
        """Return sampled actions ``[N, A]`` and their log-probabilities ``[N]``."""
        actions = self.actions_from_params(*args)
        return actions, self.log_prob(actions)

    def stddev(self) -> Tensor:
        """Return the standard deviation ``[N, A]`` of the unsquashed action."""
        raise NotImplementedError


class GaussianDistribution(BoxDistribution):
    """Gaussian with optional state-dependent and bounded standard deviation.

    Args:
        action_dim: ``A``.
        state_dependent_std: the log standard deviation is an output of the network instead of one free parameter per
            action dimension.
        log_std_bounds: ``(low, high)``; the raw value ``x`` becomes ``low + (high − low)·sigmoid(x)``, which stays
            differentiable at the bounds. ``None`` leaves it free.
    """

    distribution: Normal

    def __init__(
        self, action_dim: int, state_dependent_std: bool = False, log_std_bounds: tuple[float, float] | None = None
    ) -> None:
        super().__init__(action_dim)
        self.state_dependent_std = state_dependent_std
        self.log_std_bounds = log_std_bounds

    @property
    def n_parameters(self) -> int:
        """Outputs that the action layer must have."""
        return self.action_dim * (2 if self.state_dependent_std else 1)

    def raw_log_std(self, log_std: float) -> float:
        """Return the unbounded value that :meth:`bound` maps to ``log_std``."""
        if self.log_std_bounds is None:
            return log_std
        low, high = self.log_std_bounds
        fraction = torch.tensor((log_std - low) / (high - low))
        return float(torch.logit(fraction, eps=1e-6))

    def bound(self, raw_log_std: Tensor) -> Tensor:
        """Map the network's (or parameter's) raw value into the bounds."""
        if self.log_std_bounds is None:
            return raw_log_std
        low, high = self.log_std_bounds
        return low + (high - low) * torch.sigmoid(raw_log_std)

    def proba_distribution(self, parameters: Tensor, raw_log_std: Tensor | None = None) -> Self:
        """Set the distribution from the action layer's output and, unless state-dependent, the raw log std ``[A]``."""
        if self.state_dependent_std:
            mean, raw_log_std = parameters.chunk(2, dim=-1)
        else:
            mean = parameters
        if raw_log_std is None:
            raise ValueError("`raw_log_std` is needed where the standard deviation does not depend on the state")
        self.distribution = Normal(mean, self.bound(raw_log_std).exp().expand_as(mean))
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log densities ``[N]`` of actions ``[N, A]``."""
        return sum_independent_dims(self.distribution.log_prob(actions))

    def entropy(self) -> Tensor | None:
        """Return differential entropies ``[N]`` in nats."""
        return sum_independent_dims(self.distribution.entropy())

    def sample(self) -> Tensor:
        """Return sampled actions ``[N, A]``."""
        return self.distribution.rsample()

    def mode(self) -> Tensor:
        """Return the most likely actions ``[N, A]``."""
        return self.distribution.mean

    def stddev(self) -> Tensor:
        """Return the standard deviation ``[N, A]`` of the unsquashed action."""
        return self.distribution.stddev


class TanhGaussianDistribution(GaussianDistribution):
    """Gaussian squashed by tanh into ``(−1, 1)``, with the density of the squashed action.

    ``log π(a) = log N(u) − Σ log(1 − tanh² u)``, where the correction is computed
    as ``2·(log 2 − u − softplus(−2u))``: exact, without the customary epsilon
    that biases it (Haarnoja et al. 2018, arXiv:1812.05905, appendix C).
    Samples are kept one float32 step ε away from ±1, so a stored action can always
    be inverted and its log-probability is the same when recomputed. The two
    outermost actions therefore stand for everything that rounds to them, and their
    density is the probability of that tail over its width. The Gaussian's density
    there would make a saturated policy look more random the further its mean is
    outside, and pay it an unbounded entropy reward.
    """

    bounded = True

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log densities ``[N]`` of squashed actions ``[N, A]``."""
        inside = _inside_unit_interval(actions)
        gaussian_actions = torch.atanh(inside)
        correction = 2.0 * (LOG_2 - gaussian_actions - F.softplus(-2.0 * gaussian_actions))
        density = self.distribution.log_prob(gaussian_actions) - correction
        epsilon = torch.finfo(inside.dtype).eps
        width = 1.25 * epsilon  # floats below 1 are ε/2 apart, and half of that rounds up
        excess = (inside.sign() * self.distribution.mean - math.atanh(1.0 - width)) / self.distribution.stddev
        tail = torch.special.log_ndtr(excess) - math.log(width)
        return sum_independent_dims(torch.where(inside.abs() >= 1.0 - epsilon, tail, density))

    def entropy(self) -> Tensor | None:
        """Return ``None``: the entropy of a squashed Gaussian has no closed form."""
        return None

    def sample(self) -> Tensor:
        """Return sampled actions ``[N, A]`` in ``(−1, 1)``."""
        return _inside_unit_interval(torch.tanh(super().sample()))

    def mode(self) -> Tensor:
        """Return the squashed mean ``[N, A]`` (the median; the density's own mode has no closed form)."""
        return torch.tanh(super().mode())


class BetaDistribution(BoxDistribution):
    """Beta distribution on ``[−1, 1]`` (Chou, Maturana & Scherer 2017).

    Both concentrations are ``1 + softplus(·) > 1``, so the density is unimodal and
    vanishes at the bounds. Densities and entropies are those of the action on
    ``[−1, 1]``: Beta's own on ``[0, 1]`` shifted by ``log 2`` per dimension.
    """

    bounded = True
    distribution: Beta

    def proba_distribution(self, parameters: Tensor) -> Self:
        """Set the distribution from the action layer's output ``[N, 2A]``."""
        self._excess = F.softplus(parameters).chunk(2, dim=-1)
        self.distribution = Beta(1.0 + self._excess[0], 1.0 + self._excess[1])
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log densities ``[N]`` of actions ``[N, A]`` in ``[−1, 1]``."""
        unit_actions = 0.5 * (_inside_unit_interval(actions) + 1.0)
        return sum_independent_dims(self.distribution.log_prob(unit_actions) - LOG_2)

    def entropy(self) -> Tensor:
        """Return differential entropies ``[N]`` in nats."""
        return sum_independent_dims(self.distribution.entropy() + LOG_2)

    def sample(self) -> Tensor:
        """Return sampled actions ``[N, A]`` in ``(−1, 1)``."""
        return _inside_unit_interval(2.0 * self.distribution.rsample() - 1.0)

    def mode(self) -> Tensor:
        """Return the most likely actions ``[N, A]``."""
        # From the excess over 1, which survives where 1 + excess rounds to 1 (a uniform density).
        alpha, beta = self._excess
        return (alpha - beta) / (alpha + beta).clamp(min=torch.finfo(alpha.dtype).tiny)

    def stddev(self) -> Tensor:
        """Return the standard deviation ``[N, A]`` on ``[−1, 1]``."""
        return 2.0 * self.distribution.stddev


def make_box_distribution(
    action_space: spaces.Space,
    action_distribution: ActionDistribution = "auto",
    state_dependent_std: bool = False,
    log_std_bounds: tuple[float, float] | None = None,
) -> BoxDistribution | None:
    """Return our distribution for a continuous action space, or ``None`` where SB3's own serves.

    Args:
        action_space: the environment's.
        action_distribution: ``"auto"`` is SB3's choice (an unsquashed Gaussian for a Box).
        state_dependent_std: let the standard deviation depend on the observation.
        log_std_bounds: ``(low, high)`` of the log standard deviation, or ``None``.

    Raises:
        ValueError: if an option does not fit the action space or another option.
    """
    check_choice("action_distribution", action_distribution, ACTION_DISTRIBUTIONS)
    if log_std_bounds is not None:
        low, high = check_pair("log_std_bounds", log_std_bounds)
        check_range("log_std_bounds[0]", low)
        check_range("log_std_bounds[1]", high, low, low_open=True)
    shapes_std = state_dependent_std or log_std_bounds is not None
    if action_distribution == "auto" and not shapes_std:
        return None
    if not isinstance(action_space, spaces.Box):
        raise ValueError(
            "`action_distribution`, `state_dependent_std` and `log_std_bounds` describe continuous actions (Box); "
            f"the action space is {action_space}"
        )
    action_dim = get_action_dim(action_space)
    if action_distribution == "beta":
        if shapes_std:
            raise ValueError("`state_dependent_std` and `log_std_bounds` do not apply to `action_distribution='beta'`")
        return BetaDistribution(action_dim)
    kind = TanhGaussianDistribution if action_distribution == "tanh_gaussian" else GaussianDistribution
    return kind(action_dim, state_dependent_std, log_std_bounds)


def _inside_unit_interval(actions: Tensor) -> Tensor:
    limit = 1.0 - torch.finfo(actions.dtype).eps
    return actions.clamp(-limit, limit)
