"""The packed engine's TRPO against autograd: divergences, Fisher-vector products, whole updates, and its pieces."""

import numpy as np
import pytest
import torch
from engine_helpers import largest_difference, parameters, random_envs, share_rollout
from gymnasium import spaces

from maxent_onpolicy import TRPO, MaxEntTRPO, make_vec_env
from maxent_onpolicy.engine.packed import actor as packed_actor
from maxent_onpolicy.engine.packed.actor import RolloutActor
from maxent_onpolicy.engine.packed.engine import PackedEngine
from maxent_onpolicy.engine.packed.layout import make_split_layout
from maxent_onpolicy.engine.packed.model import PackedModel
from maxent_onpolicy.engine.packed.trust_region import PackedTrustRegionEngine
from maxent_onpolicy.estimators.trust_region import flat_gradient, hessian_vector_product, mean_kl
from maxent_onpolicy.policies.divergence import kl_divergence, remember

pytestmark = pytest.mark.filterwarnings("ignore:.*truncated mini-batch")
SMALL = {"n_steps": 40, "batch_size": 32, "n_critic_updates": 3, "seed": 5, "device": "cpu"}
KINDS = {
    "gaussian": (None, {}),
    "state-dependent": (None, {"state_dependent_std": True}),
    "bounded": (None, {"log_std_bounds": (-3, 1)}),
    "state-dependent and bounded": (None, {"log_std_bounds": (-3, 1), "state_dependent_std": True}),
    "tanh": (None, {"action_distribution": "tanh_gaussian"}),
    "relu": (None, {"activation_fn": torch.nn.ReLU, "net_arch": {"pi": [16], "vf": [32, 8]}}),
    "linear": (None, {"net_arch": []}),
    "discrete": (spaces.Discrete(3), {}),
    "multi-discrete": (spaces.MultiDiscrete([2, 3]), {}),
    "equal choices": (spaces.MultiDiscrete([3, 3]), {}),
    "multi-binary": (spaces.MultiBinary(3), {}),
}


def make(algorithm, engine, space=None, policy=None, **kwargs):
    settings = SMALL | {"policy_kwargs": policy or {}, "engine": engine} | kwargs
    return algorithm("MlpPolicy", random_envs(space), **settings)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("space", "policy"), KINDS.values(), ids=KINDS)
def test_products_divergences_and_gradients_are_autograds(space, policy, reduction, monkeypatch):
    monkeypatch.setattr(packed_actor, "COLUMNS", 50)  # several parts, the last one smaller
    model = make(TRPO, "eager", space, policy)
    share_rollout(model, make(TRPO, "eager", space, policy))
    buffer, net = model.rollout_buffer, model.policy
    with torch.no_grad():  # away from the symmetric start
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    observation, action = buffer.flat_observation(), buffer.action.flatten(0, 1)
    advantage, old_log_prob = torch.randn(120), buffer.log_prob.flatten()
    actor = net.actor_parameters()
    with torch.no_grad():
        old = remember(net.get_distribution(observation))
    distribution = net.get_distribution(observation)
    kl = mean_kl(kl_divergence(distribution, old), reduction)
    objective = (advantage * (distribution.log_prob(action) - old_log_prob).exp()).mean()
    gradient = flat_gradient(objective, actor, retain_graph=True)
    kl_gradient = flat_gradient(kl, actor, create_graph=True)
    vector = torch.randn(len(gradient))
    product = hessian_vector_product(kl_gradient, actor, vector)

    packed = PackedModel(net, make_split_layout(net))
    inputs = torch.cat([observation.T, torch.ones(1, 120)])
    own = RolloutActor(packed, inputs, packed.encode_action(action.reshape(120, -1)), reduction)

    def place(values):
        placed = torch.zeros_like(packed.parameters.flat)
        views = {id(parameter): view for parameter, view in packed.parameters.layout.views(net, placed)}
        for part, parameter in zip(values.split([each.numel() for each in actor]), actor, strict=True):
            views[id(parameter)].copy_(part.view_as(parameter))
        return placed[: len(values)]

    with torch.no_grad():
        found, own_gradient = own.surrogate(old_log_prob, advantage)
        assert found == pytest.approx(objective.item(), abs=1e-5)
        torch.testing.assert_close(own_gradient, place(gradient), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own.fisher_product(place(vector)), place(product), rtol=1e-3, atol=1e-5)
        own.parameters += 0.05 * torch.randn_like(own.parameters)
        tried = net.get_distribution(observation)
        expected = (advantage * (tried.log_prob(action) - old_log_prob).exp()).mean()
        objective, divergence = own.evaluate(old_log_prob, advantage)
    assert objective == pytest.approx(expected.item(), abs=1e-5)
    assert divergence == pytest.approx(mean_kl(kl_divergence(tried, old), reduction).item(), rel=1e-3, abs=1e-6)


UPDATES = {
    **{kind: (space, policy, {}) for kind, (space, policy) in KINDS.items()},
    "popart": (None, {}, {"popart": True}),
    "sub-sampling": (None, {}, {"sub_sampling_factor": 3}),
    "sum of dimensions": (None, {}, {"kl_reduction": "sum"}),
    "no normalisation": (None, {}, {"normalize_advantage": False}),
    "one minibatch": (None, {}, {"batch_size": 500}),
}


@pytest.mark.parametrize("algorithm", [pytest.param(TRPO, marks=pytest.mark.slow), MaxEntTRPO])
@pytest.mark.parametrize(("space", "policy", "kwargs"), UPDATES.values(), ids=UPDATES)
def test_an_update_is_the_eager_engines_to_rounding(algorithm, space, policy, kwargs):
    first, second = (make(algorithm, engine, space, policy, **kwargs) for engine in ("eager", "packed"))
    both_train(first, second)


@pytest.mark.parametrize("engine", ["head", "network of its own"])
@pytest.mark.parametrize(
    "kwargs",
    [{"entropy_vf_coef": 0.3}, {"reward_augmentation": True}, {"advantage_normalization": "separate"}, {"tau": "auto"}],
    ids=str,
)
def test_the_entropy_critic_is_trained_alike(engine, kwargs):
    policy = {"entropy_net_arch": [64, 64]} if engine != "head" and "reward_augmentation" not in kwargs else {}
    both_train(*(make(MaxEntTRPO, engine, None, policy, popart=True, **kwargs) for engine in ("eager", "packed")))


def both_train(first, second):
    for _ in range(2):
        share_rollout(first, second)
        for model in (first, second):
            with torch.no_grad():
                model._estimate_advantages(model.rollout_buffer)
        states = torch.get_rng_state(), np.random.get_state()
        first.train()
        ends = torch.get_rng_state(), np.random.get_state()[2]
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        second.train()
        # Both draw the same numbers, so that what follows is the same too.
        assert torch.equal(torch.get_rng_state(), ends[0])
        assert np.random.get_state()[2] == ends[1]
    assert second.current_engine.name == "packed"
    assert isinstance(second.current_engine, PackedTrustRegionEngine)
    assert largest_difference(first, second) < 2e-5
    theirs, ours = first.logger.name_to_value, second.logger.name_to_value
    assert {name for name in theirs if "train/" in name} == {name for name in ours if "train/" in name}
    for name in theirs:
        if name.startswith("train/"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4), name
    assert theirs["train/is_line_search_success"] == 1


def test_optimisers_agree_so_that_engines_can_be_changed():
    """Two updates by one engine, then the third by each."""
    eager, packed = (make(MaxEntTRPO, engine) for engine in ("eager", "packed"))
    both_train(eager, packed)
    eager.engine, eager._engine = "packed", None
    packed.engine, packed._engine = "eager", None
    share_rollout(eager, packed)
    for model in (eager, packed):
        with torch.no_grad():
            model._estimate_advantages(model.rollout_buffer)
    states = torch.get_rng_state(), np.random.get_state()
    eager.train()
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    packed.train()
    assert eager.current_engine.name == "packed"
    assert largest_difference(eager, packed) < 2e-5


def test_the_critics_adam_does_not_touch_the_actor():
    """Even if the actor's moments are not zero, as after training by another algorithm."""
    model = make(TRPO, "packed", normalize_advantage=False)
    share_rollout(model, make(TRPO, "eager"))
    vectors = model.current_engine.model.parameters
    vectors.mean.fill_(1.0)
    vectors.square.fill_(1.0)
    model.rollout_buffer.advantage.zero_()
    size, before = vectors.layout.actor_size, vectors.flat.clone()
    model.train()
    assert torch.equal(vectors.flat[:size], before[:size])
    assert not torch.equal(vectors.flat[size:], before[size:])


def test_the_actor_lies_at_the_beginning_and_shares_no_stack():
    model = make(MaxEntTRPO, "packed", policy={"entropy_net_arch": [64, 64]})
    layout = make_split_layout(model.policy)
    assert [[network.name for network in stack.networks] for stack in layout.stacks] == [
        ["actor"],
        ["critic", "entropy_critic"],
    ]
    assert layout.actor_size == sum(parameter.numel() for parameter in model.policy.actor_parameters())
    assert isinstance(model.current_engine, PackedEngine)
    assert model.current_engine.fits(model)


@pytest.mark.parametrize("kwargs", [{"use_sde": True}, {"policy_kwargs": {"action_distribution": "beta"}}], ids=str)
def test_what_it_does_not_know_the_eager_engine_trains(kwargs):
    model = TRPO("MlpPolicy", random_envs(), **SMALL | kwargs).learn(120)
    assert model.current_engine.name == "eager"
    with pytest.raises(ValueError, match="`engine='packed'` cannot train this model because of"):
        TRPO("MlpPolicy", random_envs(), engine="packed", **SMALL | kwargs).learn(120)


def test_a_loss_of_its_own_is_respected():
    class Own(TRPO):
        def _critic_loss(self, batch):
            loss, metrics = super()._critic_loss(batch)
            return 0.0 * loss, metrics

    model = Own("MlpPolicy", random_envs(), **SMALL)
    before = parameters(model)
    model.learn(120)
    assert model.current_engine.name == "eager"
    names = [name for name, _ in model.policy.named_parameters()]
    value = names.index("value_net.weight")
    assert torch.equal(parameters(model)[value], before[value])


def test_rollouts_on_tensors_are_trained_on_too():
    env = make_vec_env("Pendulum-v1", 4, seed=0, backend="torch", device="cpu")
    model = MaxEntTRPO("MlpPolicy", env, n_steps=64, batch_size=64, n_critic_updates=2, seed=0, device="cpu").learn(512)
    assert model.current_engine.name == "packed"
    assert model.logger.name_to_value["train/is_line_search_success"] == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("algorithm", [TRPO, MaxEntTRPO])
@pytest.mark.parametrize("kind", ["gaussian", "tanh", "discrete", "multi-binary"])
def test_an_update_on_a_gpu_is_the_eager_engines(algorithm, kind):
    space, policy = KINDS[kind]
    first, second = (make(algorithm, engine, space, policy, device="cuda") for engine in ("eager", "packed"))
    share_rollout(first, second)
    for model in (first, second):
        with torch.no_grad():
            model._estimate_advantages(model.rollout_buffer)
    states = torch.cuda.get_rng_state(), np.random.get_state()
    first.train()
    torch.cuda.set_rng_state(states[0])
    np.random.set_state(states[1])
    second.train()
    assert second.current_engine.name == "packed"
    assert largest_difference(first, second) < 1e-4
