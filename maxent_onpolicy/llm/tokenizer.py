"""A small tokenizer trained here, and episodes of many turns as tokens.

An episode is written with a chat template: what an environment shows is the user's, a command is the assistant's, and
the end token that closes a command is the policy's own choice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from maxent_onpolicy.llm.environments.base import require
from maxent_onpolicy.validation import check_integer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, SYSTEM, USER, ASSISTANT, END = SPECIAL_TOKENS = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_BYTES = 256
_ALL_ROLES = ("system", "user", "tool", "assistant")  # a tool's answer is an observation like any other
_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    f"{{%- if message['role'] not in {_ALL_ROLES} -%}}"
    "{{- raise_exception('unknown role: ' + message['role']) -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    f"{{{{- '{ASSISTANT}' -}}}}{{% generation %}}{{{{- message['content'] + '{END}' -}}}}{{% endgeneration %}}"
    f"{{%- elif message['role'] == 'system' -%}}{{{{- '{SYSTEM}' + message['content'] -}}}}"
    f"{{%- else -%}}{{{{- '{USER}' + message['content'] -}}}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT}' -}}}}{{%- endif -%}}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> "PreTrainedTokenizerBase":
    """Train a byte-level BPE on texts; it can write any text, if at a byte a token.

    Args:
        texts: what it is to write briefly, such as :func:`~maxent_onpolicy.llm.sft.oracle_texts` of training tasks.
        vocab_size: at most so many tokens, the 256 bytes and the 5 special tokens included.

    Returns:
        A tokenizer with padding and end tokens and a chat template; ``save_pretrained`` writes it.

    Raises:
        ImportError: if tokenizers or transformers is not installed.
        ValueError: if ``vocab_size`` has no room for all bytes.
    """
    check_integer("vocab_size", vocab_size, _BYTES + len(SPECIAL_TOKENS))
    tokenizers, transformers = require("tokenizers", "llm"), require("transformers", "llm")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = byte_level
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def load_tokenizer(source: str | Path) -> "PreTrainedTokenizerBase":
    """Load a tokenizer from a folder that ``save_pretrained`` wrote, or by its name on the Hub.

    Raises:
        ImportError: if transformers is not installed.
        OSError: if there is none.
    """
    return require("transformers", "llm").AutoTokenizer.from_pretrained(source)


@dataclass(frozen=True)
class TurnFormat:
    """What stands around observations and commands, as a tokenizer's chat template writes it.

    Attributes:
        opening: token ids before the first observation.
        prompt: token ids between an observation and its command, what closes the observation included.
        following: token ids between the end token of a command and the next observation.
        end: id of the end token, which the policy chooses.
    """

    opening: tuple[int, ...]
    prompt: tuple[int, ...]
    following: tuple[int, ...]
    end: int

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> Self:
        """Read the format off a chat template.

        Raises:
            ValueError: if the tokenizer has no chat template or no end token, or does not close commands with it.
        """
        end = tokenizer.eos_token
        if tokenizer.chat_template is None or not isinstance(end, str):
            raise ValueError("`tokenizer` must have a chat template and an end token (`eos_token`)")
        texts = ("FIRSTOBSERVATION", "FIRSTCOMMAND", "SECONDOBSERVATION")
        messages = [
            {"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), texts, strict=True)
        ]
        written: Any = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        opening, rest = written.split(texts[0])
        following, prompt = rest.split(texts[1])[1].split(texts[2])
        if not following.startswith(end):
            raise ValueError(
                f"the chat template of `tokenizer` must close a command with {end!r}, it does so with {following!r}"
            )
        end_id: Any = tokenizer.convert_tokens_to_ids(end)
        return cls(
            tuple(encode(tokenizer, opening)),
            tuple(encode(tokenizer, prompt)),
            tuple(encode(tokenizer, following.removeprefix(end))),
            int(end_id),
        )


class Trace(NamedTuple):
    """An episode as tokens.

    Attributes:
        tokens: ``[L]`` ids.
        mask: ``[L]`` True for the policy's own: commands and their end tokens.
        turn: ``[L]`` number of the command that a token belongs to, from 0; -1 outside of ``mask``.
    """

    tokens: Int[Tensor, " L"]
    mask: Bool[Tensor, " L"]
    turn: Int[Tensor, " L"]


class Dialogue:
    """An episode while it grows: observations and commands in turn.

    Args:
        tokenizer: with a chat template.
        turn_format: of the template; read off it if not given.

    Attributes:
        tokens: ids so far.
        turn: number of the command that each token belongs to, from 0; -1 where the policy did not choose.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", turn_format: TurnFormat | None = None) -> None:
        self.tokenizer = tokenizer
        self.format = turn_format or TurnFormat.of(tokenizer)
        self.tokens: list[int] = []
        self.turn: list[int] = []
        self.turns = 0

    def observe(self, observation: str) -> None:
        """Add an observation and the prompt for a command.

        A command that was cut off before its end token is closed first; that token is not the policy's choice.
        """
        closing: tuple[int, ...] = () if not self.tokens or self.tokens[-1] == self.format.end else (self.format.end,)
        before = (*closing, *self.format.following) if self.tokens else self.format.opening
        self._add((*before, *encode(self.tokenizer, observation, plain=True), *self.format.prompt), -1)

    def command(self, tokens: Sequence[int]) -> str:
        """Add a command that the policy chose, with its end token if it chose one; return its text."""
        self._add(tokens, self.turns)
        self.turns += 1
        return command_text(self.tokenizer, tokens)

    def say(self, text: str) -> None:
        """Add a command, given as a text, and its end token."""
        self.command([*encode(self.tokenizer, text, plain=True), self.format.end])

    def trace(self) -> Trace:
        """Return what there is so far."""
        turn = torch.tensor(self.turn, dtype=torch.long)
        return Trace(torch.tensor(self.tokens, dtype=torch.long), turn >= 0, turn)

    def _add(self, tokens: Sequence[int], turn: int) -> None:
        self.tokens += tokens
        self.turn += [turn] * len(tokens)


class PaddedTraces(NamedTuple):
    """Episodes of different lengths, padded at the end.

    Attributes:
        tokens: ``[B, T]`` ids.
        mask: ``[B, T]`` True for the policy's own.
        turn: ``[B, T]`` number of the command, -1 outside of ``mask``.
        attention: ``[B, T]`` True for what is no padding.
    """

    tokens: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    turn: Int[Tensor, "B T"]
    attention: Bool[Tensor, "B T"]


def pad_traces(traces: Sequence[Trace], pad_token_id: int) -> PaddedTraces:
    """Pad episodes to the length of the longest.

    Raises:
        ValueError: if there is none.
    """
    if not traces:
        raise ValueError("`traces` must have at least one episode, got none")

    def padded(tensors: list[Tensor], value: float) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    return PaddedTraces(
        padded([trace.tokens for trace in traces], pad_token_id),
        padded([trace.mask for trace in traces], False),
        padded([trace.turn for trace in traces], -1),
        padded([torch.ones_like(trace.mask) for trace in traces], False),
    )


def encode(tokenizer: "PreTrainedTokenizerBase", text: str, plain: bool = False) -> list[int]:
    """Return the ids of a text.

    Args:
        tokenizer: of the model.
        text: any text.
        plain: whether special tokens that are spelled out are read as plain text, as what an environment shows must be.
    """
    found: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=plain)
    return found


def command_text(tokenizer: "PreTrainedTokenizerBase", tokens: Sequence[int]) -> str:
    """Return a command's text, in one line and without special tokens."""
    text: Any = tokenizer.decode(list(tokens), skip_special_tokens=True)
    return " ".join(str(text).split())
