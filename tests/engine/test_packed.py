"""The packed engine against autograd: same data in, same parameters out."""

import copy

import numpy as np
import pytest
import torch
from engine_helpers import largest_difference, make, parameters, random_envs, share_rollout, train_both
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from threadpoolctl import threadpool_info

from maxent_onpolicy import PPO, RPO, MaxEntPPO, make_vec_env
from maxent_onpolicy.engine.packed import model as packed_model
from maxent_onpolicy.engine.packed.arrays import TORCH
from maxent_onpolicy.engine.packed.threads import few_threads

BOX = spaces.Box(-1, 2, (2, 3), np.float32)
PENDULUM = spaces.Box(-1, 1, (2,), np.float32)
SPACES = {
    "Gaussian": (PENDULUM, {}),
    "Gaussian, matrix of actions": (BOX, {}),
    "bounded deviation": (PENDULUM, {"log_std_bounds": (-3, 1)}),
    "deviation of the state": (PENDULUM, {"state_dependent_std": True}),
    "bounded deviation of the state": (PENDULUM, {"state_dependent_std": True, "log_std_bounds": (-3, 1)}),
    "tanh-Gaussian": (PENDULUM, {"action_distribution": "tanh_gaussian"}),
    "saturated tanh-Gaussian": (PENDULUM, {"action_distribution": "tanh_gaussian", "log_std_init": 1.7}),
    "categorical": (spaces.Discrete(4), {}),
    "equal categoricals": (spaces.MultiDiscrete([3, 3, 3]), {}),
    "unequal categoricals": (spaces.MultiDiscrete([2, 5]), {}),
    "Bernoulli": (spaces.MultiBinary(3), {}),
}
OPTIONS = {
    "defaults": (PPO, {}),
    "everything": (
        PPO,
        {"ent_coef": 0.01, "clip_range_vf": 0.1, "max_grad_norm": 0.05, "clip_range": 0.05, "gae_lambda": 0.8},
    ),
    "remainder": (PPO, {"batch_size": 50}),
    "one minibatch": (PPO, {"batch_size": 4096}),
    "no normalisation": (PPO, {"normalize_advantage": False}),
    "early stop": (PPO, {"target_kl": 1e-4, "learning_rate": 3e-3}),
    "controllers": (
        PPO,
        {"controllers": ["bapo", "target_entropy", {"entropy_ratio_clip": {"low": 0.995}, "kl_adaptive_lr": None}]},
    ),
    "PopArt": (PPO, {"popart": True, "clip_range_vf": 0.1}),
    "relu": (PPO, {"policy_kwargs": {"activation_fn": torch.nn.ReLU, "net_arch": [32, 16]}}),
    "unequal networks": (PPO, {"policy_kwargs": {"net_arch": {"pi": [16], "vf": [32, 32]}}}),
    "linear": (PPO, {"policy_kwargs": {"net_arch": []}}),
    "Adam's options": (PPO, {"policy_kwargs": {"optimizer_kwargs": {"betas": (0.8, 0.99), "eps": 1e-6}}}),
    "entropy critic": (MaxEntPPO, {"tau": 0.1}),
    "entropy critic with PopArt": (MaxEntPPO, {"tau": 0.1, "popart": True, "ent_coef": 0.01}),
    "network of its own": (MaxEntPPO, {"tau": 0.1, "policy_kwargs": {"entropy_net_arch": [64, 64]}}),
    "unlike network of its own": (MaxEntPPO, {"tau": 0.1, "policy_kwargs": {"entropy_net_arch": [8]}}),
    "separate normalisation": (MaxEntPPO, {"tau": 0.1, "advantage_normalization": "separate"}),
    "no normalisation of the sum": (MaxEntPPO, {"tau": 0.1, "normalize_advantage": False}),
    "augmented reward": (MaxEntPPO, {"tau": 0.1, "reward_augmentation": True}),
    "no temperature": (MaxEntPPO, {"tau": 0.0}),
    "exact entropy": (MaxEntPPO, {"tau": 0.1, "entropy_reward": "exact", "entropy_centering": True}),
    "shifted mean": (RPO, {"ent_coef": 0.01, "batch_size": 50}),
    "shifted mean, early stop": (RPO, {"target_kl": 0.02, "rpo_alpha": 0.1, "learning_rate": 3e-3}),
    "shifted mean, deviation of the state": (
        MaxEntPPO,
        {"rpo_alpha": 0.5, "policy_kwargs": {"state_dependent_std": True, "log_std_bounds": (-3, 1)}},
    ),
}
ignore_remainder = pytest.mark.filterwarnings("ignore:.*truncated mini-batch")


def assert_same_update(algorithm, action_space=PENDULUM, updates=2, **kwargs):
    """Several times: the eager model collects, both train on it, and agree on parameters and on what they log."""
    eager = make(algorithm, "eager", random_envs(action_space), **kwargs)
    packed = make(algorithm, "packed", random_envs(action_space), **kwargs)
    for _ in range(updates):
        share_rollout(eager, packed)
        with torch.no_grad():
            packed._estimate_advantages(packed.rollout_buffer)
        train_both(eager, packed)
        assert largest_difference(eager, packed) < 2e-6
        packed.policy.load_state_dict(eager.policy.state_dict())
    logged, ours = eager.logger.name_to_value, packed.logger.name_to_value
    assert logged.keys() == ours.keys()
    for name in logged:
        if name.startswith("train/"):
            assert ours[name] == pytest.approx(logged[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize(("space", "policy_kwargs"), SPACES.values(), ids=SPACES.keys())
@pytest.mark.parametrize("ent_coef", [0.0, 0.05])
def test_one_update_equals_autograds_for_every_distribution(space, policy_kwargs, ent_coef):
    assert_same_update(MaxEntPPO, space, tau=0.1, ent_coef=ent_coef, policy_kwargs=policy_kwargs)


@ignore_remainder
@pytest.mark.parametrize(("algorithm", "kwargs"), OPTIONS.values(), ids=OPTIONS.keys())
def test_one_update_equals_autograds_for_every_option(algorithm, kwargs):
    assert_same_update(algorithm, **kwargs)


@pytest.mark.parametrize(("space", "policy_kwargs"), SPACES.values(), ids=SPACES.keys())
def test_torch_arrays_compute_what_numpy_arrays_do(space, policy_kwargs, monkeypatch):
    """The operations that a GPU would run, on the CPU."""
    monkeypatch.setattr(packed_model, "arrays_for", lambda device: TORCH)
    # The rollout is the eager model's: on a GPU torch's own modules would collect it.
    assert_same_update(MaxEntPPO, space, updates=1, tau=0.1, ent_coef=0.01, policy_kwargs=policy_kwargs)


@pytest.mark.parametrize(
    "name", ["everything", "early stop", "entropy critic with PopArt", "relu", "remainder", "shifted mean"]
)
@ignore_remainder
def test_torch_arrays_take_new_numbers_and_stop_on_the_device(name, monkeypatch):
    """A schedule changes what the steps read; how many were made before a stop is asked once an epoch."""
    monkeypatch.setattr(packed_model, "arrays_for", lambda device: TORCH)
    algorithm, kwargs = OPTIONS[name]
    assert_same_update(
        algorithm, **{"learning_rate": lambda left: 3e-3 * left, "clip_range": lambda left: 0.3 * left} | kwargs
    )


@ignore_remainder
def test_torch_arrays_follow_controllers(monkeypatch):
    monkeypatch.setattr(packed_model, "arrays_for", lambda device: TORCH)
    algorithm, kwargs = OPTIONS["controllers"]
    assert_same_update(algorithm, **kwargs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(
    "name", ["defaults", "everything", "early stop", "entropy critic with PopArt", "remainder", "controllers"]
)
def test_a_gpus_graph_computes_what_autograd_does(name):
    algorithm, kwargs = OPTIONS[name]
    eager = make(algorithm, "eager", random_envs(PENDULUM), **kwargs)
    packed = make(algorithm, "packed", random_envs(PENDULUM), **kwargs | {"device": "cuda"})
    for _ in range(3):
        share_rollout(eager, packed)
        with torch.no_grad():
            packed._estimate_advantages(packed.rollout_buffer)
        train_both(eager, packed)
        cpu = [parameter.detach().cpu() for parameter in packed.policy.parameters()]
        differences = [(a - b).abs().max().item() for a, b in zip(parameters(eager), cpu, strict=True)]
        assert max(differences) < 1e-4
        packed.policy.load_state_dict(eager.policy.state_dict())
    assert packed.current_engine._update_of(packed, packed.rollout_buffer).alone._epochs._graph is not None


@pytest.mark.parametrize("n_envs", [pytest.param(1, marks=pytest.mark.slow), 3])
# Near ±1 a squashed action's density magnifies the last bit in which numpy's tanh differs from torch's.
@pytest.mark.parametrize("name", [name for name in SPACES if name != "saturated tanh-Gaussian"])
def test_a_seed_gives_the_same_actions_as_sb3s_sampling(name, n_envs):
    space, policy_kwargs = SPACES[name]
    models = [
        make(PPO, engine, random_envs(space, n_envs), policy_kwargs=policy_kwargs).learn(3 * 40 * n_envs)
        for engine in ("eager", "packed")
    ]
    eager, packed = (model.rollout_buffer for model in models)
    torch.testing.assert_close(packed.action, eager.action, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed.log_prob, eager.log_prob, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(packed.value, eager.value, atol=1e-4, rtol=1e-4)
    assert largest_difference(*models) < 1e-5


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1"])
def test_whole_runs_in_real_environments_equal_eager_runs(env_id):
    models = [
        MaxEntPPO("MlpPolicy", make_vec_env(env_id, 4, seed=0), n_steps=128, seed=1, device="cpu", engine=engine).learn(
            2048
        )
        for engine in ("eager", "packed")
    ]
    assert torch.equal(models[0].rollout_buffer.action, models[1].rollout_buffer.action)
    assert largest_difference(*models) < 1e-5


def test_a_seed_gives_the_same_bits_twice():
    runs = [make(MaxEntPPO, "packed", tau=0.1).learn(360) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*map(parameters, runs), strict=True))


def test_learn_without_arguments_is_packed_and_says_why_not():
    assert make(PPO, "auto").learn(120).current_engine.name == "packed"
    noisy = make(PPO, "auto", use_sde=True)
    assert noisy.learn(120).current_engine.name == "eager"


class OwnForward(PPO.policy_aliases["MlpPolicy"]):
    def evaluate_actions(self, obs, actions):
        return super().evaluate_actions(obs, actions)


class OwnLoss(PPO):
    def _loss(self, batch, clip):
        return super()._loss(batch, clip)


class SGD(torch.optim.SGD):
    def __init__(self, *args, eps=0, **kwargs):
        super().__init__(*args, **kwargs)


MISFITS = {
    "use_sde": ({"use_sde": True}, "state-dependent exploration"),
    "activation": ({"policy_kwargs": {"activation_fn": torch.nn.SiLU}}, "activation SiLU"),
    "optimiser": ({"policy_kwargs": {"optimizer_class": SGD}}, "optimiser SGD"),
    "weight decay": ({"policy_kwargs": {"optimizer_kwargs": {"weight_decay": 0.1}}}, "weight_decay=0.1"),
    "beta": ({"policy_kwargs": {"action_distribution": "beta"}}, "distribution BetaDistribution"),
    "policy class": ({"policy": OwnForward}, "OwnForward overrides `evaluate_actions`"),
    "algorithm": ({"algorithm": OwnLoss}, "OwnLoss's own `_loss`"),
}


@pytest.mark.parametrize(("kwargs", "reason"), MISFITS.values(), ids=MISFITS.keys())
def test_what_does_not_fit_is_refused_with_the_reason(kwargs, reason, caplog, capsys):
    kwargs = dict(kwargs)
    algorithm, policy = kwargs.pop("algorithm", PPO), kwargs.pop("policy", "MlpPolicy")
    settings = {"n_steps": 40, "batch_size": 32, "n_epochs": 1, "device": "cpu"} | kwargs
    with pytest.raises(ValueError, match=f"`engine='packed'` cannot train this model because of .*{reason}"):
        algorithm(policy, random_envs(), engine="packed", **settings).learn(120)
    caplog.set_level("INFO")
    model = algorithm(policy, random_envs(), verbose=1, **settings).learn(120)
    assert model.current_engine.name == "eager"
    assert reason in caplog.text
    assert reason in capsys.readouterr().out


def test_observations_that_are_not_vectors_do_not_fit():
    model = PPO("MlpPolicy", make_vec_env("FrozenLake-v1", 1), n_steps=32, batch_size=32, device="cpu")
    assert model.current_engine.name == "eager"


def test_a_wrong_engine_names_the_close_one():
    with pytest.raises(ValueError, match=r"`engine`.*'pakced'.*'packed'"):
        make(PPO, "pakced")


def test_parameters_and_moments_are_ordinary_tensors_of_one_vector():
    model = make(MaxEntPPO, "packed", tau=0.1).learn(120)
    policy, vectors = model.policy, model.current_engine.model.parameters
    storages = {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}
    assert storages == {vectors.flat.untyped_storage().data_ptr()}
    steps = {float(state["step"]) for state in policy.optimizer.state.values()}
    assert steps == {3 * 4.0}
    moments = policy.optimizer.state_dict()["state"]
    assert len(moments) == len(list(policy.parameters()))
    assert any(state["exp_avg"].abs().sum() > 0 for state in moments.values())


def test_training_continues_with_the_other_engine(tmp_path):
    """Adam's moments and the parameters survive saving, loading and a change of engine."""
    make(PPO, "packed").learn(120).save(tmp_path / "model")
    models = [PPO.load(tmp_path / "model", env=random_envs(), engine=engine) for engine in ("eager", "packed")]
    share_rollout(*models)
    with torch.no_grad():
        models[1]._estimate_advantages(models[1].rollout_buffer)
    train_both(*models)
    assert largest_difference(*models) < 2e-6
    assert {float(state["step"]) for state in models[0].policy.optimizer.state.values()} == {24.0}


def test_parameters_that_are_set_from_outside_are_taken_over():
    source, target = make(PPO, "packed").learn(120), make(PPO, "packed", seed=9).learn(120)
    target.set_parameters(copy.deepcopy(source.get_parameters()))
    share_rollout(source, target)
    with torch.no_grad():
        target._estimate_advantages(target.rollout_buffer)
    train_both(source, target)
    assert largest_difference(source, target) < 1e-7


class Reads(BaseCallback):
    """Compares each step's locals with what the policy says of it."""

    def _on_step(self):
        policy, given = self.model.policy, self.locals
        with torch.no_grad():
            value, log_prob, _ = policy.evaluate_actions(given["obs_tensor"], torch.as_tensor(given["actions"]))
        torch.testing.assert_close(given["values"] + 0, value)
        torch.testing.assert_close(torch.exp(given["log_probs"]), log_prob.exp())
        assert np.asarray(given["values"]).shape == (3, 1)
        assert given["rewards"].shape == given["dones"].shape == (3,)
        assert len(given["infos"]) == 3
        self.calls = getattr(self, "calls", 0) + 1
        return True


def test_callbacks_read_every_step():
    callback = Reads()
    make(PPO, "packed").learn(120, callback=callback)
    assert callback.calls == 40


def test_a_callback_can_stop_the_rollout():
    class Stops(BaseCallback):
        def _on_step(self):
            return self.n_calls < 10

    model = make(PPO, "packed").learn(1000, callback=Stops())
    assert model.num_timesteps == 30
    assert model._n_updates == 0


def test_it_makes_no_difference_whether_a_callback_listens():
    class Nothing(BaseCallback):
        def _on_step(self):
            return True

    runs = [make(MaxEntPPO, "packed", tau=0.1).learn(360, callback=callback) for callback in (None, Nothing())]
    assert all(torch.equal(a, b) for a, b in zip(*map(parameters, runs), strict=True))


@pytest.mark.parametrize("algorithm", [PPO, MaxEntPPO])
def test_a_callback_that_wants_rollouts_only_finds_what_others_find_at_their_end(algorithm):
    class AtTheEnd(BaseCallback):
        def __init__(self, every_step):
            super().__init__()
            self.every_step, self.seen, self.steps = every_step, [], 0

        def _on_step(self):
            self.steps += 1
            return True

        def _on_rollout_end(self):
            names = ("n_steps", "new_obs", "rewards", "dones", "actions", "clipped_actions", "obs_tensor")
            arrays = [np.asarray(self.locals[name]) for name in (*names, "values", "log_probs")]
            self.seen.append([*arrays, self.n_calls, self.num_timesteps])

    told, silent = AtTheEnd(True), AtTheEnd(False)
    for callback in (told, silent):
        make(algorithm, "packed").learn(360, callback=[callback])
    assert (told.steps, silent.steps) == (120, 0)
    assert len(told.seen) > 1
    for one, other in zip(told.seen, silent.seen, strict=True):
        for expected, found in zip(one, other, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_threads_are_given_back():
    torch.set_num_threads(2)  # the fixture restores it
    seen = []

    class Looks(BaseCallback):
        def _on_step(self):
            seen.append(torch.get_num_threads())
            return True

    make(PPO, "packed").learn(240, callback=Looks())
    assert set(seen) == {2}
    assert torch.get_num_threads() == 2
    with few_threads(1.0):
        assert torch.get_num_threads() == 1
        assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {1}
    assert torch.get_num_threads() == 2
    with few_threads(1e12):
        assert torch.get_num_threads() == 2
