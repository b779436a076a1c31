"""The entropy head, PopArt and the distributions inside SB3's policies."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy as SB3Policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import ConstantSchedule

from maxent_onpolicy.policies.actor_critic import (
    ActorCriticPolicy,
    MaxEntActorCriticPolicy,
    MaxEntMultiInputActorCriticPolicy,
    with_entropy_head,
)
from maxent_onpolicy.policies.heads import PopArtLinear, head_scale

OBSERVATION = spaces.Box(-1, 1, (4,), np.float32)
ACTION = spaces.Box(-2, 2, (2,), np.float32)
LR = ConstantSchedule(1e-3)


def make(cls, seed=0, **kwargs):
    torch.manual_seed(seed)
    return cls(OBSERVATION, ACTION, LR, **kwargs)


def observations(n=16, seed=1):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kwargs", [{}, {"ortho_init": False}, {"share_features_extractor": False}, {"net_arch": []}])
def test_the_head_leaves_sb3s_parameters_and_random_numbers_alone(kwargs):
    theirs = make(SB3Policy, **kwargs)
    their_noise = torch.rand(3)
    for head in ({}, {"popart": True}, {"entropy_net_arch": [8, 8]}, {"entropy_net_arch": None}):
        ours = make(MaxEntActorCriticPolicy, **kwargs, **head)
        assert torch.equal(torch.rand(3), their_noise)
        state = ours.state_dict()
        for name, value in theirs.state_dict().items():
            assert torch.equal(state[name], value), name


@pytest.mark.parametrize(
    ("net_arch", "entropy_net_arch", "widths"),
    [
        ([8, 6], "critic", [8, 6]),
        ({"pi": [4], "vf": [8, 6]}, "critic", [8, 6]),
        ({"pi": [4]}, "critic", None),
        ([], "critic", None),
        ([8, 6], [5], [5]),
        ([8, 6], [], []),
        ([8, 6], None, None),
    ],
)
def test_the_entropy_critics_network(net_arch, entropy_net_arch, widths):
    policy = make(MaxEntActorCriticPolicy, net_arch=net_arch, entropy_net_arch=entropy_net_arch)
    if widths is None:
        assert policy.entropy_trunk is None
        return
    assert [layer.out_features for layer in policy.entropy_trunk if hasattr(layer, "out_features")] == widths
    before = policy.predict_values(observations())
    loss = policy.predict_entropy_values(observations()).square().sum()
    loss.backward()
    assert all(parameter.grad is None for parameter in policy.mlp_extractor.parameters())
    assert torch.equal(policy.predict_values(observations()), before)


def test_networks_of_the_entropy_critic_that_there_are_not():
    with pytest.raises(ValueError, match="`entropy_net_arch` must be a list of widths, 'critic' or None; got 'actor'"):
        make(MaxEntActorCriticPolicy, entropy_net_arch="actor")


def test_every_parameter_is_optimised():
    policy = make(MaxEntActorCriticPolicy, popart=True, entropy_net_arch=[8])
    optimised = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in policy.parameters()}


@pytest.mark.parametrize("head", [{}, {"popart": True}, {"entropy_net_arch": [8]}], ids=str)
def test_a_policys_own_optimiser_is_kept_and_takes_in_the_head(head):
    class Decays(SB3Policy):
        def _build(self, lr_schedule):
            super()._build(lr_schedule)
            weights = [p for p in self.parameters() if p.dim() > 1]
            others = [p for p in self.parameters() if p.dim() <= 1]
            groups = [{"params": weights, "weight_decay": 0.1}, {"params": others}]
            self.optimizer = torch.optim.AdamW(groups, lr=lr_schedule(1), weight_decay=0.0)

    policy = make(with_entropy_head(Decays), **head)
    assert [group["weight_decay"] for group in policy.optimizer.param_groups] == [0.1, 0.0, 0.0]
    optimised = [id(p) for group in policy.optimizer.param_groups for p in group["params"]]
    assert sorted(optimised) == sorted(id(p) for p in policy.parameters())


def test_popart_needs_a_linear_critic():
    class Deep(SB3Policy):
        def _build(self, lr_schedule):
            super()._build(lr_schedule)
            self.value_net = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 1))

    with pytest.raises(ValueError, match="needs a critic that ends in a Linear layer with one output, got Sequential"):
        make(with_entropy_head(Deep), popart=True)


def test_one_pass_equals_separate_passes():
    for kwargs in ({}, {"entropy_net_arch": [8]}, {"share_features_extractor": False}, {"popart": True}):
        policy = make(MaxEntActorCriticPolicy, **kwargs)
        obs, actions = observations(), torch.randn(16, 2)
        values, entropy_values, log_prob, entropy = policy.evaluate_actions_and_entropy_values(obs, actions)
        expected_values, expected_log_prob, expected_entropy = policy.evaluate_actions(obs, actions)
        torch.testing.assert_close(values, expected_values)
        torch.testing.assert_close(log_prob, expected_log_prob)
        torch.testing.assert_close(entropy, expected_entropy)
        torch.testing.assert_close(entropy_values, policy.predict_entropy_values(obs))
        assert entropy_values.shape == (16, 1)


def test_an_overridden_evaluation_is_honoured():
    class Doubled(SB3Policy):
        def evaluate_actions(self, obs, actions):
            values, log_prob, entropy = super().evaluate_actions(obs, actions)
            return 2 * values, log_prob, entropy

    policy = make(with_entropy_head(Doubled))
    obs, actions = observations(), torch.randn(16, 2)
    values, entropy_values, _, _ = policy.evaluate_actions_and_entropy_values(obs, actions)
    torch.testing.assert_close(values, 2 * policy.predict_values(obs))
    torch.testing.assert_close(entropy_values, policy.predict_entropy_values(obs))


def test_with_entropy_head_keeps_classes_that_have_one():
    assert with_entropy_head(MaxEntActorCriticPolicy) is MaxEntActorCriticPolicy
    assert issubclass(with_entropy_head(SB3Policy), SB3Policy)
    with pytest.raises(ValueError, match="subclass of SB3's ActorCriticPolicy"):
        with_entropy_head(torch.nn.Linear)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"action_distribution": "tanh_gaussian", "log_std_bounds": (-4, 1)},
        {"action_distribution": "beta", "popart": True},
        {"state_dependent_std": True, "entropy_net_arch": [8]},
    ],
)
def test_policies_survive_their_own_save_and_load(tmp_path, kwargs):
    policy = make(MaxEntActorCriticPolicy, **kwargs)
    policy.save(tmp_path / "policy.pt")
    loaded = MaxEntActorCriticPolicy.load(tmp_path / "policy.pt", device="cpu")
    obs = observations()
    torch.testing.assert_close(loaded.predict_entropy_values(obs), policy.predict_entropy_values(obs))
    np.testing.assert_array_equal(
        loaded.predict(obs.numpy(), deterministic=True)[0], policy.predict(obs.numpy(), deterministic=True)[0]
    )


@pytest.mark.parametrize("distribution", ["tanh_gaussian", "beta"])
def test_squashed_actions_are_rescaled_to_the_environments_bounds(distribution):
    policy = make(ActorCriticPolicy, action_distribution=distribution)
    assert policy.squash_output
    raw, _, _ = policy(observations())
    assert (raw.abs() < 1).all()
    actions, _ = policy.predict(observations().numpy(), deterministic=False)
    assert np.abs(actions).max() > 1.0
    assert (np.abs(actions) <= 2.0).all()


def test_the_initial_deviation_is_log_std_init():
    for kwargs in ({}, {"state_dependent_std": True}, {"log_std_bounds": (-3, 1)}):
        policy = make(ActorCriticPolicy, action_distribution="gaussian", log_std_init=-0.7, **kwargs)
        distribution = policy.get_distribution(observations())
        torch.testing.assert_close(distribution.stddev().log(), torch.full((16, 2), -0.7), atol=0.05, rtol=0)


@pytest.mark.parametrize("distribution", ["gaussian", "tanh_gaussian"])
def test_the_initial_deviation_may_be_an_integer(distribution):
    policy = make(ActorCriticPolicy, action_distribution=distribution, log_std_init=-1)
    assert policy.log_std.tolist() == [-1.0, -1.0]


def test_noise_matrices_and_distributions_exclude_each_other():
    with pytest.raises(ValueError, match="`use_sde=True` brings its own distribution"):
        make(ActorCriticPolicy, use_sde=True, action_distribution="beta")
    with pytest.raises(ValueError, match=r"leave out .*`log_std_bounds`"):
        make(ActorCriticPolicy, use_sde=True, log_std_bounds=(-1, 1))


def test_dictionary_observations():
    space = spaces.Dict({"a": spaces.Box(-1, 1, (3,), np.float32), "b": spaces.Discrete(4)})
    policy = MaxEntMultiInputActorCriticPolicy(space, spaces.Discrete(3), LR)
    obs = {"a": torch.randn(5, 3), "b": torch.randint(0, 4, (5, 1))}
    assert policy.predict_entropy_values(obs).shape == (5, 1)


def test_popart_keeps_its_predictions_when_its_statistics_move():
    head = PopArtLinear(8)
    features = torch.randn(32, 8)
    for target in (1000 + 50 * torch.randn(500), 3000 + 5 * torch.randn(500), -20 + torch.randn(500)):
        before = head(features)
        head.update(target)
        torch.testing.assert_close(head(features), before, rtol=1e-3, atol=1e-2)


def test_poparts_first_update_does_not_zero_the_head():
    head = PopArtLinear(8)
    weight = head.weight.clone()
    target = 5.0 + 2.0 * torch.randn(1000)
    head.update(target)
    torch.testing.assert_close(head.weight, weight / target.std(unbiased=False))
    mean, std = head.moments
    torch.testing.assert_close(mean, target.mean(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(std, target.std(unbiased=False), rtol=1e-5, atol=1e-5)


def test_poparts_gradient_is_that_of_the_normalised_error():
    head = PopArtLinear(3)
    head.update(100 + 10 * torch.randn(1000))
    features, target = torch.randn(6, 3), 100 + 10 * torch.randn(6)
    mean, std = head.moments
    loss = torch.nn.functional.mse_loss(head(features).flatten(), target) / head_scale(head) ** 2
    (gradient,) = torch.autograd.grad(loss, head.weight)
    normalised = torch.nn.functional.linear(features, head.weight, head.bias).flatten()
    expected_loss = torch.nn.functional.mse_loss(normalised, (target - mean) / std)
    (expected,) = torch.autograd.grad(expected_loss, head.weight)
    torch.testing.assert_close(gradient, expected)


def test_a_plain_head_has_unit_scale():
    assert head_scale(torch.nn.Linear(3, 1)) == 1.0


def test_the_seed_decides_the_weights_of_separate_feature_extractors():
    class Linear(BaseFeaturesExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space, 8)
            self.layer = torch.nn.Linear(4, 8)

        def forward(self, observations):
            return self.layer(observations)

    kwargs = {
        "action_distribution": "beta",
        "share_features_extractor": False,
        "features_extractor_class": Linear,
    }
    # All alive at once, so that they differ in their addresses.
    policies = [make(ActorCriticPolicy, **kwargs) for _ in range(16)]
    for policy in policies[1:]:
        assert torch.equal(policy.vf_features_extractor.layer.weight, policies[0].vf_features_extractor.layer.weight)
