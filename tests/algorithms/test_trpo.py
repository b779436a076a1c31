"""TRPO: sb3-contrib's numbers bit for bit, the trust region, and what may move whom."""

import re

import pytest
import sb3_contrib
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from noise_env import assert_same_parameters, endless
from stable_baselines3.common.distributions import kl_divergence as sb3_kl_divergence

from maxent_onpolicy import TRPO, MaxEntTRPO
from maxent_onpolicy.policies.divergence import remember

ENGINES = ["eager", "packed"]
KWARGS = {"n_steps": 64, "batch_size": 32, "n_critic_updates": 2, "seed": 7, "device": "cpu"}


def test_what_is_logged_is_what_sb3_contrib_logs():
    theirs = sb3_contrib.TRPO("MlpPolicy", endless(4), **KWARGS).learn(256).logger.name_to_value
    ours = TRPO("MlpPolicy", endless(4), engine="eager", **KWARGS).learn(256).logger.name_to_value
    names = [name for name in theirs if name.startswith("train/")]
    assert len(names) == 8
    for name in names:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6), name


def test_a_model_that_sb3_contrib_saved_is_loaded_and_trained_on(tmp_path):
    theirs = sb3_contrib.TRPO("MlpPolicy", endless(2), **KWARGS).learn(128)
    theirs.save(tmp_path / "model")
    ours = TRPO.load(tmp_path / "model", env=endless(2), device="cpu")
    assert_same_parameters(theirs, ours)
    assert ours.learn(128, reset_num_timesteps=False).num_timesteps == 256


def collected(algorithm=TRPO, env=None, **kwargs):
    """A model that has collected its first rollout."""
    model = algorithm("MlpPolicy", endless(4) if env is None else env, **KWARGS | kwargs)
    _, callback = model._setup_learn(10**6)
    model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, model.n_steps)
    return model


def parts(model):
    """The actor's parameters and the others, by name."""
    actor = {id(parameter) for parameter in model.policy.actor_parameters()}
    named = {name: parameter.detach().clone() for name, parameter in model.policy.named_parameters()}
    own = [name for name, parameter in model.policy.named_parameters() if id(parameter) in actor]
    return {name: named[name] for name in own}, {name: named[name] for name in named if name not in own}


KINDS = {
    "gaussian": {},
    "tanh": {"policy_kwargs": {"action_distribution": "tanh_gaussian"}},
    "bounded": {"policy_kwargs": {"log_std_bounds": (-3, 1), "state_dependent_std": True}},
    "beta": {"policy_kwargs": {"action_distribution": "beta"}},
    "discrete": {"env": spaces.Discrete(3)},
    "multi-discrete": {"env": spaces.MultiDiscrete([2, 3])},
    "multi-binary": {"env": spaces.MultiBinary(3)},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_accepted_step_improves_and_stays_in_the_trust_region(kind, reduction, engine):
    """Measured from outside, by SB3's divergence of the policy before and after."""
    kwargs = dict(KINDS[kind])
    space = kwargs.pop("env", None)
    chosen = "eager" if kind == "beta" else engine  # the packed engine does not know Beta
    model = collected(
        env=endless(4, action_space=space), kl_reduction=reduction, target_kl=0.03, engine=chosen, **kwargs
    )
    observation = model.rollout_buffer.flat_observation()
    with torch.no_grad():
        old = remember(model.policy.get_distribution(observation))
    before, _ = parts(model)
    model.train()
    after, _ = parts(model)
    with torch.no_grad():
        kl = sb3_kl_divergence(model.policy.get_distribution(observation), old)
    total = kl.flatten(1).sum(1) if kl.dim() > 1 and reduction == "sum" else kl
    logged = model.logger.name_to_value
    assert logged["train/is_line_search_success"] == 1
    assert 0.01 < total.mean() < 0.03
    assert logged["train/kl_divergence_loss"] == pytest.approx(total.mean().item(), rel=1e-3)
    assert logged["train/policy_objective"] > 0.01
    assert all(not torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_refused_step_leaves_the_actor_bit_for_bit_and_trains_the_critic(engine):
    model = collected(engine=engine, normalize_advantage=False)
    model.rollout_buffer.advantage.zero_()  # nothing can improve
    actor, critic = parts(model)
    model.train()
    new_actor, new_critic = parts(model)
    assert model.logger.name_to_value["train/is_line_search_success"] == 0
    assert model.logger.name_to_value["train/kl_divergence_loss"] == 0
    assert all(torch.equal(new_actor[name], value) for name, value in actor.items())
    assert all(not torch.equal(new_critic[name], value) for name, value in critic.items())


@pytest.mark.parametrize("engine", ENGINES)
def test_tries_that_all_leave_the_trust_region_are_refused(engine, monkeypatch):
    model = collected(engine=engine, line_search_max_iter=1, cg_damping=0.0)
    # A step far too long, as if the curvature had been underestimated.
    monkeypatch.setattr("maxent_onpolicy.engine.trust_region.step_length", lambda curvature, max_kl: 50.0)
    actor, _ = parts(model)
    model.train()
    assert model.logger.name_to_value["train/is_line_search_success"] == 0
    assert all(torch.equal(parts(model)[0][name], value) for name, value in actor.items())


class SharedExtractor(sb3.common.torch_layers.BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 4)
        self.layer = torch.nn.Linear(3, 4)

    def forward(self, observation):
        return self.layer(observation)


def test_the_critic_does_not_move_what_it_shares_with_the_actor():
    kwargs = {"policy_kwargs": {"features_extractor_class": SharedExtractor}, "normalize_advantage": False}
    model = collected(engine="eager", **kwargs)
    model.rollout_buffer.advantage.zero_()
    before = model.policy.features_extractor.layer.weight.clone()
    model.train()
    assert torch.equal(model.policy.features_extractor.layer.weight, before)


class Renamed(sb3.common.policies.ActorCriticPolicy):
    """The actor's last layer bears the critic's name."""

    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        self.value_of_actions = torch.nn.Linear(64, 2)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_action_dist_from_latent(self, latent_pi):
        return self.action_dist.proba_distribution(self.value_of_actions(latent_pi), self.log_std)


@pytest.mark.parametrize("algorithm", [TRPO, MaxEntTRPO])
def test_foreign_policies_are_trained_whatever_they_call_their_layers(algorithm):
    model = algorithm(Renamed, endless(2), **KWARGS)
    before = model.policy.value_of_actions.weight.clone(), model.policy.action_net.weight.clone()
    model.learn(128)
    assert model.current_engine.name == "eager"
    assert not torch.equal(model.policy.value_of_actions.weight, before[0])
    assert torch.equal(model.policy.action_net.weight, before[1])  # nothing depends on it


BAD = [
    ({"cg_max_steps": 0}, "`cg_max_steps` must be in [1, inf), got 0"),
    ({"cg_damping": -0.1}, "`cg_damping` must be in [0, inf), got -0.1"),
    ({"line_search_shrinking_factor": 1.0}, "`line_search_shrinking_factor` must be in (0, 1), got 1.0"),
    ({"line_search_max_iter": 0}, "`line_search_max_iter` must be in [1, inf), got 0"),
    ({"n_critic_updates": 1.5}, "`n_critic_updates` must be an integer of at least 1, got 1.5"),
    ({"target_kl": 0.0}, "`target_kl` must be in (0, inf), got 0.0"),
    ({"target_kl": None}, "`target_kl` must be a number in (0, inf), got None"),
    ({"sub_sampling_factor": 0}, "`sub_sampling_factor` must be in [1, inf), got 0"),
    ({"kl_reduction": "men"}, "`kl_reduction` must be one of 'mean', 'sum'; got 'men' (did you mean 'mean'?)"),
    ({"popart": "no"}, "`popart` must be one of True, False; got 'no'"),
    ({"batch_size": 0}, "`batch_size` must be in [1, inf), got 0"),
    ({"n_steps": 1}, "`n_steps * n_envs` must be greater than 1 to normalise advantages"),
]


@pytest.mark.parametrize(("kwargs", "message"), BAD, ids=[next(iter(kwargs)) for kwargs, _ in BAD])
@pytest.mark.parametrize("algorithm", [TRPO, MaxEntTRPO])
def test_arguments_out_of_range(algorithm, kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        algorithm("MlpPolicy", endless(), **KWARGS | kwargs)


def test_there_is_nothing_to_compile():
    for asked in ({"engine": "compiled"}, {"compile": True}):
        with pytest.raises(ValueError, match="TRPO's update is not one loss that could be compiled"):
            TRPO("MlpPolicy", endless(), **asked)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_diverging_update_is_reported(engine):
    model = collected(engine=engine)
    model.rollout_buffer.value_target.fill_(float("inf"))
    with pytest.raises(ValueError, match="update after step 256; lower `learning_rate` or `target_kl`"):
        model.train()
