"""How much a policy that plays against itself could lose to best responses."""

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy

from maxent_onpolicy.envs.tensor import to_device
from maxent_onpolicy.games.evaluation import Evaluation
from maxent_onpolicy.games.openspiel import load_zero_sum
from maxent_onpolicy.games.selfplay.encoding import Encoding
from maxent_onpolicy.games.sequence_form import Behaviours, InformationState, SequenceFormGame
from maxent_onpolicy.policies.masked import ACTION_MASK, OBSERVATION

# Single precision sums to one only so closely.
_ILLEGAL = 1e-4


def exploitability(model: Any, game: Any) -> Evaluation:
    """Measure a policy against itself, exactly.

    Args:
        model: an algorithm, or its policy, that has learnt in the same game's
            :class:`~maxent_onpolicy.games.selfplay.vec_env.SelfPlayVecEnv`.
        game: a ``pyspiel.Game`` or its name; small enough that its tree can be walked through.

    Returns:
        The evaluation of :meth:`~maxent_onpolicy.games.sequence_form.SequenceFormGame.evaluate`. To measure more than
        one policy, keep a :class:`InformationStates`.

    Raises:
        ImportError: without OpenSpiel.
        ValueError: if there is no such game, it is not two-player zero-sum, or the policy's observations are others.
    """
    return InformationStates(game).evaluate(model)


class InformationStates:
    """All information states of a game, as a policy sees them, in one batch.

    Args:
        game: a ``pyspiel.Game`` or its name.

    Attributes:
        game: in sequence form.
        observation: ``[S, size]`` float32, the first player's information states before the second's.
        mask: ``[S, A]`` int8: the legal actions.

    Raises:
        ImportError: without OpenSpiel.
        ValueError: if there is no such game, or it is not one of two players, zero-sum, with perfect recall.
    """

    def __init__(self, game: Any) -> None:
        loaded = load_zero_sum(game)
        encoding = Encoding(loaded)
        self.game = SequenceFormGame.from_openspiel(loaded)
        states = [state for own in self.game.states for state in own]
        self.observation = np.zeros((len(states), encoding.size), np.float32)
        self.mask = np.zeros((len(states), encoding.n_actions), np.int8)
        for row, state in enumerate(states):
            encoding.fill(_replayed(loaded, state), self.observation[row], self.mask[row])
        # Where each sequence's probability lies in the policy's output, [sequences] of each player but for the empty.
        counts = [len(own) for own in self.game.states]
        self._players = np.split(np.arange(len(states)), [counts[0]])
        self._actions = [np.array([action for state in own for action in state.actions]) for own in self.game.states]
        self._rows = [np.repeat(rows, tree.actions) for rows, tree in zip(self._players, self.game.trees, strict=True)]

    @torch.no_grad()
    def probabilities(self, model: Any, deterministic: bool = False) -> np.ndarray:
        """Return the policy's probabilities of all actions, ``[S, A]`` in double precision, from one forward pass.

        Args:
            model: an algorithm or its policy.
            deterministic: give the most probable action the probability 1.

        Raises:
            ValueError: if the policy takes other observations or actions, or gives illegal actions a probability.
        """
        policy: ActorCriticPolicy = getattr(model, "policy", model)
        batch = {OBSERVATION: self.observation, ACTION_MASK: self.mask}
        self._check_spaces(policy)
        training = policy.training
        policy.set_training_mode(False)
        distribution: Any = policy.get_distribution(to_device(batch, policy.device)).distribution
        policy.set_training_mode(training)
        found = distribution.probs.double().cpu().numpy()
        illegal = (found * (self.mask == 0)).sum(1)
        if not (illegal < _ILLEGAL).all():
            row = int(illegal.argmax())
            player = int(row >= len(self._players[0]))
            label = self.game.states[player][row - player * len(self._players[0])].label
            raise ValueError(
                f"the policy gives illegal actions of information state {label!r} the probability {illegal[row]:.3g}; "
                "use one with an action mask, such as 'MaskedMlpPolicy'"
            )
        return np.eye(found.shape[1])[found.argmax(1)] if deterministic else found

    def behaviours(self, model: Any, deterministic: bool = False) -> Behaviours:
        """Return what a policy does as both players, in the order of the game's sequences.

        Args:
            model: an algorithm or its policy.
            deterministic: see :meth:`probabilities`.

        Raises:
            ValueError: see :meth:`probabilities`.
        """
        probabilities = self.probabilities(model, deterministic)
        found = []
        for tree, rows, actions in zip(self.game.trees, self._rows, self._actions, strict=True):
            chosen = probabilities[rows, actions]
            sums = np.add.reduceat(chosen, tree.first - 1)
            found.append(np.concatenate([[1.0], chosen / np.repeat(sums, tree.actions)]))
        return found[0], found[1]

    def evaluate(self, model: Any, tau: float = 0.0, deterministic: bool = False) -> Evaluation:
        """Measure a policy; see :meth:`~maxent_onpolicy.games.sequence_form.SequenceFormGame.evaluate`.

        Args:
            model: an algorithm or its policy.
            tau: temperature of the equilibrium that ``qre_gap`` is measured to.
            deterministic: see :meth:`probabilities`.
        """
        return self.game.evaluate(self.behaviours(model, deterministic), tau)

    def _check_spaces(self, policy: ActorCriticPolicy) -> None:
        space: Any = policy.observation_space
        shapes = {key: value.shape for key, value in getattr(space, "spaces", {}).items()}
        expected = {OBSERVATION: self.observation.shape[1:], ACTION_MASK: self.mask.shape[1:]}
        if shapes != expected:
            raise ValueError(
                f"the policy was not made for {self.game.name}: its observations are {space}, and the game's have the "
                f"shapes {expected}"
            )


def _replayed(game: Any, state: InformationState) -> Any:
    """Return a ``pyspiel.State`` that belongs to an information state."""
    found = game.new_initial_state()
    for action in state.history:
        found.apply_action(action)
    return found
