"""A value head for the future entropy of a language model's policy, with an optimiser of its own."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maxent_onpolicy.estimators.losses import value_loss
from maxent_onpolicy.policies.heads import PopArtLinear, head_scale

FILE = "entropy_critic.pt"
_MINIBATCHES = 4  # of an epoch


class _Head(PopArtLinear):
    """A PopArt head that starts at zero, and goes on from the mean of the first targets.

    PopArt keeps the output as it was when the moments change. At first that would be far below the targets, at
    ``-mean/std`` in normalised units, which is a long way for steps of Adam's size.
    """

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    @torch.no_grad()
    def update(self, target: Tensor) -> None:
        first = bool(self.running_weight == 0)
        super().update(target)
        if first:
            nn.init.zeros_(self.bias)


class EntropyCritic(nn.Module):
    """Predicts the discounted future entropy from the hidden state that a token is chosen in.

    It reads hidden states and never changes them: no gradient goes into the language model. Targets are as large as
    completions are long, so the head normalises them by their running moments (PopArt).

    Args:
        hidden_size: ``D`` of the language model.
        width: hidden units.
        learning_rate: of Adam.
    """

    def __init__(self, hidden_size: int, width: int, learning_rate: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, width), nn.SiLU())
        self.head = _Head(width)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def forward(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return values in nats, computed in single precision."""
        # Autocast would also keep copies of the weights, of before a step.
        with torch.autocast(hidden.device.type, enabled=False):
            found: Tensor = self.head(self.body(hidden.float()))
        return found.squeeze(-1)

    @torch.no_grad()
    def accumulate(self, hidden: Float[Tensor, "N D"], target: Float[Tensor, " N"]) -> float:
        """Keep states for the next :meth:`step`; return the squared error there before it, in normalised units.

        Args:
            hidden: states.
            target: what the values are to be, nats.
        """
        self._waiting.append((hidden.detach(), target.detach()))
        return float(value_loss(self(hidden), target, head_scale(self.head)))

    @torch.enable_grad()
    def step(self, epochs: int = 4, average: Callable[[Tensor], Tensor] | None = None) -> None:
        """Learn all states that wait, in several minibatches and epochs.

        With one step of Adam for all of them, a head that starts at zero needs a dozen batches for what a single one
        teaches. All processes take the same steps, however many states each has, and every state counts the same.

        Args:
            epochs: how often each state is used.
            average: called with tensors; returns their means over processes. ``None``: there is one process.
        """
        hidden, target = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting.clear()
        # Always the same order: states are new each time, and a run that is resumed must go on as it would have.
        generator = torch.Generator().manual_seed(0)
        for _ in range(epochs):
            order = torch.randperm(len(target), generator=generator).to(target.device)
            for chosen in order.tensor_split(_MINIBATCHES):
                self._descend(hidden[chosen], target[chosen], average)

    def _descend(self, hidden: Tensor, target: Tensor, average: Callable[[Tensor], Tensor] | None) -> None:
        """Take an optimiser step on the mean squared error over the states of all processes, if there are any."""
        count = torch.tensor(float(len(target)), device=target.device)
        error = ((self(hidden) - target) / head_scale(self.head)).square().sum()
        parameters = list(self.parameters())
        gradients = torch.autograd.grad(error, parameters)
        if average is not None:
            count, gradients = average(count), tuple(map(average, gradients))
        if count > 0:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient / count
            self.optimizer.step()
            self.optimizer.zero_grad()

    def save(self, folder: Path) -> None:
        """Write parameters and optimiser into ``folder``, apart from the language model's."""
        torch.save({"model": self.state_dict(), "optimizer": self.optimizer.state_dict()}, folder / FILE)

    def restore(self, folder: Path) -> None:
        """Continue from what :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is nothing, naming the file.
        """
        if not (folder / FILE).is_file():
            raise FileNotFoundError(f"{folder / FILE} is missing: the checkpoint was made without an entropy critic")
        state = torch.load(folder / FILE, map_location="cpu", weights_only=True)
        self.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
