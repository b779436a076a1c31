"""A value head for the future entropy of a language model's policy, with an optimiser of its own."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maxent_onpolicy.estimators.losses import value_loss
from maxent_onpolicy.policies.heads import PopArtLinear, head_scale

FILE = "entropy_critic.pt"


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
        self.head = PopArtLinear(width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)

    def forward(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return values in nats, computed in single precision."""
        found: Tensor = self.head(self.body(hidden.float()))
        return found.squeeze(-1)

    def accumulate(self, hidden: Float[Tensor, "N D"], target: Float[Tensor, " N"], share: float) -> float:
        """Add the gradient of the squared error to what is there; return the error in normalised units.

        Args:
            hidden: states.
            target: what the values are to be, nats.
            share: of this batch in the optimiser's next step.
        """
        with torch.enable_grad():
            loss = value_loss(self(hidden.detach()), target, head_scale(self.head))
            (share * loss).backward()
        return float(loss.detach())

    def step(self, average: Any = None) -> None:
        """Take an optimiser step.

        Args:
            average: called with each gradient; returns its mean over processes.
        """
        if average is not None:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.copy_(average(parameter.grad))
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
