"""Robust policy optimisation (Rahman & Xue, arXiv:2212.07536): PPO that trains with a randomly shifted mean."""

import logging
import re
from typing import Any, Literal

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import DiagGaussianDistribution, StateDependentNoiseDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from maxent_onpolicy.algorithms.ppo import PPO
from maxent_onpolicy.engine.distributed import broadcast_object
from maxent_onpolicy.engine.mean_shift import MeanShift
from maxent_onpolicy.engine.shared_buffer import SharedRolloutBuffer
from maxent_onpolicy.policies.distributions import GaussianDistribution
from maxent_onpolicy.validation import check_range, did_you_mean

Alpha = float | Literal["auto"]

USUAL_ALPHA, SMALL_ALPHA = 0.5, 0.01
# Where 0.5 fails and CleanRL's documentation of RPO takes 0.01.
FRAGILE_TASKS = ("Ant", "InvertedDoublePendulum", "Reacher", "Pusher", "Hopper")
_FRAGILE_ID = re.compile(rf"(.*[/:])?({'|'.join(FRAGILE_TASKS)})(-v\d+)?")

logger = logging.getLogger(__name__)


class MeanShiftMixin(PPO):
    """The shifted mean as a part of PPO and what follows from it.

    Attributes:
        rpo_alpha: bound of the shift, in units of the action; ``"auto"`` until the model is set up. 0 draws nothing.
    """

    rpo_alpha: Alpha
    # The seed that the model was set up with, and that of the shifts.
    _shift_seeds: tuple[int | None, int] | None = None

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if self.rpo_alpha == "auto":
            return
        if isinstance(self.rpo_alpha, str):
            hint = did_you_mean(self.rpo_alpha, ("auto",))
            raise ValueError(f"`rpo_alpha` must be a number of at least 0 or 'auto'; got {self.rpo_alpha!r}{hint}")
        check_range("rpo_alpha", self.rpo_alpha, 0)

    def _setup_model(self) -> None:
        saved = self._shift_seeds
        super()._setup_model()
        if saved is not None and saved[0] == self.seed:  # a loaded model goes on with the shifts it would have drawn
            self._shift_seeds = saved
        if self.rpo_alpha != 0:
            self._check_distribution()
        if self.rpo_alpha == "auto":
            self.rpo_alpha = self._chosen_alpha()

    def _check_distribution(self) -> None:
        """Raise if the policy's distribution is no Gaussian of the action itself."""
        distribution = self.policy.action_dist
        kind = type(distribution)
        squashed_noise = isinstance(distribution, StateDependentNoiseDistribution) and distribution.bijector is not None
        known = (DiagGaussianDistribution, GaussianDistribution, StateDependentNoiseDistribution)
        if kind not in known or squashed_noise:
            what = f"{kind.__name__} over {self.action_space}" + (" with squashed actions" if squashed_noise else "")
            raise ValueError(
                f"`rpo_alpha={self.rpo_alpha!r}` shifts the mean of a Gaussian over continuous actions that is not "
                f"squashed; this policy's distribution is {what}. rpo_alpha=0 shifts nothing"
            )

    def _chosen_alpha(self) -> float:
        """Return what ``"auto"`` stands for in this environment, and say so."""
        name = env_id_of(self.env)
        alpha = alpha_for(name)
        where = "an environment without an id" if name is None else name
        why = f", as {USUAL_ALPHA} is known to fail there" if alpha == SMALL_ALPHA else ""
        message = f"rpo_alpha='auto' is {alpha} for {where}{why}"
        logger.info(message)
        if self.verbose >= 1:
            print(message)
        return alpha

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed all random generators, that of the shifts included."""
        super().set_random_seed(seed)
        if seed is None:
            # Not drawn from torch or numpy: the rollouts stay those of PPO.
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._shift_seeds = self.seed, seed

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        if isinstance(self.rollout_buffer, SharedRolloutBuffer):  # without a seed every rank has found one of its own
            self._shift_seeds = broadcast_object(self._shift_seeds)
        return super()._setup_learn(*args, **kwargs)

    def mean_shift(self) -> MeanShift | None:
        """Return the shifts of the epoch to come, ``None`` where ``rpo_alpha`` is 0."""
        if self.rpo_alpha == 0:
            return None
        assert self._shift_seeds is not None
        alpha = float(self.rpo_alpha)
        return MeanShift(alpha, get_action_dim(self.action_space), self._shift_seeds[1], self._n_updates, self.device)


class RPO(MeanShiftMixin):
    """PPO whose update shifts the policy's mean at random, which keeps the policy from becoming deterministic early.

    A rollout samples from ``N(μ, σ)``. In the update every minibatch has a fresh ``z ~ U(−α, α)`` for each action
    component, and the log-probability, with what follows from it, is that under ``N(μ + z, σ)``. With ``rpo_alpha=0``
    this is :class:`~maxent_onpolicy.PPO` bit for bit.

    Args:
        policy: as :class:`~maxent_onpolicy.PPO`; its actions must be continuous and Gaussian, without squashing.
        env: as PPO.
        *args: further arguments of PPO, in its order.
        rpo_alpha: α, in units of the action (of the environment's, where the policy does not rescale it). ``"auto"``:
            0.01 in Ant, InvertedDoublePendulum, Reacher, Pusher and Hopper of any version, where 0.5 is known to fail,
            and 0.5 elsewhere; the model then holds the number.
        **kwargs: every keyword of :class:`~maxent_onpolicy.PPO`.

    Raises:
        ValueError: for an argument outside its range, and for discrete, squashed or Beta-distributed actions.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *args: Any,
        rpo_alpha: Alpha = "auto",
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, *args, _init_setup_model=False, **kwargs)  # type: ignore[misc]
        self.rpo_alpha = rpo_alpha
        if _init_setup_model:
            self._setup_model()


def alpha_for(env_id: str | None) -> float:
    """Return the bound of the shift that ``rpo_alpha="auto"`` takes for an environment's id."""
    return SMALL_ALPHA if env_id is not None and _FRAGILE_ID.fullmatch(env_id) else USUAL_ALPHA


def env_id_of(env: VecEnv | None) -> str | None:
    """Return the id under which environments were made, ``None`` where they have none."""
    if env is None:
        return None
    own = getattr(env.unwrapped, "env_id", None)
    if isinstance(own, str):
        return own
    try:
        spec = env.get_attr("spec")[0]
    except AttributeError:  # environments on a device are no Gymnasium environments
        return None
    return getattr(spec, "id", None)
