"""PPO on the soft advantage ``A + τ·A_H`` (Choe & Kim, arXiv:2407.18143)."""

from typing import Any

from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from maxent_onpolicy.algorithms.controlled import ClipRanges
from maxent_onpolicy.algorithms.maxent import EntropyCriticMixin
from maxent_onpolicy.algorithms.rpo import Alpha, MeanShiftMixin
from maxent_onpolicy.engine.buffer import Minibatch
from maxent_onpolicy.estimators.losses import value_loss
from maxent_onpolicy.policies.heads import head_scale


class MaxEntPPO(EntropyCriticMixin, MeanShiftMixin):
    """PPO with a second critic for the policy's discounted future entropy.

    The policy follows ``A + τ·A_H``. The task's critic sees the task's reward
    only; the entropy critic has its own discount and trace. With ``tau=0`` this is
    :class:`~maxent_onpolicy.PPO` bit for bit.

    Args:
        policy: as :class:`~maxent_onpolicy.PPO`. Policies without an entropy head get one.
        env: as PPO.
        *args: further arguments of PPO, in its order.
        tau: temperature: a float, a function of the remaining progress (1 → 0), or ``"auto"``: dual ascent until the
            policy's entropy meets ``target_entropy``. What it is measured in, ``advantage_normalization`` says. The
            default falls from 0.1 to 0 in the first quarter of each call of ``learn``, so give a number to train in
            many short calls.
        entropy_gamma: discount γ_H of future entropy.
        entropy_gae_lambda: trace decay λ_H of the entropy advantage; 0 is the one-step TD error.
        entropy_vf_coef: c₂, weight of the entropy critic's loss relative to the value loss. Small, as nats are large
            beside normalised rewards, and all networks share one bound of the gradient's norm.
        entropy_reward: ``"sampled"`` takes ``−log π(a|s)`` of the action taken, ``"exact"`` the distribution's entropy.
        entropy_centering: subtract the rollout's mean from the entropy reward, so that staying alive earns nothing.
        advantage_normalization: ``"separate"`` normalises ``A`` and ``A_H`` first, so that τ is a ratio whatever the
            scale of rewards; ``"combined"``, as published, normalises ``A + τ·A_H``, with τ in reward per nat,
            which it is also in with ``normalize_advantage=False`` or ``reward_augmentation``.
        reward_augmentation: the single-critic ablation: ``r + τ·(−log π)`` with the task's γ and λ, no entropy critic.
        target_entropy: nats; with ``tau="auto"``. ``None``: −A for continuous actions, half the maximum for discrete.
        initial_tau: where ``tau="auto"`` starts.
        tau_bounds: lowest and highest temperature of ``tau="auto"``.
        tau_learning_rate: Adam's rate for log τ, one step a rollout.
        rpo_alpha: bound of the random shift of the policy's mean in the update, or ``"auto"``; see
            :class:`~maxent_onpolicy.RPO`. 0 shifts nothing.
        **kwargs: every keyword of :class:`~maxent_onpolicy.PPO`; ``popart`` rescales both critics, each with statistics
            of its own.

    Raises:
        ValueError: for an argument outside its range, naming it, its value and what is allowed.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *args: Any,
        rpo_alpha: Alpha = 0.0,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, *args, _init_setup_model=False, **kwargs)
        self.rpo_alpha = rpo_alpha
        if _init_setup_model:
            self._setup_model()

    def _evaluate(self, batch: Minibatch, clip: ClipRanges) -> tuple[Tensor, Tensor | None, Tensor, dict[str, Tensor]]:
        if not self.uses_entropy_critic:
            return super()._evaluate(batch, clip)
        assert batch.entropy_value_target is not None
        values, entropy_values, log_prob, entropy = self.policy.evaluate_actions_and_entropy_values(
            batch.observation,
            batch.action,
        )
        loss = self._value_loss(values.flatten(), batch, clip)
        scale = head_scale(self.policy.entropy_value_net)
        entropy_critic_loss = value_loss(entropy_values.flatten(), batch.entropy_value_target, scale)
        metrics = {"value_loss": loss.detach(), "entropy_value_loss": entropy_critic_loss.detach()}
        return log_prob, entropy, loss + self.entropy_vf_coef * entropy_critic_loss, metrics
