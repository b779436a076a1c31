"""TRL's own loop of tool calls: what environments write is masked, and entropy is that of the model's turns."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer
from trl_helpers import grpo_arguments
from word_game import WordTasks

from maxent_onpolicy.llm.batch import turns_of
from maxent_onpolicy.llm.model import ModelSize, build_model
from maxent_onpolicy.llm.sft import fine_tune
from maxent_onpolicy.llm.tokenizer import Trace
from maxent_onpolicy.llm.trl import EntropyAdvantageGRPOConfig, EntropyAdvantageGRPOTrainer
from maxent_onpolicy.llm.trl.games import GameEnvironment, tool_prompts

TASKS = WordTasks()
CALL = '<tool_call>\n{"name": "act", "arguments": {"command": "|"}}\n</tool_call>'
ENTROPY = {"tau": 0.3, "entropy_gamma": 0.9, "entropy_gae_lambda": 0.8, "entropy_critic_width": 16}


def oracle_dialogues():
    """Games that are won by calls of the tool, as messages."""
    environment = GameEnvironment(TASKS)
    for row in tool_prompts(TASKS, instruction="Play. "):
        observation = environment.reset(**row)
        messages = [{"role": "user", "content": row["prompt"][0]["content"] + observation}]
        for command in TASKS.words(row["game"]):
            call = {"type": "function", "function": {"name": "act", "arguments": {"command": command}}}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "name": "act", "content": environment.act(command)})
        assert environment.get_reward() == 1.0
        yield [*messages, {"role": "assistant", "content": "done"}]


def written(tokenizer, messages, **options):
    tools = [GameEnvironment(TASKS).act]
    return tokenizer.apply_chat_template(messages, tools=tools, return_dict=False, **options)


@pytest.fixture(scope="module")
def tool_tokenizer():
    """Bytes, their merges, and the two ends of a call; with a chat template that TRL brings and knows how to parse."""
    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = byte_level, decoders.ByteLevel()
    template = Path(trl.__file__).with_name("chat_templates") / "qwen3_instruct_2507.jinja"

    def wrapped():
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=specials[0], eos_token=specials[2])
        tokenizer.chat_template = template.read_text(encoding="utf-8")
        return tokenizer

    texts = [written(wrapped(), messages, tokenize=False) for messages in oracle_dialogues()]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=specials, initial_alphabet=byte_level.alphabet(), show_progress=False
        ),
    )
    tokenizer = wrapped()
    tokenizer.add_tokens(CALL.split("|"))
    return tokenizer


@pytest.fixture(scope="module")
def caller(tool_tokenizer):
    """A model that was shown games until it calls the tool more often than not."""
    traces = []
    for messages in oracle_dialogues():
        tokens, turn = [], []
        for count in range(1, len(messages) + 1):
            own = messages[count - 1]["role"] == "assistant"
            more = written(tool_tokenizer, messages[:count], add_generation_prompt=not own)[len(tokens) :]
            tokens += more
            turn += [count if own else -1] * len(more)
        turn = torch.tensor(turn)
        traces.append(Trace(torch.tensor(tokens), turn >= 0, turn))
    model = build_model(tool_tokenizer, ModelSize(layers=2, width=32, heads=2, key_value_heads=1, feed_forward=64))
    fine_tune(model, traces, steps=40, batch_size=4, learning_rate=1e-2, progress_bar=False)
    return model


def trained(
    folder, tokenizer, model, cls=EntropyAdvantageGRPOTrainer, config=EntropyAdvantageGRPOConfig, max_steps=1, **changes
):
    """A trainer after some steps; the reward is the environment's own."""
    arguments = grpo_arguments(folder, max_completion_length=80, max_steps=max_steps, **changes)
    trainer = cls(
        copy.deepcopy(model),
        args=config(**arguments),
        train_dataset=tool_prompts(TASKS, instruction="Play. "),
        processing_class=tokenizer,
        environment_factory=partial(GameEnvironment, TASKS),
    )
    trainer.train()
    return trainer


def test_what_tools_answer_is_skipped(tool_tokenizer, caller, tmp_path):
    trainer = trained(tmp_path, tool_tokenizer, caller, entropy_estimator="to_go", **ENTROPY)
    batch = trainer._buffered_inputs[0]
    own = (batch["completion_mask"] * batch["tool_mask"]).bool()
    turn = batch["entropy_control_turn"]
    assert turn.equal(turns_of(own))
    assert turn.max() >= 1  # the tool was called
    assert (batch["advantages"][~own] == 0).all()
    surprise, target = -batch["entropy_control_log_prob"].double(), batch["entropy_control_target"]
    for row in range(len(own)):
        text = tool_tokenizer.decode(batch["completion_ids"][row][own[row]])
        others = tool_tokenizer.decode(batch["completion_ids"][row][(~own & batch["completion_mask"].bool())[row]])
        assert "<tool_response>" not in text
        assert text.count("<|im_end|>") <= turn[row].max() + 1 == others.count("<|im_start|>assistant") + 1
        # The discounted surprise to come, as if the tokens of others were not there.
        later = 0.0
        for column in own[row].nonzero().flatten().flip(0):
            later = surprise[row, column] + 0.9 * later
            assert float(target[row, column]) == pytest.approx(float(later), rel=1e-4)
        assert (target[row][~own[row]] == 0).all()


def test_it_learns_from_the_environments_reward_and_from_entropy(tool_tokenizer, caller, tmp_path):
    trainer = trained(tmp_path, tool_tokenizer, caller, max_steps=3, **ENTROPY)
    logged = trainer.state.log_history[0]
    assert logged["tools/call_frequency"] > 0.5
    assert logged["rewards/GameEnvironment/mean"] == logged["reward"] > 0
    assert {"entropy/turn_0", "entropy/turn_1", "entropy_critic/explained_variance"} <= set(logged)
    found, before = trainer.model.state_dict(), caller.state_dict()
    assert all(torch.isfinite(value).all() for value in found.values())
    assert any(not torch.equal(value, before[name]) for name, value in found.items())


def test_without_temperature_it_is_grpo(tool_tokenizer, caller, tmp_path):
    ours = trained(tmp_path, tool_tokenizer, caller, max_steps=3)
    theirs = trained(tmp_path, tool_tokenizer, caller, GRPOTrainer, GRPOConfig, max_steps=3)
    plain = theirs.model.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in ours.model.state_dict().items())
    losses = [[row["loss"] for row in each.state.log_history if "loss" in row] for each in (ours, theirs)]
    assert losses[0] == losses[1]
    assert any(losses[0])


def test_a_game_as_a_tool():
    environment = GameEnvironment(TASKS)
    assert environment.act("red") == "The game is over."  # none has begun
    assert environment.reset(game="train/0", prompt=[]) == "say red then green"
    assert environment.act("blue") == "no, say red"
    assert environment.act("red") == "good"
    assert environment.get_reward() == 0.5
    assert environment.act("green") == "good\nThe game is over."
    assert environment.act("green") == "The game is over."
    assert environment.get_reward() == 1.0
    environment.reset("train/1")
    assert environment.get_reward() == 0.0
