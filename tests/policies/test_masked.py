"""Policies that take legal actions only: against SB3's policy, sb3-contrib's distribution and by hand."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import MaskableCategorical
from stable_baselines3.common import policies as sb3
from torch import distributions

from maxent_onpolicy.estimators.trust_region import categorical_kl
from maxent_onpolicy.policies.actor_critic import MaxEntActorCriticPolicy
from maxent_onpolicy.policies.aliases import PolicyAliases
from maxent_onpolicy.policies.divergence import divergence_from, kl_divergence, parameters_of, remember
from maxent_onpolicy.policies.masked import (
    MaskedActorCriticPolicy,
    MaskedCategorical,
    MaxEntMaskedActorCriticPolicy,
)

ACTIONS = spaces.Discrete(4)
VECTOR = spaces.Box(-1, 1, (5,), np.float32)
SPACE = spaces.Dict({"observation": VECTOR, "action_mask": spaces.MultiBinary(4)})
MASKS = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 1, 1, 1]], dtype=torch.int8)


def make(kind=MaskedActorCriticPolicy, space=SPACE, **kwargs):
    torch.manual_seed(0)
    return kind(space, ACTIONS, lambda _: 1e-3, **kwargs)


def observations(mask=MASKS):
    generator = torch.Generator().manual_seed(1)
    return {"observation": torch.rand(len(mask), 5, generator=generator), "action_mask": mask}


def spread(policy, scale=3.0):
    """Make the policy far from uniform."""
    torch.manual_seed(5)
    with torch.no_grad():
        policy.action_net.weight.normal_(0, scale)
    return policy


@pytest.mark.parametrize("kwargs", [{}, {"net_arch": []}, {"ortho_init": False}, {"share_features_extractor": False}])
def test_with_all_actions_legal_it_is_sb3s_policy_bit_for_bit(kwargs):
    masked, plain = make(**kwargs), make(sb3.ActorCriticPolicy, VECTOR, **kwargs)
    batch = observations(torch.ones_like(MASKS))
    for name, value in plain.state_dict().items():
        assert torch.equal(masked.state_dict()[name], value), name
    results = []
    for policy, seen in ((masked, batch), (plain, batch["observation"])):
        torch.manual_seed(3)
        forward = policy(seen)
        evaluated = policy.evaluate_actions(seen, forward[0])
        (evaluated[1].mean() + evaluated[2].mean() + evaluated[0].pow(2).mean()).backward()
        gradients = [parameter.grad for parameter in policy.parameters()]
        results.append([*forward, *evaluated, policy.predict_values(seen), *gradients])
    assert len(results[0]) == len(results[1])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_the_entropy_critics_policy_is_the_same_too():
    masked, plain = make(MaxEntMaskedActorCriticPolicy), make(MaxEntActorCriticPolicy, VECTOR)
    batch = observations(torch.ones_like(MASKS))
    actions = torch.tensor([0, 1, 2, 3])
    ours = masked.evaluate_actions_and_entropy_values(batch, actions)
    theirs = plain.evaluate_actions_and_entropy_values(batch["observation"], actions)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_illegal_actions_have_no_probability_and_are_never_taken():
    policy = spread(make())
    batch = observations()
    legal = MASKS.bool()
    with torch.no_grad():
        distribution = policy.get_distribution(batch).distribution
        many = {key: value.repeat_interleave(500, 0) for key, value in batch.items()}
        taken = policy(many)[0].reshape(4, 500)
    assert (distribution.probs[~legal] == 0).all()
    assert (distribution.probs[legal] > 0).all()
    torch.testing.assert_close(distribution.probs.sum(1), torch.ones(4))
    assert legal.gather(1, taken).all()
    assert distribution.entropy()[2] == 0
    deterministic, _ = policy.predict({key: value.numpy() for key, value in batch.items()}, deterministic=True)
    assert legal[torch.arange(4), torch.as_tensor(deterministic)].all()


def test_it_is_the_distribution_of_sb3_contrib():
    torch.manual_seed(2)
    logits = 3 * torch.randn(200, 4)
    legal = torch.rand(200, 4) < 0.6
    legal[:, 1] = True
    ours, theirs = MaskedCategorical(logits, legal), MaskableCategorical(logits=logits, masks=legal)
    actions = theirs.sample()
    torch.testing.assert_close(ours.probs, theirs.probs)
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions))


def test_the_entropy_is_that_of_the_legal_actions_alone():
    logits = torch.tensor([[1.0, 2.0, -1.0, 0.5]], dtype=torch.float64)
    masked = MaskedCategorical(logits, torch.tensor([[True, False, True, True]]))
    alone = distributions.Categorical(logits=logits[:, [0, 2, 3]])
    torch.testing.assert_close(masked.entropy(), alone.entropy())
    torch.testing.assert_close(masked.log_prob(torch.tensor([2])), alone.log_prob(torch.tensor([1])))
    assert masked.log_prob(torch.tensor([1])).item() == -math.inf


@pytest.mark.parametrize("weight", [1.0, 1e6])
def test_gradients_are_those_of_finite_differences(weight):
    # A weight above 1 makes infinities of PyTorch's own entropy, and an infinity times 0 is NaN.
    torch.manual_seed(4)
    legal = MASKS.bool()
    old = torch.randn(4, 4, dtype=torch.float64)
    actions = torch.tensor([3, 2, 3, 1])

    def loss(logits):
        new, remembered = MaskedCategorical(logits, legal), MaskedCategorical(old, legal)
        kl = categorical_kl(new.logits, remembered.logits)
        return weight * (new.entropy() + new.log_prob(actions) + kl).sum()

    logits = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, logits, atol=1e-5 * weight)
    assert torch.autograd.gradgradcheck(loss, logits, atol=1e-5 * weight)
    assert (torch.autograd.grad(loss(logits), logits)[0][~legal] == 0).all()


def test_divergences_leave_illegal_actions_out():
    policy = spread(make())
    batch = observations()
    old = remember(policy.get_distribution(batch))
    kept = parameters_of(old).detach()
    spread(policy, 1.0)
    new = policy.get_distribution(batch)
    expected = []
    for row, legal in enumerate(MASKS.bool()):
        parts = [distributions.Categorical(logits=each.distribution.logits[row, legal]) for each in (new, old)]
        expected.append(distributions.kl_divergence(*parts))
    torch.testing.assert_close(kl_divergence(new, old), torch.stack(expected))
    torch.testing.assert_close(divergence_from(new, kept), torch.stack(expected))
    policy.zero_grad()
    divergence_from(new, kept).sum().backward()
    assert all(p.grad.isfinite().all() for p in policy.action_net.parameters())
    assert any((p.grad != 0).any() for p in policy.action_net.parameters())


def test_where_nobody_moves_everything_is_legal():
    nothing = MaskedCategorical(torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.bool))
    torch.testing.assert_close(nothing.probs, torch.full((1, 4), 0.25))


def test_the_mask_is_not_seen_by_the_networks():
    policy = make(MaxEntMaskedActorCriticPolicy)
    batch = observations()
    other = batch | {"action_mask": 1 - MASKS}
    for method in (policy.predict_values, policy.predict_entropy_values):
        assert torch.equal(method(batch), method(other))


def test_names_lead_to_the_policies():
    assert PolicyAliases.PLAIN["MaskedMlpPolicy"] is MaskedActorCriticPolicy
    assert PolicyAliases.MAX_ENT["MaskedMlpPolicy"] is MaxEntMaskedActorCriticPolicy


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (SPACE, spaces.MultiDiscrete([2, 2]), r"discrete actions; the action space is MultiDiscrete\(\[2 2\]\)"),
        (VECTOR, ACTIONS, "needs observations with the entries 'observation' and 'action_mask'"),
        (spaces.Dict({"observation": VECTOR}), ACTIONS, "needs observations with the entries"),
        (
            spaces.Dict({"observation": VECTOR, "action_mask": spaces.MultiBinary(3)}),
            ACTIONS,
            r"`action_mask` must have 4 entries, one for each action; its space is MultiBinary\(3\)",
        ),
    ],
)
def test_other_spaces_are_refused(observation, action, message):
    with pytest.raises(ValueError, match=message):
        MaskedActorCriticPolicy(observation, action, lambda _: 1e-3)
