"""A callback that watches how exploitable a policy is while it learns."""

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from maxent_onpolicy.games.evaluation import Evaluation
from maxent_onpolicy.games.selfplay.information_states import InformationStates
from maxent_onpolicy.validation import check_integer


class ExploitabilityCallback(BaseCallback):
    """Measures the policy between two rollouts, and at the end, and logs ``eval/exploitability``.

    Args:
        game: a ``pyspiel.Game`` or its name, or its :class:`~.information_states.InformationStates`.
        every_steps: environment steps between measurements; the next boundary of a rollout after them counts.
        verbose: 1 prints each.

    Attributes:
        history: steps and what was measured after them.

    Raises:
        ImportError: without OpenSpiel.
        ValueError: if there is no such game, or ``every_steps`` is less than 1.
    """

    every_step = False

    def __init__(self, game: Any, every_steps: int = 10_000, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.every_steps = check_integer("every_steps", every_steps, 1)
        self.states = game if isinstance(game, InformationStates) else InformationStates(game)
        self.history: list[tuple[int, Evaluation]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        # The counter of a callback moves with its steps only.
        if not self.history or self.model.num_timesteps - self.history[-1][0] >= self.every_steps:
            self._measure()

    def _on_training_end(self) -> None:
        if not self.history or self.model.num_timesteps > self.history[-1][0]:
            self._measure()
            self.logger.dump(self.model.num_timesteps)

    def _measure(self) -> None:
        found = self.states.evaluate(self.model)
        timesteps = self.model.num_timesteps
        self.history.append((timesteps, found))
        self.logger.record("eval/exploitability", float(found.exploitability))
        self.logger.record("eval/game_value", float(found.value))
        self.logger.record("time/total_timesteps", timesteps, exclude="tensorboard")
        if self.verbose >= 1:
            print(f"Exploitability after {timesteps} steps: {float(found.exploitability):.4f}")
