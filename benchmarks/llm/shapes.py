"""Models of any shape with random weights, the tokenizer that goes with them, and what they were given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = 64


@dataclass(frozen=True)
class Shape:
    """Of a model and of a batch.

    Attributes:
        width: of the hidden states.
        feed_forward: of the layers' inner part.
        heads: of attention; ``key_value_heads`` of its keys and values.
        vocabulary: tokens.
        depth: layers of the model whose shape this is, which are more than are measured.
        prompt: tokens of a prompt; ``tokens`` of a completion.
        completions: a batch; ``generations`` of them answer the same prompt.
    """

    width: int
    feed_forward: int
    heads: int
    key_value_heads: int
    vocabulary: int
    depth: int
    prompt: int
    tokens: int
    completions: int
    generations: int = 2


SHAPES = {
    "qwen2.5-1.5b": Shape(1536, 8960, 12, 2, 151_936, 28, prompt=16, tokens=64, completions=4),
    "tiny": Shape(32, 64, 2, 1, 256, 28, prompt=4, tokens=12, completions=4),
}


def make_model(shape: Shape, layers: int) -> Any:
    """Return a model of Qwen2's kind in single precision, with embeddings that are its head too."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)


def make_tokenizer() -> Any:
    """Return a tokenizer of few words; tokens that it does not know are decoded to nothing."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<eos>", *(f"w{number}" for number in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def peak_memory() -> float:
    """Return the most memory that this process has held, MiB.

    On Linux of this program alone: ``ru_maxrss`` would count what the process was before it became this program.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return _field(status, "VmHWM") / 1024
    import resource
    import sys

    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / (1024**2 if sys.platform == "darwin" else 1024)


def memory() -> float:
    """Return the memory that this process holds, MiB.

    Raises:
        RuntimeError: where the system does not say.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        raise RuntimeError("memory is measured through /proc, which this system does not have")
    return _field(status, "VmRSS") / 1024


def _field(status: Path, name: str) -> int:
    """Return a number of KiB from a file of Linux."""
    lines = status.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
