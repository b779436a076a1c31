"""PPO's loss, brought to its minimum, is one step of multiplicative weights."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv

from maxent_onpolicy import PPO
from maxent_onpolicy.algorithms.controlled import ClipRanges
from maxent_onpolicy.engine.buffer import Minibatch
from maxent_onpolicy.envs.toys import TwoStateEnv
from maxent_onpolicy.games.matrix import MatrixGame
from maxent_onpolicy.games.solvers.omwu import OMWU

NO_CLIP = ClipRanges(1e9, None)


class InParametersPrecision(FlattenExtractor):
    """Observations in the policy's own precision: SB3 makes them single."""

    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.register_buffer("like", torch.zeros(()))

    def forward(self, observations):
        return super().forward(observations).to(self.like.dtype)


class OneHotPlayers(TwoStateEnv):
    """As many actions as wanted, and who acts as the observation: enough to build a policy with a logit for each."""

    def __init__(self, n_actions):
        super().__init__()
        self.action_space = spaces.Discrete(n_actions)
        self.observation_space = spaces.Box(0, 1, (2,), np.float32)


def tabular(n_actions, eta, tau):
    """PPO with a table of logits in double precision, and the inner step's two penalties.

    The entropy bonus is ητ·H, and the divergence from the previous policy has the weight 1.
    """
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([lambda: OneHotPlayers(n_actions)]),
        n_steps=2,
        batch_size=2,
        normalize_advantage=False,
        ent_coef=eta * tau,
        vf_coef=0.0,
        magnet="previous",
        magnet_coef=1.0,
        policy_kwargs={"net_arch": [], "features_extractor_class": InParametersPrecision},
        device="cpu",
        engine="eager",
    )
    model.policy.double()
    model.magnet_policy.double()
    model.policy.action_net.weight.data.zero_()
    model.policy.action_net.bias.data.zero_()
    return model


def probabilities(model):
    with torch.no_grad():
        return model.policy.get_distribution(torch.eye(2, dtype=torch.float64)).distribution.probs


def inner_step(model, action_values, eta):
    """Minimise the loss on a rollout that has every action of both players, weighted as the old policy takes it."""
    model._move_magnet()
    seen = torch.eye(2, dtype=torch.float64)
    old = model.magnet_policy.get_distribution(seen).distribution
    players, n_actions = action_values.shape
    rows = torch.arange(players).repeat_interleave(n_actions)
    actions = torch.arange(n_actions).repeat(players)
    # Σ_a π(a)·ηQ(a) as a mean over n actions of ratio·advantage.
    advantage = n_actions * old.probs * eta * action_values
    zeros = torch.zeros(len(rows), dtype=torch.float64)
    batch = Minibatch(
        observation=seen[rows],
        action=actions,
        value=zeros,
        log_prob=old.logits[rows, actions],
        advantage=advantage.flatten(),
        value_target=zeros,
        magnet=old.logits[rows],
    )
    parameters = [model.policy.action_net.weight]
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, tolerance_grad=1e-13, tolerance_change=0, history_size=50,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss, _ = model._loss(batch, NO_CLIP)
        loss.backward(inputs=parameters)
        return loss

    optimizer.step(closure)


@pytest.mark.filterwarnings("ignore:eta=.* is above")
@pytest.mark.parametrize(("n_actions", "eta", "tau", "seed"), [(2, 0.5, 0.1, 0), (3, 1.0, 0.3, 1), (5, 0.2, 1.0, 2)])
def test_updates_with_exact_values_are_multiplicative_weights(n_actions, eta, tau, seed):
    generator = torch.Generator().manual_seed(seed)
    payoff = 2 * torch.rand(n_actions, n_actions, generator=generator, dtype=torch.float64) - 1
    # π' ∝ (π·exp(ηQ))^(1/(1 + ητ)) keeps 1 − η'τ of the old logits, with η' = η/(1 + ητ).
    solver = OMWU(MatrixGame(payoff), tau, eta=eta / (1 + eta * tau), variant="mwu")
    model = tabular(n_actions, eta, tau)
    for _ in range(4):
        first, second = probabilities(model)
        inner_step(model, torch.stack([payoff @ second, -(first @ payoff)]), eta)
        solver.learn(1)
        torch.testing.assert_close(probabilities(model), torch.stack(list(solver.policy("last"))), rtol=1e-6, atol=1e-7)
    assert (probabilities(model) - 1 / n_actions).abs().max() > 0.01
