"""What can be read in, and changed of, a game's state as the C library saves it.

The layout is that of ``Game::serialize`` in Procgen's ``game.cpp``, format 0: 32-bit integers and floats, and strings
that begin with their length.
"""

import struct
from typing import NamedTuple

_FORMAT = 0
_END = 0xCAFECAFE
_INTEGER = struct.Struct("<i")
_OPTIONS, _LEVELS = 12, 5  # numbers between the game's name and its two random generators
_NEVER = 2**31 - 1


class SavedGame(NamedTuple):
    """The part of a saved state that all games have.

    Attributes:
        game: its name.
        timeout: steps after which an episode is cut off.
        elapsed: steps taken in the running one.
        timeout_at: the byte where ``timeout`` is.
    """

    game: str
    timeout: int
    elapsed: int
    timeout_at: int


def read_saved_game(state: bytes) -> SavedGame:
    """Read the state of one game.

    Raises:
        ValueError: if it is no such state. The library would end the process.
    """
    try:
        if _integer(state, 0) != _FORMAT or _integer(state, len(state) - 4) & 0xFFFFFFFF != _END:
            raise ValueError("it has another format, or is not complete")
        name, position = _string(state, 4)
        position += 4 * (_OPTIONS + _LEVELS)
        for _ in range(2):  # random generators: whether they are seeded, and their numbers as text
            position = _string(state, position + 4)[1]
        timeout_at = position + 4 * 4  # after the last reward, two flags and the action
        # After four numbers on levels, three on rewards and actions, and the seed of the pictures.
        return SavedGame(name, _integer(state, timeout_at), _integer(state, timeout_at + 9 * 4), timeout_at)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"it is damaged: {error}") from error


def without_timeout(state: bytes) -> bytes:
    """Return the same state of a game that never times out."""
    position = read_saved_game(state).timeout_at
    return state[:position] + _INTEGER.pack(_NEVER) + state[position + 4 :]


def _integer(state: bytes, position: int) -> int:
    return int(_INTEGER.unpack_from(state, position)[0])


def _string(state: bytes, position: int) -> tuple[str, int]:
    """Return a string and the position after it."""
    start = position + 4
    end = start + _integer(state, position)
    return state[start:end].decode("ascii"), end
