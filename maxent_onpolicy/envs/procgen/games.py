"""Procgen's games, their modes and options; everything the C library would end the process for is refused here.

Names and values are those of OpenAI's ``procgen`` 0.10.7 (Cobbe et al. 2020, "Leveraging Procedural Generation to
Benchmark Reinforcement Learning").
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from maxent_onpolicy.validation import check_choice, check_integer, did_you_mean

#: Names of all sixteen games.
GAMES = (
    *("bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot"),
    *("heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot"),
)
# The keys of each action, by its number.
ACTIONS = (
    *("LEFT+DOWN", "LEFT", "LEFT+UP", "DOWN", "", "UP", "RIGHT+DOWN", "RIGHT", "RIGHT+UP"),
    *("D", "A", "W", "S", "Q", "E"),
)
# The one level of each game that is hard to explore.
EXPLORATION_LEVELS = {
    "coinrun": 1949448038,
    "caveflyer": 1259048185,
    "leaper": 1318677581,
    "jumper": 1434825276,
    "maze": 158988835,
    "heist": 876640971,
    "climber": 1561126160,
    "ninja": 1123500215,
}
#: Each mode's number in the library, and the games that have it.
MODES: dict[str, tuple[int, tuple[str, ...]]] = {
    "easy": (0, GAMES),
    "hard": (1, GAMES),
    "extreme": (2, ("chaser", "dodgeball", "leaper", "starpilot")),
    "memory": (10, ("caveflyer", "dodgeball", "heist", "jumper", "maze", "miner")),
    "exploration": (1, tuple(EXPLORATION_LEVELS)),
}
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class GameOptions:
    """What is played, and how it looks; the defaults are those of OpenAI's package.

    Attributes:
        game: a name in ``GAMES``.
        num_levels: levels are drawn from so many; 0 draws from all 2³¹ - 1.
        start_level: the first of them; without effect if ``num_levels`` is 0.
        distribution_mode: ``"easy"``, ``"hard"``, ``"extreme"``, ``"memory"`` or ``"exploration"``: hard, and always
            the same level, which random actions hardly solve.
        use_sequential_levels: go on to the next level when one is completed, within the episode; these levels
            are outside of ``start_level`` and ``num_levels``.
        center_agent: whether the view follows the agent, in the games where that is optional.
        use_backgrounds: pictures instead of black.
        use_monochrome_assets: rectangles of one colour instead of pictures.
        restrict_themes: one look of each object instead of several.
        use_generated_assets: random pictures instead of drawn ones; the library cannot copy such games.
        paint_vel_info: show the agent's velocity in the corner.
        debug_mode: CoinRun only: bits 1, 2 and 3 leave out pits, crates and heights.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """

    game: str
    num_levels: int = 0
    start_level: int = 0
    distribution_mode: str = "hard"
    use_sequential_levels: bool = False
    center_agent: bool = True
    use_backgrounds: bool = True
    use_monochrome_assets: bool = False
    restrict_themes: bool = False
    use_generated_assets: bool = False
    paint_vel_info: bool = False
    debug_mode: int = 0

    def __post_init__(self) -> None:
        check_choice("game", self.game, GAMES)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is bool and not isinstance(value, bool):
                raise ValueError(f"`{field.name}` must be True or False, got {value!r}")
            if field.type is int:
                number = check_integer(field.name, value, 0)
                if number > _LARGEST:
                    raise ValueError(f"`{field.name}` must be at most 2**31 - 1, got {value!r}")
                object.__setattr__(self, field.name, number)
        if self.start_level + self.num_levels > _LARGEST:
            raise ValueError(
                "`start_level` + `num_levels` must be at most 2**31 - 1, "
                f"got {self.start_level!r} + {self.num_levels!r}"
            )
        self._check_mode()

    def _check_mode(self) -> None:
        check_choice("distribution_mode", self.distribution_mode, tuple(MODES))
        games = MODES[self.distribution_mode][1]
        if self.game not in games:
            has = ", ".join(repr(mode) for mode, (_, others) in MODES.items() if self.game in others)
            raise ValueError(
                f"`distribution_mode`: {self.game} has {has}; got {self.distribution_mode!r}, "
                f"which is for {', '.join(games)}"
            )
        if self.distribution_mode == "exploration" and (self.num_levels or self.start_level):
            raise ValueError(
                "`distribution_mode='exploration'` is a single level; leave `num_levels` and `start_level` out"
            )

    def for_library(self, seed: int, num_threads: int, render_human: bool) -> dict[str, bool | int | str]:
        """Return the options by the C library's names.

        Args:
            seed: of the generator that draws the levels, below 2³¹.
            num_threads: that step; 0: the calling one.
            render_human: whether each observation comes with a picture of 512 by 512.
        """
        options = asdict(self)
        options["env_name"] = options.pop("game")
        options["distribution_mode"] = MODES[self.distribution_mode][0]
        if self.distribution_mode == "exploration":
            options |= {"num_levels": 1, "start_level": EXPLORATION_LEVELS[self.game]}
        return {**options, "rand_seed": seed, "num_threads": num_threads, "render_human": render_human}


def make_options(game: str, options: dict[str, Any], others: tuple[str, ...] = ()) -> GameOptions:
    """Return the options of a game.

    Args:
        game: its name.
        options: keywords of :class:`GameOptions`.
        others: further keywords that the caller takes, for the error message.

    Raises:
        ValueError: for an unknown keyword, naming the closest, or a wrong value.
    """
    known = [field.name for field in fields(GameOptions) if field.name != "game"]
    for name in options:
        if name not in known:
            allowed = ", ".join([*known, *others])
            raise ValueError(
                f"Procgen takes no keyword {name!r}{did_you_mean(name, [*known, *others])}; it takes {allowed}"
            )
    return GameOptions(game, **options)
