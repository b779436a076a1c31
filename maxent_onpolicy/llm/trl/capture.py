"""Hidden states of a language model, taken on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class HiddenStates:
    """Collects the last hidden states of every forward pass of a model while it is listening.

    Models with a fused head return log-probabilities and no hidden states; the body in front of the head is called as a
    module nevertheless.

    Args:
        model: a causal language model of transformers, plain or with adapters of PEFT.

    Raises:
        ValueError: if the body cannot be found.
    """

    def __init__(self, model: nn.Module) -> None:
        inner: Any = model
        if hasattr(inner, "get_base_model"):  # adapters of PEFT
            inner = inner.get_base_model()
        body = getattr(inner, getattr(inner, "base_model_prefix", "") or "model", None)
        if not isinstance(body, nn.Module):
            raise ValueError(f"`model`: cannot find the body of {type(inner).__name__} in front of its head")
        self._parts: list[Tensor] | None = None
        body.register_forward_hook(self._note)

    def _note(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if self._parts is not None:
            hidden = output[0] if isinstance(output, tuple) else output.last_hidden_state
            self._parts.append(hidden.detach())

    @contextmanager
    def listening(self) -> Iterator[list[Tensor]]:
        """Yield a list that receives ``[b, P + T, D]`` of each forward pass within the block."""
        self._parts = []
        try:
            yield self._parts
        finally:
            self._parts = None


def states_of_tokens(hidden: Tensor, tokens: int) -> Tensor:
    """Return the states ``[B, T, D]`` in which the last ``tokens`` tokens were chosen: each one place earlier."""
    return hidden[:, -tokens - 1 : -1]
