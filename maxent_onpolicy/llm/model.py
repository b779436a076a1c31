"""Small language models with random weights, or others from a folder or the Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maxent_onpolicy.llm.environments.base import require
from maxent_onpolicy.validation import check_choice, check_integer, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a Qwen3 model (arXiv:2505.09388): a decoder with grouped queries whose queries and keys are normalised.

    Attributes:
        layers: number of blocks.
        width: of the residual stream.
        heads: of attention.
        key_value_heads: that the heads share.
        feed_forward: width inside a block's gated feed-forward part.
    """

    layers: int
    width: int
    heads: int
    key_value_heads: int
    feed_forward: int


# With a vocabulary of 1024 and embeddings that are also the output's weights: 0.3, 1.8 and 51 million parameters.
SIZES = {
    "tiny": ModelSize(layers=2, width=96, heads=4, key_value_heads=2, feed_forward=256),
    "small": ModelSize(layers=4, width=192, heads=6, key_value_heads=3, feed_forward=512),
    "base": ModelSize(layers=16, width=512, heads=8, key_value_heads=4, feed_forward=1536),
}


def build_model(
    tokenizer: "PreTrainedTokenizerBase",
    size: str | ModelSize = "tiny",
    *,
    max_tokens: int = 4096,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> "PreTrainedModel":
    """Build a Qwen3 model with random weights in float32.

    Args:
        tokenizer: decides the vocabulary, padding and end token.
        size: ``"tiny"``, ``"small"``, ``"base"`` or sizes of your own.
        max_tokens: of a text.
        seed: of the weights; the same on every device.
        device: where the model is put.

    Raises:
        ImportError: if transformers is not installed.
        ValueError: for an unknown size or a number that is too small.
    """
    shape = size if isinstance(size, ModelSize) else SIZES[check_choice("size", size, SIZES)]
    check_integer("max_tokens", max_tokens, 1)
    transformers = require("transformers", "llm")
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.width // shape.heads,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_integer("seed", seed, 0))
        model: Any = transformers.Qwen3ForCausalLM(config)
    return model.to(device)


def load_model(source: str | Path, device: torch.device | str = "cpu", **arguments: Any) -> "PreTrainedModel":
    """Load a model of any architecture from a folder that ``save_pretrained`` wrote, or by its name on the Hub.

    Args:
        source: folder or name.
        device: where the model is put.
        **arguments: of ``AutoModelForCausalLM.from_pretrained``, such as ``dtype``.

    Raises:
        ImportError: if transformers is not installed.
        OSError: if there is no such model.
    """
    model: Any = require("transformers", "llm").AutoModelForCausalLM.from_pretrained(source, **arguments)
    return model.to(device)


def make_model(
    source: str | Path | ModelSize,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> "PreTrainedModel":
    """Build a model of a size with random weights, or load one.

    Args:
        source: ``"tiny"``, ``"small"``, ``"base"`` or a :class:`ModelSize`; else a folder or a name on the Hub.
        tokenizer: of the model.
        seed: of random weights.
        device: where the model is put.

    Raises:
        ImportError: if transformers is not installed.
        ValueError: if ``source`` is neither a size nor a model that can be loaded, or the loaded model has fewer tokens
            than the tokenizer.
    """
    if isinstance(source, ModelSize) or str(source) in SIZES:
        return build_model(
            tokenizer, source if isinstance(source, ModelSize) else str(source), seed=seed, device=device
        )
    try:
        model = load_model(source, device)
    except OSError as error:
        sizes = ", ".join(map(repr, SIZES))
        raise ValueError(
            f"`source` must be one of {sizes}, a folder or a name on the Hub that can be loaded; "
            f"got {str(source)!r}{did_you_mean(source, SIZES)}"
        ) from error
    embedding: Any = model.get_input_embeddings()
    rows = int(embedding.weight.shape[0])
    if rows < len(tokenizer):
        raise ValueError(f"`tokenizer` has {len(tokenizer)} tokens, the model {str(source)!r} only {rows}")
    return model


def count_parameters(model: torch.nn.Module) -> int:
    """Return how many numbers a model learns, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
