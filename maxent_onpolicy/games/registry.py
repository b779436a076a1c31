"""Games by name, so that command lines and files can ask for them."""

import inspect
from collections.abc import Callable
from typing import Any

from maxent_onpolicy.games import generators
from maxent_onpolicy.games.matrix import MatrixGame
from maxent_onpolicy.games.soccer import soccer
from maxent_onpolicy.validation import did_you_mean

_OWN: dict[str, tuple[Callable[..., Any], str]] = {
    "matching_pennies": (generators.matching_pennies, "matrix game, 2 × 2, value 0"),
    "rock_paper_scissors": (generators.rock_paper_scissors, "matrix game, 3 × 3, value 0"),
    "biased_rock_paper_scissors": (
        generators.biased_rock_paper_scissors,
        "matrix game, 3 × 3, value 0, solved by (1/16, 10/16, 5/16)",
    ),
    "perturbed_rock_paper_scissors": (
        generators.perturbed_rock_paper_scissors,
        "matrix game, 3 × 3, value 0, solved by (3/7, 3/7, 1/7)",
    ),
    "random_matrix": (generators.random_matrix_game, "matrix games with payoffs uniform in [-1, 1]: m, n, batch, seed"),
    "random_markov": (
        generators.random_markov_game,
        "Markov game with random rewards and transitions: states, actions, gamma or horizon, seed",
    ),
    "soccer": (soccer, "Littman's soccer, a Markov game of 1445 states: gamma"),
}
_OPENSPIEL = {
    "kuhn_poker": "poker with three cards, 12 information states, value -1/18",
    "leduc_poker": "poker with six cards and two rounds, 936 information states, value -0.0856",
    "liars_dice(numdice=1)": "liar's dice with a die each, 24,576 information states",
    "goofspiel(num_cards=4,imp_info=true,points_order=descending)": "bidding for points with cards of one's own",
}


def make_game(name: str, **arguments: Any) -> Any:
    """Return a game of this package or of OpenSpiel.

    OpenSpiel's matrix games become a :class:`MatrixGame`, all its others a :class:`SequenceFormGame`.

    Args:
        name: one of :func:`list_games`, or any name of OpenSpiel, with parameters in parentheses where it has some:
            ``"liars_dice(numdice=1)"``.
        **arguments: of the game.

    Raises:
        ImportError: if it is OpenSpiel's, and that or numba is not installed.
        ValueError: if there is no such game, naming the closest, or it has no such argument.
    """
    if name in _OWN:
        build = _OWN[name][0]
        allowed = list(inspect.signature(build).parameters)
        for argument in arguments:
            if argument not in allowed:
                known = ", ".join(allowed) or "none"
                raise ValueError(
                    f"{name} has no argument {argument!r}{did_you_mean(argument, allowed)}; it has {known}"
                )
        return build(**arguments)
    return _from_openspiel(name, arguments)


def list_games() -> list[tuple[str, str]]:
    """Return names of games and what they are; OpenSpiel has more than those that are named here."""
    return [(name, text) for name, (_, text) in _OWN.items()] + [
        (name, f"OpenSpiel's {text}") for name, text in _OPENSPIEL.items()
    ]


def _from_openspiel(name: str, arguments: dict[str, Any]) -> Any:
    short = name.split("(", 1)[0]
    named = [each.split("(", 1)[0] for each in _OPENSPIEL]
    try:
        import pyspiel
    except ImportError as error:
        if short in named:
            raise ImportError(f"{short} needs OpenSpiel: pip install 'maxent-onpolicy[games]'") from error
        raise ValueError(
            f"no game {name!r}{did_you_mean(name, [*_OWN, *named])}; those of OpenSpiel need "
            "pip install 'maxent-onpolicy[games]'"
        ) from None
    known = pyspiel.registered_names()
    if short not in known:
        raise ValueError(f"no game {name!r}{did_you_mean(short, [*_OWN, *known])}")
    from maxent_onpolicy.games.openspiel import load_game
    from maxent_onpolicy.games.sequence_form import SequenceFormGame

    full = _with_parameters(name, arguments)
    loaded = load_game(full)
    if isinstance(loaded, pyspiel.MatrixGame):
        return MatrixGame(loaded.row_utilities(), loaded.col_utilities())
    return SequenceFormGame.from_openspiel(full)


def _with_parameters(name: str, arguments: dict[str, Any]) -> str:
    """Return OpenSpiel's name of a game with further parameters."""
    if not arguments:
        return name
    words = {True: "true", False: "false"}
    written = ",".join(
        f"{key}={words[value] if isinstance(value, bool) else value}" for key, value in arguments.items()
    )
    return f"{name.removesuffix(')')},{written})" if name.endswith(")") else f"{name}({written})"
