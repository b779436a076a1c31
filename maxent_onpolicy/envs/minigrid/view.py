"""What an agent in a grid sees, as MiniGrid encodes it: three numbers a cell.

MiniGrid copies the cells in sight into a new grid, turns that up to four times,
and encodes it cell by cell. Here the cells are looked up where they are. The
result is the same, which a test compares step by step, in less time.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from minigrid.core.world_object import WorldObj
    from minigrid.minigrid_env import MiniGridEnv

_FORWARD = ((1, 0), (0, 1), (-1, 0), (0, -1))  # by direction: right, down, left, up


@cache
def _offsets(direction: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return where each cell of the view lies relative to the agent, ``(x, y)`` in the grid.

    The view's column comes first in the order, then its row; the agent is in the middle of the last row and looks
    towards the first.
    """
    (forward_x, forward_y), half = _FORWARD[direction], size // 2
    right_x, right_y = -forward_y, forward_x
    return tuple(
        (forward_x * ahead + right_x * aside, forward_y * ahead + right_y * aside)
        for aside in range(-half, size - half)
        for ahead in range(size - 1, -1, -1)
    )


@cache
def _outside() -> Any:
    from minigrid.core.world_object import Wall

    return Wall()


def agent_view(env: "MiniGridEnv") -> np.ndarray:
    """Return what the agent of ``env`` sees now, uint8 ``[V, V, 3]``: type, colour and state of each cell."""
    size, half, grid = env.agent_view_size, env.agent_view_size // 2, env.grid
    width, height, objects = grid.width, grid.height, grid.grid
    x, y = int(env.agent_pos[0]), int(env.agent_pos[1])
    cells = [
        objects[(y + dy) * width + x + dx] if 0 <= x + dx < width and 0 <= y + dy < height else _outside()
        for dx, dy in _offsets(env.agent_dir, size)
    ]
    visible = None if env.see_through_walls else _visible(cells, size)
    cells[half * size + size - 1] = env.carrying
    return _encode(cells, visible).reshape(size, size, 3)


def full_view(env: "MiniGridEnv") -> np.ndarray:
    """Return the whole grid of ``env``, uint8 ``[width, height, 3]``, the agent in the place of what it stands on."""
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

    grid = env.grid
    width, height = grid.width, grid.height
    image = _encode(grid.grid).reshape(height, width, 3).transpose(1, 0, 2).copy()
    image[env.agent_pos[0], env.agent_pos[1]] = (OBJECT_TO_IDX["agent"], COLOR_TO_IDX["red"], env.agent_dir)
    return image


def _encode(cells: "list[WorldObj | None]", visible: list[bool] | None = None) -> np.ndarray:
    """Return the codes of ``cells``, uint8 ``[3 * cells]``: those that are not visible are 0, empty ones (1, 0, 0)."""
    codes = bytearray(3 * len(cells))
    for index, cell in enumerate(cells):
        if visible is not None and not visible[index]:
            continue
        if cell is None:
            codes[3 * index] = 1
        else:
            codes[3 * index : 3 * index + 3] = bytes(cell.encode())
    return np.array(codes)


def _visible(cells: "list[WorldObj | None]", size: int) -> list[bool]:
    """Return which cells of a view light reaches.

    It spreads from the agent row by row, in each first to the right and then to the left, from a lit cell that can be
    seen through to the next one and to the two ahead of these.
    """
    lit = [False] * len(cells)
    lit[size // 2 * size + size - 1] = True
    clear = [cell is None or cell.see_behind() for cell in cells]
    for row in range(size - 1, -1, -1):
        for step, columns in ((size, range(size - 1)), (-size, range(size - 1, 0, -1))):
            for column in columns:
                index = column * size + row
                if lit[index] and clear[index]:
                    lit[index + step] = True
                    if row:
                        lit[index + step - 1] = lit[index - 1] = True
    return lit
