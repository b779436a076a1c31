"""The squashed Gaussian of SB3's SAC actor on fixed memory: samples, densities and the actor's gradient."""

import math

import torch
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN
from torch import Tensor

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class SquashedSamples:
    """Actions ``tanh(mean + std·noise)`` of ``N`` states and their log-densities.

    Args:
        samples: ``N``.
        actions: ``A``.
        epsilon: what SB3 adds to ``1 - action²`` within the logarithm.
        device: of the network.

    Attributes:
        noise: ``[N, A]``, standard normal.
        action: ``[N, A]``.
        log_prob: ``[N, 1]``.
        std: ``[N, A]``.
    """

    def __init__(self, samples: int, actions: int, epsilon: float, device: torch.device) -> None:
        self.noise, self.action, self.std, self._scratch = (
            torch.zeros(samples, actions, device=device) for _ in range(4)
        )
        self.log_prob = torch.zeros(samples, 1, device=device)
        self._epsilon = epsilon
        self._log_std = torch.zeros(samples, actions, device=device)
        self._raw = torch.zeros(0, device=device)
        self._space = torch.zeros_like(self._scratch)  # 1 - action² + epsilon

    def draw(self, parameters: Tensor) -> Tensor:
        """Return the actions that the noise makes of the network's outputs ``[N, 2·A]``."""
        mean, self._raw = parameters.chunk(2, dim=1)
        torch.clamp(self._raw, LOG_STD_MIN, LOG_STD_MAX, out=self._log_std)
        torch.exp(self._log_std, out=self.std)
        torch.addcmul(mean, self.std, self.noise, out=self.action)
        return torch.tanh(self.action, out=self.action)

    def density(self) -> Tensor:
        """Return the log-densities ``[N, 1]`` of the actions (SAC, arXiv:1812.05905, equation 26)."""
        torch.mul(self.action, self.action, out=self._space).neg_().add_(1.0).add_(self._epsilon)
        torch.log(self._space, out=self._scratch)
        self._scratch.addcmul_(self.noise, self.noise, value=0.5).add_(self._log_std)
        torch.sum(self._scratch, dim=1, keepdim=True, out=self.log_prob)
        return self.log_prob.neg_().sub_(HALF_LOG_2_PI * self.action.shape[1])

    def loss_gradient(self, value_gradient: Tensor, ent_coef: Tensor, rows: int, out: Tensor) -> None:
        """Write the gradient of the actor's loss ``mean(ent_coef·log_prob - value)`` with respect to the outputs.

        With ``u = mean + std·noise`` and ``a = tanh(u)``, the density's Gaussian part depends on the deviation alone::

            dL/du       = (1 - a²)/M · (2·ent_coef·a/(1 - a² + epsilon) - dvalue/da)
            dL/dmean    = dL/du
            dL/dlog_std = dL/du · std·noise - ent_coef/M    (0 where log_std is clamped)

        Args:
            value_gradient: the value's gradient with respect to the actions, ``[M, A]``.
            ent_coef: the entropy's weight, a tensor of one element.
            rows: ``M``, the first samples, which the loss is about.
            out: ``[M, 2·A]``.
        """
        action, space = self.action[:rows], self._space[:rows]
        mean, log_std = out.chunk(2, dim=1)
        torch.div(action, space, out=mean).mul_(2.0 * ent_coef).sub_(value_gradient)
        slope = torch.mul(action, action, out=self._scratch[:rows]).neg_().add_(1.0)
        mean.mul_(slope).mul_(1.0 / rows)
        torch.mul(mean, self.std[:rows], out=log_std).mul_(self.noise[:rows]).sub_(ent_coef / rows)
        log_std.mul_(self._raw[:rows] == self._log_std[:rows])
