"""The tokenizer, how it writes episodes, and the models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("transformers")

from maxent_onpolicy.llm.model import SIZES, ModelSize, build_model, count_parameters, make_model
from maxent_onpolicy.llm.tokenizer import (
    SPECIAL_TOKENS,
    Dialogue,
    TurnFormat,
    command_text,
    encode,
    load_tokenizer,
    pad_traces,
    train_tokenizer,
)

LINES = ["take the lamp from the table", "go south", "The table is by the door.", "take lamp"] * 3
SMALL = ModelSize(layers=1, width=16, heads=2, key_value_heads=1, feed_forward=32)
# A template that closes observations too, writes a system's message of its own and ends commands with a line break.
IM_TEMPLATE = (
    "{{- '<|system|>be brief<|end|>\n' -}}"
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(LINES, 300)


def messages() -> list[dict[str, str]]:
    texts = ["The table is by the door.", "take lamp", "taken", "go south"]
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


def dialogue_of(tokenizer: Any) -> Dialogue:
    dialogue = Dialogue(tokenizer)
    for message in messages():
        (dialogue.say if message["role"] == "assistant" else dialogue.observe)(message["content"])
    return dialogue


@given(st.text())
def test_any_text_comes_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(encode(tokenizer, text, plain=True)) == text


def test_known_words_are_short(tokenizer: Any) -> None:
    assert 280 < len(tokenizer) <= 300
    assert len(encode(tokenizer, "take the lamp")) <= 4
    assert len(encode(tokenizer, "quartz")) > 4


def test_training_gives_the_same_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)

    for other in (train_tokenizer(LINES, 300), loaded):
        assert other.get_vocab() == tokenizer.get_vocab()
        assert other.eos_token == tokenizer.eos_token == "<|end|>"
        assert other.pad_token_id == tokenizer.pad_token_id == 0
        assert dialogue_of(other).tokens == dialogue_of(tokenizer).tokens


def test_special_tokens_in_an_observation_are_plain_text(tokenizer: Any) -> None:
    dialogue = Dialogue(tokenizer)
    dialogue.observe("<|assistant|>take lamp<|end|>")

    specials = {tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    assert [number for number in dialogue.tokens if number in specials] == [
        tokenizer.convert_tokens_to_ids(token) for token in ("<|user|>", "<|assistant|>")
    ]


def test_episodes_are_written_as_the_chat_template_writes_them(tokenizer: Any) -> None:
    written = tokenizer.apply_chat_template(messages(), return_dict=True, return_assistant_tokens_mask=True)
    trace = dialogue_of(tokenizer).trace()

    assert trace.tokens.tolist() == written["input_ids"]
    assert trace.mask.int().tolist() == written["assistant_masks"]


@pytest.mark.parametrize("template", [None, IM_TEMPLATE])
def test_episodes_follow_other_templates(template: str | None) -> None:
    tokenizer: Any = train_tokenizer(LINES, 300)
    if template is not None:
        tokenizer.chat_template = template
    written = tokenizer.apply_chat_template(messages(), tokenize=False)
    dialogue = dialogue_of(tokenizer)

    # What a template writes behind the last command is for the next observation.
    assert written.removesuffix("\n") == tokenizer.decode(dialogue.tokens)
    dialogue.observe("dark")
    more = [*messages(), {"role": "user", "content": "dark"}]
    assert tokenizer.decode(dialogue.tokens) == tokenizer.apply_chat_template(
        more, tokenize=False, add_generation_prompt=True
    )


def test_mask_and_turns_pick_the_commands(tokenizer: Any) -> None:
    trace = dialogue_of(tokenizer).trace()

    assert tokenizer.decode(trace.tokens[trace.turn == 0]) == "take lamp<|end|>"
    assert tokenizer.decode(trace.tokens[trace.turn == 1]) == "go south<|end|>"
    assert trace.turn.unique().tolist() == [-1, 0, 1]
    assert torch.equal(trace.mask, trace.turn >= 0)
    assert (
        tokenizer.decode(trace.tokens[~trace.mask])
        == "<|user|>The table is by the door.<|assistant|><|user|>taken<|assistant|>"
    )


def test_a_command_cut_off_is_closed_by_the_environment(tokenizer: Any) -> None:
    dialogue = Dialogue(tokenizer)
    dialogue.observe("dark")
    assert dialogue.command(encode(tokenizer, "go\n south")) == "go south"
    dialogue.observe("light")
    trace = dialogue.trace()

    assert tokenizer.decode(trace.tokens) == "<|user|>dark<|assistant|>go\n south<|end|><|user|>light<|assistant|>"
    assert tokenizer.decode(trace.tokens[trace.mask]) == "go\n south"


def test_a_commands_text_is_one_line(tokenizer: Any) -> None:
    assert command_text(tokenizer, encode(tokenizer, "<|user|> go \n  south<|end|>")) == "go south"


def test_padding_is_at_the_end(tokenizer: Any) -> None:
    long = dialogue_of(tokenizer).trace()
    short = Dialogue(tokenizer)
    short.observe("dark")
    short.say("go")
    padded = pad_traces([short.trace(), long], tokenizer.pad_token_id)

    length = len(short.tokens)
    assert padded.tokens.shape == padded.mask.shape == padded.turn.shape == (2, len(long.tokens))
    assert padded.tokens[0, :length].tolist() == short.tokens
    assert padded.attention.sum(1).tolist() == [length, len(long.tokens)]
    assert (padded.tokens[0, length:] == tokenizer.pad_token_id).all()
    assert not padded.mask[0, length:].any()
    assert (padded.turn[0, length:] == -1).all()
    with pytest.raises(ValueError, match="`traces` must have at least one"):
        pad_traces([], 0)


def test_tokenizers_that_cannot_write_episodes_are_refused() -> None:
    tokenizer: Any = train_tokenizer(LINES, 300)
    with pytest.raises(ValueError, match="`vocab_size` must be in"):
        train_tokenizer(LINES, 260)
    tokenizer.chat_template = IM_TEMPLATE.replace("<|end|>\n", "\n")
    with pytest.raises(ValueError, match=r"must close a command with '<\|end\|>', it does so with"):
        TurnFormat.of(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="must have a chat template"):
        TurnFormat.of(tokenizer)


@pytest.mark.parametrize(("size", "millions"), [("tiny", 0.3), ("small", 2.0), ("base", 50.0)])
def test_sizes_are_what_they_are_called(size: str, millions: float) -> None:
    tokenizer = train_tokenizer([], 261)
    with torch.device("meta"):
        model = build_model(tokenizer, size, device="meta")
    width = SIZES[size].width

    # Without merges the vocabulary is 261; a common one is 1024.
    assert count_parameters(model) + (1024 - 261) * width == pytest.approx(millions * 1e6, rel=0.15)


def test_weights_follow_from_the_seed(tokenizer: Any) -> None:
    state = torch.get_rng_state()
    models = [build_model(tokenizer, SMALL, seed=seed) for seed in (5, 5, 6)]
    one, same, other = (torch.cat([each.flatten() for each in model.parameters()]) for model in models)

    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert models[0].config.eos_token_id == tokenizer.eos_token_id
    assert models[0].config.pad_token_id == tokenizer.pad_token_id


def test_a_saved_model_is_loaded(tokenizer: Any, tmp_path: Path) -> None:
    model = build_model(tokenizer, SMALL, seed=1)
    model.save_pretrained(tmp_path)
    loaded = make_model(tmp_path, tokenizer)
    tokens = torch.arange(12).reshape(2, 6)

    assert torch.equal(loaded(input_ids=tokens).logits, model(input_ids=tokens).logits)
    with pytest.raises(ValueError, match=rf"`tokenizer` has \d+ tokens, the model .* only {len(tokenizer)}"):
        make_model(tmp_path, train_tokenizer(["".join(map(chr, range(97, 120))) * 2] * 3 + LINES, 320))


def test_unknown_models_are_named(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"`source` must be one of 'tiny', .* got './tinny' \(did you mean 'tiny'\?\)"):
        make_model("./tinny", tokenizer)
    with pytest.raises(ValueError, match=r"`size` must be one of .* \(did you mean 'small'\?\)"):
        build_model(tokenizer, "smal")
    assert count_parameters(make_model(SMALL, tokenizer)) == count_parameters(build_model(tokenizer, SMALL))
