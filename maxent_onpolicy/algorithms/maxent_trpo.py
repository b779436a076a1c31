"""TRPO on the soft advantage ``A + τ·A_H`` (Choe & Kim, arXiv:2407.18143)."""

from torch import Tensor

from maxent_onpolicy.algorithms.maxent import EntropyCriticMixin
from maxent_onpolicy.algorithms.trpo import TRPO
from maxent_onpolicy.engine.buffer import Minibatch
from maxent_onpolicy.estimators.losses import value_loss
from maxent_onpolicy.policies.heads import head_scale


class MaxEntTRPO(EntropyCriticMixin, TRPO):
    """TRPO with a second critic for the policy's discounted future entropy.

    The natural-gradient step follows ``A + τ·A_H``. The task's critic sees the
    task's reward only; the entropy critic has its own discount and trace. With
    ``tau=0`` this is :class:`~maxent_onpolicy.TRPO` bit for bit.

    Args:
        policy: as :class:`~maxent_onpolicy.TRPO`. Policies without an entropy head get one.
        env: as TRPO.
        *args: further arguments of TRPO, in its order.
        tau: temperature: a float, a function of the remaining progress (1 → 0), or ``"auto"``: dual ascent until the
            policy's entropy meets ``target_entropy``. What it is measured in, ``advantage_normalization`` says. The
            default falls from 0.1 to 0 in the first quarter of each call of ``learn``, so give a number to train in
            many short calls.
        entropy_gamma: discount γ_H of future entropy.
        entropy_gae_lambda: trace decay λ_H of the entropy advantage; 0 is the one-step TD error.
        entropy_vf_coef: c₂, weight of the entropy critic's loss relative to the value loss.
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
        **kwargs: every keyword of :class:`~maxent_onpolicy.TRPO`; ``popart`` rescales both critics, each with
            statistics of its own.

    Raises:
        ValueError: for an argument outside its range, naming it, its value and what is allowed.
    """

    def _critic_loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.uses_entropy_critic:
            return super()._critic_loss(batch)
        assert batch.entropy_value_target is not None
        values, entropy_values = self.policy.predict_both_values(batch.observation)
        loss, metrics = self._value_loss(values, batch)
        scale = head_scale(self.policy.entropy_value_net)
        entropy_loss = value_loss(entropy_values.flatten(), batch.entropy_value_target, scale)
        return loss + self.entropy_vf_coef * entropy_loss, metrics | {"entropy_value_loss": entropy_loss.detach()}
