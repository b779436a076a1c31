"""The trainer: GRPO's own loss without entropy, the estimator's advantages with it, and exact resume."""

import copy

import pytest
import torch
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer
from trl_helpers import grpo_arguments, make_model, make_tokenizer, many_a, prompts

from maxent_onpolicy.llm.methods import METHODS
from maxent_onpolicy.llm.trl import EntropyAdvantageGRPOConfig, EntropyAdvantageGRPOTrainer
from maxent_onpolicy.llm.trl.host import check_trl

ENTROPY = {"tau": 0.3, "entropy_gamma": 0.9, "entropy_gae_lambda": 0.8, "entropy_critic_width": 16}


def slow(loss_type):
    return pytest.param(loss_type, marks=pytest.mark.slow)


def make(
    folder,
    cls=EntropyAdvantageGRPOTrainer,
    config=EntropyAdvantageGRPOConfig,
    rollout_func=None,
    peft_config=None,
    **changes,
):
    return cls(
        make_model(),
        many_a,
        args=config(**grpo_arguments(folder, **changes)),
        train_dataset=prompts(),
        processing_class=make_tokenizer(),
        rollout_func=rollout_func,
        peft_config=peft_config,
    )


def trained(*arguments, **keywords):
    """Made and trained at once: the trainer seeds the generators that its completions are drawn with."""
    trainer = make(*arguments, **keywords)
    trainer.train()
    return trainer


def parameters(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("loss_type", ["grpo", *map(slow, ("bnpo", "dr_grpo", "dapo", "cispo"))])
def test_without_temperature_and_methods_it_is_grpo(loss_type, tmp_path):
    ours = trained(tmp_path, loss_type=loss_type)
    theirs = trained(tmp_path, GRPOTrainer, GRPOConfig, loss_type=loss_type)
    assert_same(parameters(ours), parameters(theirs))
    losses = [[row["loss"] for row in trainer.state.log_history if "loss" in row] for trainer in (ours, theirs)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


@pytest.mark.parametrize("estimator", ["critic", "to_go"])
@pytest.mark.parametrize("loss_type", ["dapo", *map(slow, ("grpo", "bnpo", "dr_grpo", "cispo", "sapo"))])
def test_every_loss_with_advantages_of_tokens_learns_from_entropy(loss_type, estimator, tmp_path):
    ours = trained(tmp_path, loss_type=loss_type, entropy_estimator=estimator, **ENTROPY)
    plain = trained(tmp_path, GRPOTrainer, GRPOConfig, loss_type=loss_type)
    found = parameters(ours)
    assert all(torch.isfinite(value).all() for value in found.values())
    assert any(not torch.equal(value, parameters(plain)[name]) for name, value in found.items())
    assert (ours.entropy_critic is not None) == (estimator == "critic")
    logged = ours.state.log_history[0]
    assert logged["entropy_advantage/std"] > 0
    assert logged["entropy_control/effective_tokens"] == 1.0
    assert "entropy/turn_0" in logged
    assert ("entropy_critic/explained_variance" in logged) == (estimator == "critic")


def test_the_critic_is_trained_and_leaves_the_language_model_alone(tmp_path):
    trainer = make(tmp_path, learning_rate=0.0, **ENTROPY)
    before = parameters(trainer)
    critic = copy.deepcopy(trainer.entropy_critic.state_dict())
    trainer.train()
    assert_same(parameters(trainer), before)  # a learning rate of 0, and no gradient of the critic's either
    assert not any(torch.equal(value, critic[name]) for name, value in trainer.entropy_critic.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["critic", "to_go"])
def test_it_learns_what_is_rewarded(estimator, tmp_path):
    settings = ENTROPY | {"tau": 0.1, "entropy_estimator": estimator}
    trainer = trained(tmp_path, max_steps=80, learning_rate=1e-2, per_device_train_batch_size=16, **settings)
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert sum(rewards[-10:]) / 10 > 0.5 > 2 * sum(rewards[:2]) / 2


def test_later_iterations_see_the_advantages_of_the_first(tmp_path):
    trainer = make(tmp_path, num_iterations=2, max_steps=2, **ENTROPY)
    seen = []
    compute = trainer._compute_loss

    def note(model, inputs):
        seen.append(inputs["advantages"].clone())
        found = compute(model, inputs)
        assert torch.equal(inputs["advantages"], seen[-1])
        return found

    trainer._compute_loss = note
    trainer.train()
    assert torch.equal(seen[0], seen[1])
    assert seen[0].dim() == 2


def test_what_an_environment_wrote_is_skipped(tmp_path):
    masks = []

    def rollout(texts, trainer):
        """Two tokens of the policy's, two of an environment's, one of the policy's again."""
        ids = [trainer.processing_class(text)["input_ids"] for text in texts]
        completions = [[2 + (i % 4), 3, 9, 9, 4] for i in range(len(texts))]
        masks.extend([[1, 1, 0, 0, 1]] * len(texts))
        return {
            "prompt_ids": ids,
            "completion_ids": completions,
            "logprobs": [[-1.0] * 5] * len(texts),
            "env_mask": [[1, 1, 0, 0, 1]] * len(texts),
        }

    trainer = make(tmp_path, rollout_func=rollout, max_steps=1, **ENTROPY)
    trainer.train()
    buffered = trainer._buffered_inputs[0]
    assert masks
    assert (buffered["advantages"][:, 2:4] == 0).all()
    assert (buffered["advantages"][:, [0, 1, 4]] != 0).any()
    assert buffered["entropy_control_turn"].tolist() == [[0, 0, -1, -1, 1]] * 8


def test_a_run_that_was_interrupted_goes_on_exactly(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "methods": ["clip_cov"]} | ENTROPY
    whole = make(tmp_path / "whole", **settings)
    whole.train()
    again = make(tmp_path / "again", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert_same(parameters(again), parameters(whole))
    assert_same(again.entropy_critic.state_dict(), whole.entropy_critic.state_dict())
    assert again.methods.state_dict() == whole.methods.state_dict()


def test_another_version_of_trl_is_named_in_a_warning(monkeypatch):
    monkeypatch.setattr("maxent_onpolicy.llm.hosts.metadata.version", lambda name: "2.3.0")
    with pytest.warns(UserWarning, match=r"TRL 2.3.0 is installed, and this was tested with 1.16.0"):
        check_trl()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tau": -0.1}, "`tau` must be"),
        ({"entropy_gamma": 1.5}, "`entropy_gamma` must be"),
        ({"entropy_discount": "turn", "entropy_estimator": "to_go"}, "needs entropy_estimator='critic'"),
        ({"entropy_estimator": "oracle"}, "`entropy_estimator` must be one of"),
        ({"tau": 0.1, "importance_sampling_level": "sequence"}, "one ratio a completion"),
        ({"methods": ["clip_covv"]}, "clip_cov"),
        ({"methods": ["entropy_advantage"]}, "give `tau` in place of entropy_advantage"),
        ({"methods": ["clip_cov", "kl_cov"]}, "clip_cov and kl_cov both"),
    ],
)
def test_bad_settings_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **changes)


def test_plain_settings_of_trl_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`args` must be an EntropyAdvantageGRPOConfig, got GRPOConfig"):
        make(tmp_path, config=GRPOConfig)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "entropy_advantage"])
def test_every_method_trains(method, tmp_path):
    needed = {"aepo_arbitrary": {"target": 1.0}, "ppo_br": {"max_entropy": 2.3}}
    chosen = {"name": method, **needed.get(method, {})}
    settings = {"max_steps": 4, "num_iterations": 2, "learning_rate": 1e-2, "methods": [chosen]}
    trainer = trained(tmp_path, **settings)
    assert all(torch.isfinite(value).all() for value in parameters(trainer).values())
    assert sum("loss" in row for row in trainer.state.log_history) == 4
    assert (trainer.epsilon_low, trainer.epsilon_high) == (0.2, 0.2)


def test_methods_change_what_is_learnt_and_follow_each_other(tmp_path):
    settings = {"max_steps": 4, "num_iterations": 2, "learning_rate": 1e-2}
    plain = parameters(trained(tmp_path, **settings))
    both = [{"name": "entropy_shaped"}, {"name": "adaptive_coefficient", "target": 3.0}]
    one, two = (parameters(trained(tmp_path, methods=methods, **settings)) for methods in (both[:1], both))
    for first, second in ((plain, one), (one, two)):
        assert any(not torch.equal(value, second[name]) for name, value in first.items())


def test_adapters_are_trained_alone(tmp_path):
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = make(tmp_path, peft_config=config, learning_rate=1e-2, **ENTROPY)
    before = parameters(trainer)
    trainer.train()
    changed = {name for name, value in parameters(trainer).items() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert trainer.state.log_history[0]["entropy_advantage/std"] > 0
