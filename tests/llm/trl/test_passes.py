"""How often the model is passed through, and that a pass that GRPO makes anyway says what one more would say."""

import pytest
import torch
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer
from trl_helpers import LETTERS, grpo_arguments, make_model, make_tokenizer, prompts

from maxent_onpolicy.llm.methods import METHODS, make_method
from maxent_onpolicy.llm.trl import EntropyAdvantageGRPOConfig, EntropyAdvantageGRPOTrainer
from maxent_onpolicy.llm.trl.statistics import looks_at_whole_batches, valued_tokens

CRITIC = {"tau": 0.3, "entropy_gamma": 0.9, "entropy_gae_lambda": 0.8, "entropy_critic_width": 16}
FREE = {"tau": 0.3, "entropy_estimator": "to_go"}
METHOD = {"methods": ["clip_cov"]}
SPLIT = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def tokens_of_nobody(texts, trainer):
    """Completions that no model wrote, so that every forward pass is one of the training; the second turn is short."""
    number = len(texts)
    return {
        "prompt_ids": [trainer.processing_class(text)["input_ids"] for text in texts],
        "completion_ids": [[2 + i % 7, 2 + i % 5, 9, 2 + i % 3, 3 + i % 2, 1] for i in range(number)],
        "logprobs": [[-1.0] * 6] * number,
        "env_mask": [[1, 1, 0, 1, 1, 1]] * number,
    }


def nothing_own(texts, trainer):
    """Completions in which the policy said nothing, in the first step of two."""
    found = tokens_of_nobody(texts, trainer)
    return found | ({"env_mask": [[0] * 6] * len(texts)} if trainer.state.global_step == 0 else {})


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def late_letters(completions, **_):
    """A reward that no two completions share: among equal ones, the order of a batch decides which d3s keeps."""
    return [sum(1.37**place * LETTERS.index(letter) for place, letter in enumerate(text)) for text in completions]


def make(
    folder,
    cls=EntropyAdvantageGRPOTrainer,
    config=EntropyAdvantageGRPOConfig,
    peft_config=None,
    play=tokens_of_nobody,
    **changes,
):
    return cls(
        make_model(),
        late_letters,
        args=config(**grpo_arguments(folder, **{"max_steps": 2, "optim": "sgd", "learning_rate": 0.1} | changes)),
        train_dataset=prompts(),
        processing_class=make_tokenizer(),
        rollout_func=play,
        peft_config=peft_config,
    )


def passes(trainer):
    """Train; return how often the model's body was called."""
    calls = []
    inner = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    inner.model.register_forward_hook(lambda *_: calls.append(1))
    trainer.train()
    return len(calls)


@pytest.mark.parametrize("settings", [CRITIC, *map(slow, (FREE, METHOD, {"methods": ["d3s"]}, {"methods": ["siren"]}))])
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({}, 2),
        ({"num_iterations": 2}, 3),  # of which TRL's one of old log-probabilities
        slow({"gradient_accumulation_steps": 2, "steps_per_generation": 1, "num_iterations": 2}, 4),  # and here none
        slow({"gradient_accumulation_steps": 2, "steps_per_generation": 1}, 4),
    ],
)
def test_as_many_passes_as_grpo(settings, host, expected, tmp_path):
    assert passes(make(tmp_path, GRPOTrainer, GRPOConfig, **host)) == expected
    assert passes(make(tmp_path, **host, **settings)) == expected


def test_a_pass_of_a_reference_is_none_of_the_policys(tmp_path):
    assert passes(make(tmp_path, GRPOTrainer, GRPOConfig, beta=0.1, peft_config=LORA)) == 4
    assert passes(make(tmp_path, beta=0.1, peft_config=LORA, **CRITIC)) == 4


@pytest.mark.parametrize(
    ("settings", "more"), [(CRITIC, 2), slow(FREE, 2), slow({"methods": ["siren"]}, 2), (METHOD, 0)]
)
def test_a_split_batch_needs_one_more_pass_if_the_whole_of_it_matters(settings, more, tmp_path):
    each = passes(make(tmp_path, GRPOTrainer, GRPOConfig, max_steps=1, **SPLIT))
    assert each == 2
    assert passes(make(tmp_path, max_steps=1, **SPLIT, **settings)) == each + more  # in parts of the same size


def test_what_looks_at_whole_batches():
    needed = {"aepo_arbitrary": {"target": 1.0}, "ppo_br": {"max_entropy": 2.3}}
    found = {name for name in METHODS if not looks_at_whole_batches(make_method(name, **needed.get(name, {})))}
    assert found == {"bapo", "clip_cov", "entropy_shaped", "erc", "hapo", "kl_cov", "steer", "top_entropy"}


class OneMorePass(EntropyAdvantageGRPOTrainer):
    """Looks at every batch in a pass of its own, at once."""

    def _pass_of_sampling(self, output):
        with torch.no_grad():
            return self._forward(self.model, output, self.args.per_device_train_batch_size)


@pytest.mark.parametrize(
    "settings", [CRITIC, *map(slow, (CRITIC | {"entropy_reward": "exact"}, FREE, METHOD, {"methods": ["d3s"]}))]
)
@pytest.mark.parametrize(
    ("host", "peft_config"),
    [
        ({}, None),
        slow({"loss_type": "bnpo"}, None),
        ({"num_iterations": 2, "max_steps": 4}, None),
        slow({"gradient_accumulation_steps": 2, "steps_per_generation": 1, "num_iterations": 2}, None),
        slow(SPLIT, None),
        slow(SPLIT | {"steps_per_generation": 4, "max_steps": 4}, None),  # the second half is older than the policy
        slow({"beta": 0.1, "num_iterations": 2}, LORA),  # the reference is the same model without adapters
        slow({"beta": 0.1}, LORA),
    ],
)
def test_it_learns_as_with_one_more_pass(settings, host, peft_config, tmp_path):
    trainers, counts = [], []
    for cls in (EntropyAdvantageGRPOTrainer, OneMorePass):  # made and trained at once: making seeds the shuffling
        trainers.append(make(tmp_path, cls, peft_config=peft_config, **host, **settings))
        counts.append(passes(trainers[-1]))
    ours, theirs = trainers
    assert counts[0] <= counts[1]  # equal if a batch is split and the whole of it matters
    losses = [[row["loss"] for row in each.state.log_history if "loss" in row] for each in trainers]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    start = make(tmp_path, peft_config=peft_config, **host, **settings).model.state_dict()
    moved = 0.0
    for name, value in theirs.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
        moved = max(moved, float((value - start[name]).abs().max()))
    assert moved > 1e-4
    if ours.entropy_critic is not None:
        for name, value in theirs.entropy_critic.state_dict().items():
            torch.testing.assert_close(ours.entropy_critic.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("host", [{}, slow(SPLIT)])
def test_a_batch_without_own_tokens_teaches_nothing(host, tmp_path):
    trainer = make(tmp_path, play=nothing_own, max_steps=1, **host, **CRITIC)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    trainer = make(tmp_path, play=nothing_own, **host, **CRITIC)
    trainer.train()
    for part in (trainer.model, trainer.entropy_critic):
        assert all(torch.isfinite(value).all() for value in part.state_dict().values())
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_evaluation_is_grpos(tmp_path):
    ours, theirs = make(tmp_path, **CRITIC), make(tmp_path, GRPOTrainer, GRPOConfig)
    found = [trainer.evaluate(prompts(4))["eval_loss"] for trainer in (ours, theirs)]
    assert found[0] == found[1]


def test_a_whole_turn_can_be_one_action(tmp_path):
    settings = CRITIC | {"entropy_discount": "action", "entropy_scale": "none", "learning_rate": 0.0}
    trainer = make(tmp_path, max_steps=1, **settings)
    trainer.train()
    batch = trainer._buffered_inputs[0]
    turn, target = batch["entropy_control_turn"], batch["entropy_control_target"]
    surprise = -batch["entropy_control_log_prob"]
    first, second = surprise[:, :2].sum(1), surprise[:, 3:].sum(1)
    # The critic says 0 at first, so that A_H is the discounted sum of what turns surprise by.
    expected = torch.stack([first + 0.9 * 0.8 * second] * 2 + [0 * first] + [second] * 3, 1)
    assert turn.tolist() == [[0, 0, -1, 1, 1, 1]] * 8
    torch.testing.assert_close(target, expected)
    assert valued_tokens("action", turn).tolist() == [[True, False, False, True, False, False]] * 8


def test_with_turns_as_actions_the_critic_learns_at_their_first_tokens(tmp_path):
    trainer = make(tmp_path, max_steps=1, **CRITIC, entropy_discount="action")
    seen = []
    accumulate = trainer.entropy_critic.accumulate
    trainer.entropy_critic.accumulate = lambda hidden, *rest: seen.append(len(hidden)) or accumulate(hidden, *rest)
    trainer.train()
    assert seen == [16]  # eight completions of two turns


def test_actions_need_a_critic(tmp_path):
    with pytest.raises(ValueError, match=r"`entropy_discount='action'` needs entropy_estimator='critic'"):
        make(tmp_path, **FREE, entropy_discount="action")
