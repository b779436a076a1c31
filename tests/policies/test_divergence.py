"""Divergences of policies' own distributions, and which parameters those depend on."""

import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common import policies as sb3
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import distributions, nn

from maxent_onpolicy.policies.actor_critic import ActorCriticPolicy, MaxEntActorCriticPolicy, with_entropy_head
from maxent_onpolicy.policies.actor_parameters import actor_parameters
from maxent_onpolicy.policies.divergence import (
    divergence_from,
    kl_divergence,
    parameters_of,
    remember,
    uniform_divergence,
)

OBSERVATIONS = spaces.Box(-1, 1, (4,))
BOX = spaces.Box(-1, 1, (2,))
KINDS = {
    "gaussian": (BOX, {}),
    "state-dependent": (BOX, {"state_dependent_std": True}),
    "bounded": (BOX, {"log_std_bounds": (-3, 1)}),
    "tanh": (BOX, {"action_distribution": "tanh_gaussian"}),
    "beta": (BOX, {"action_distribution": "beta"}),
    "gSDE": (BOX, {"use_sde": True}),
    "discrete": (spaces.Discrete(3), {}),
    "multi-discrete": (spaces.MultiDiscrete([2, 3]), {}),
    "multi-binary": (spaces.MultiBinary(3), {}),
}


def make(space, kwargs, kind=ActorCriticPolicy):
    torch.manual_seed(0)
    return kind(OBSERVATIONS, space, lambda _: 1e-3, **kwargs)


def move(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize(("space", "kwargs"), KINDS.values(), ids=KINDS)
def test_divergences_of_policies_are_torchs(space, kwargs):
    policy = make(space, kwargs)
    observation = torch.rand(6, 4)
    with torch.no_grad():
        old = remember(policy.get_distribution(observation))
        kept = kl_divergence(policy.get_distribution(observation), old)
        move(policy)
        new = policy.get_distribution(observation)
    torch.testing.assert_close(kept, torch.zeros_like(kept), atol=1e-6, rtol=0)
    if isinstance(new.distribution, list):
        parts = zip(new.distribution, old.distribution, strict=True)
        expected = sum(distributions.kl_divergence(p, q) for p, q in parts)
    else:
        expected = distributions.kl_divergence(new.distribution, old.distribution)
    torch.testing.assert_close(kl_divergence(new, old), expected)
    assert kl_divergence(new, old).mean() > 1e-4


@pytest.mark.parametrize(("space", "kwargs"), KINDS.values(), ids=KINDS)
def test_parameters_alone_tell_how_far_a_policy_has_moved(space, kwargs):
    policy = make(space, kwargs)
    observation = torch.rand(6, 4)
    with torch.no_grad():
        distribution = policy.get_distribution(observation)
        old, kept = remember(distribution), parameters_of(distribution)
        move(policy)
        new = policy.get_distribution(observation)
    kl = kl_divergence(new, old)
    torch.testing.assert_close(divergence_from(new, kept), kl if kl.dim() == 1 else kl.sum(1))


@pytest.mark.parametrize(
    ("space", "choices"), [(spaces.Discrete(3), 3), (spaces.MultiDiscrete([2, 3]), 6), (spaces.MultiBinary(3), 8)]
)
def test_the_uniform_policy_has_the_largest_entropy(space, choices):
    policy = make(space, {})
    move(policy)
    distribution = policy.get_distribution(torch.rand(6, 4))
    expected = torch.tensor(float(choices)).log() - distribution.entropy()
    torch.testing.assert_close(uniform_divergence(distribution), expected)
    assert (uniform_divergence(distribution) > 0).all()


def test_continuous_actions_have_no_uniform_policy():
    with pytest.raises(ValueError, match=r"no uniform policy over continuous actions \(Normal\)"):
        uniform_divergence(make(BOX, {}).get_distribution(torch.rand(1, 4)))


def test_the_divergence_of_a_squashed_gaussian_is_that_of_its_samples():
    policy = make(BOX, {"action_distribution": "tanh_gaussian"})
    observation = torch.rand(1, 4).expand(200_000, 4)
    with torch.no_grad():
        old = remember(policy.get_distribution(observation))
        move(policy)
        new = policy.get_distribution(observation)
        action = new.sample()
        estimate = (new.log_prob(action) - old.log_prob(action)).mean()
    assert estimate.item() == pytest.approx(kl_divergence(new, old).sum(1).mean().item(), rel=0.05)


def test_a_distribution_without_a_closed_form_is_named():
    class Unknown(distributions.Distribution):
        arg_constraints = {}  # noqa: RUF012 - torch's own convention

    class Wrapper:
        distribution = Unknown()

    with pytest.raises(ValueError, match="the action distribution Unknown has no closed form"):
        kl_divergence(Wrapper(), Wrapper())


def names(policy, parameters):
    found = {id(parameter): name for name, parameter in policy.named_parameters()}
    return [found[id(parameter)] for parameter in parameters]


def found_by_autograd(policy, action):
    policy.actor_parameters = lambda: None
    return actor_parameters(policy, torch.rand(5, 4), action)


class Extractor(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 3)
        self.layer = nn.Linear(4, 3)

    def forward(self, observation):
        return self.layer(observation)


@pytest.mark.parametrize(("space", "kwargs"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared extractor", "two extractors"])
@pytest.mark.parametrize("kind", [ActorCriticPolicy, MaxEntActorCriticPolicy])
def test_the_list_of_our_policies_is_what_autograd_finds(kind, shared, space, kwargs):
    own = {"entropy_net_arch": [8], "popart": True} if kind is MaxEntActorCriticPolicy else {}
    extractor = {"features_extractor_class": Extractor, "share_features_extractor": shared}
    policy = make(space, kwargs | own | extractor, kind)
    with torch.no_grad():
        action = policy.get_distribution(torch.rand(5, 4)).sample()
    listed = actor_parameters(policy, torch.rand(5, 4), action)
    assert names(policy, listed) == names(policy, policy.actor_parameters())
    assert names(policy, listed) == names(policy, found_by_autograd(policy, action))
    assert not any("value" in name or "entropy" in name for name in names(policy, listed))
    assert "features_extractor.layer.weight" in names(policy, listed)
    assert shared or "vf_features_extractor.layer.weight" not in names(policy, listed)


class Foreign(sb3.ActorCriticPolicy):
    """Named to mislead: the actor's last layer is called a value, the critic's an action; one layer is unused."""

    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        self.value_of_actions = nn.Linear(64, 2)
        self.action_critic = nn.Linear(64, 1)
        self.unused = nn.Linear(1, 1)

    def _get_action_dist_from_latent(self, latent_pi):
        return self.action_dist.proba_distribution(self.value_of_actions(latent_pi), self.log_std)

    def predict_values(self, obs):
        return self.action_critic(self.mlp_extractor.forward_critic(self.extract_features(obs)))


@pytest.mark.parametrize("kind", [Foreign, with_entropy_head(Foreign)])
def test_names_do_not_decide_what_belongs_to_the_actor(kind):
    policy = make(BOX, {}, kind)
    found = names(policy, actor_parameters(policy, torch.rand(5, 4), torch.rand(5, 2)))
    trunk = [f"mlp_extractor.policy_net.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    assert found == ["log_std", *trunk, "value_of_actions.weight", "value_of_actions.bias"]


class SharedTrunk(ActorCriticPolicy):
    """Ours, but what the actor sees goes through the critic's network first."""

    def _get_action_dist_from_latent(self, latent_pi):
        return super()._get_action_dist_from_latent(self.mlp_extractor.value_net(self.before(latent_pi)))

    def _build(self, lr_schedule):
        self.before = nn.Linear(64, 4)
        super()._build(lr_schedule)


def test_a_subclass_of_ours_with_networks_of_its_own_is_looked_at():
    policy = make(BOX, {}, SharedTrunk)
    assert policy.actor_parameters() is None
    found = names(policy, actor_parameters(policy, torch.rand(5, 4), torch.rand(5, 2)))
    assert {"before.weight", "mlp_extractor.value_net.0.weight", "action_net.weight"} <= set(found)
    assert "value_net.weight" not in found


def test_frozen_parameters_are_left_out_and_freezing_all_is_an_error():
    policy = make(BOX, {})
    policy.action_net.requires_grad_(False)
    assert "action_net.weight" not in names(policy, actor_parameters(policy, torch.rand(5, 4), torch.rand(5, 2)))
    policy.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter of ActorCriticPolicy changes its actions"):
        actor_parameters(policy, torch.rand(5, 4), torch.rand(5, 2))


def test_looking_for_the_actor_changes_no_statistics():
    class Normed(Extractor):
        def __init__(self, observation_space):
            super().__init__(observation_space)
            self.layer = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    policy = make(BOX, {"features_extractor_class": Normed}, sb3.ActorCriticPolicy)
    policy.set_training_mode(True)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    actor_parameters(policy, torch.rand(5, 4), torch.rand(5, 2))
    assert policy.training
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
