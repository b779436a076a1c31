"""Magnets: policies that an update is drawn towards (Sokota et al. 2023, arXiv:2206.05825)."""

import copy
from typing import Any, Literal, get_args

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from maxent_onpolicy.algorithms.actor_critic import ActorCriticAlgorithm
from maxent_onpolicy.engine.buffer import Minibatch, RolloutBuffer
from maxent_onpolicy.policies.divergence import divergence_from, parameters_of, uniform_divergence
from maxent_onpolicy.validation import check_choice, check_integer, check_range

Magnet = Literal["uniform", "previous", "ema"]
MAGNETS: tuple[Magnet, ...] = get_args(Magnet)


class MagnetMixin(ActorCriticAlgorithm):
    """Adds ``magnet_coef·KL(π‖magnet)``, averaged over the states of a minibatch, to the policy's loss.

    Attributes:
        magnet: ``None``, or the kind of magnet; see :class:`~maxent_onpolicy.PPO`.
        magnet_coef: weight of the divergence, in units of the (normalised) advantage per nat.
        magnet_decay: of ``"ema"``.
        magnet_period: of ``"previous"``.
        magnet_policy: the magnet's networks; there are none without a magnet and with the uniform one. It is saved
            with the model.
    """

    magnet: Magnet | None = None
    magnet_coef: float = 0.0
    magnet_decay: float = 0.0
    magnet_period: int = 1
    magnet_policy: ActorCriticPolicy
    # Updates since training began, by which `magnet_period` is counted.
    _magnet_age: int = 0

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_choice("magnet", self.magnet, (None, *MAGNETS))
        check_range("magnet_coef", self.magnet_coef, 0)
        check_range("magnet_decay", self.magnet_decay, 0, 1, high_open=True)
        check_integer("magnet_period", self.magnet_period, 1)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.magnet is None:
            return
        self._check_magnet()
        if self.magnet != "uniform":
            self.magnet_policy = _frozen_copy(self.policy)

    def _check_magnet(self) -> None:
        """Raise if the magnet has no divergence from this policy's distributions."""
        _, observation = next(self.rollout_buffer.chunks(1))
        self.policy.set_training_mode(False)
        with torch.no_grad():
            distribution = self.policy.get_distribution(observation)
        try:
            (uniform_divergence if self.magnet == "uniform" else parameters_of)(distribution)
        except ValueError as error:
            raise ValueError(f"`magnet={self.magnet!r}` does not fit this policy: {error}") from None

    def why_not_packed(self) -> str | None:
        """Return what of this algorithm the packed engine does not know, or ``None``; the policy is asked apart."""
        return super().why_not_packed() if self.magnet is None else f"the magnet (`magnet={self.magnet!r}`)"

    def _before_epochs(self) -> None:
        super()._before_epochs()
        if self.magnet is None or self.magnet == "uniform":
            self.rollout_buffer.magnet = None
            return
        self._move_magnet()
        self.rollout_buffer.magnet = self._magnet_parameters(self.rollout_buffer)

    @torch.no_grad()
    def _move_magnet(self) -> None:
        """Bring the magnet to where it stays for an update."""
        if self.magnet == "ema":
            weight = 1.0 - self.magnet_decay
        else:
            weight = 1.0 if self._magnet_age % self.magnet_period == 0 else 0.0
        self._magnet_age += 1
        if weight == 0.0:
            return
        for parameter, other in zip(self.magnet_policy.parameters(), self.policy.parameters(), strict=True):
            parameter.lerp_(other, weight)
        for buffer, value in zip(self.magnet_policy.buffers(), self.policy.buffers(), strict=True):
            buffer.copy_(value)

    @torch.no_grad()
    def _magnet_parameters(self, buffer: RolloutBuffer) -> Tensor:
        """Return the parameters ``[T, B, P]`` of the magnet's distributions in the rollout's states."""
        parts = [parameters_of(self.magnet_policy.get_distribution(part)) for _, part in buffer.chunks()]
        return torch.cat(parts).unflatten(0, (buffer.buffer_size, buffer.n_envs))

    def _magnet_divergence(self, batch: Minibatch) -> Tensor:
        """Return the mean divergence (nats) of the policy from the magnet."""
        distribution = self.policy.get_distribution(batch.observation)
        if self.magnet == "uniform":
            return uniform_divergence(distribution).mean()
        assert batch.magnet is not None
        return divergence_from(distribution, batch.magnet).mean()

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        if self.magnet is None or self.magnet == "uniform":
            return state_dicts, variables
        return [*state_dicts, "magnet_policy"], variables

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "magnet_policy"]

    def set_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Take over parameters; see SB3.

        Raises:
            ValueError: also if they come from a model with a magnet that has networks, and this one has none, or the
                other way round.
        """
        try:
            super().set_parameters(*args, **kwargs)
        except ValueError as error:
            if "magnet_policy" not in str(error):
                raise
            raise ValueError(
                f"`magnet={self.magnet!r}` does not fit the parameters, which are those of a model with another one; "
                "load the model with its own magnet, and give its `policy.state_dict()` to the policy of a new model"
            ) from error


def _frozen_copy(policy: ActorCriticPolicy) -> ActorCriticPolicy:
    """Return a copy of a policy that is not trained, without its optimiser."""
    optimizer = policy.optimizer
    # Its moments would be copied too.
    frozen = copy.deepcopy(policy, {id(optimizer): None})
    frozen.set_training_mode(False)
    return frozen.requires_grad_(False)
