"""``maxent-onpolicy list``: what there is to run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maxent_onpolicy.cli.output import make_console
from maxent_onpolicy.cli.parse import option, parse_options
from maxent_onpolicy.cli.registry import ALGORITHMS
from maxent_onpolicy.cli.suite import list_suites, read_budget
from maxent_onpolicy.cli.values import UsageError, read_yaml
from maxent_onpolicy.controllers import describe_controllers

if TYPE_CHECKING:
    from maxent_onpolicy.llm.methods import MethodInfo

_LONGEST = 30  # characters of a name that its text stands beside

DESCRIPTION = """Show what there is: algorithms, controllers, environments, games, suites,
and methods of entropy control for language models.

  maxent-onpolicy list
  maxent-onpolicy list environments
"""


@dataclass(frozen=True)
class ListOptions:
    """Options of ``maxent-onpolicy list``.

    Attributes:
        what: all, algorithms, controllers, environments, games, llm-methods or suites
    """

    what: Annotated[
        tyro.conf.Positional[
            Literal["all", "algorithms", "controllers", "environments", "games", "llm-methods", "suites"]
        ],
        option("[WHAT]", "all"),
    ] = "all"


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status."""
    options = parse_options(ListOptions, "list", DESCRIPTION, arguments)
    console = make_console()
    if options.what in ("all", "algorithms"):
        _show(console, "algorithms", [(entry.name, entry.summary) for entry in ALGORITHMS.values()])
        console.print("  keywords of one: maxent-onpolicy train ALGORITHM --help\n")
    if options.what in ("all", "controllers"):
        _show(console, "controllers, with their keywords", describe_controllers())
        console.print("  in use: maxent-onpolicy train PPO CartPole-v1 --controllers ppo_br\n")
    if options.what in ("all", "environments"):
        _show(console, "environments", environments())
        console.print("  any other registered Gymnasium id works too\n")
    if options.what in ("all", "games"):
        from maxent_onpolicy.games.registry import list_games

        _show(console, "games", list_games())
        console.print("  solve one: maxent-onpolicy solve kuhn_poker\n")
    if options.what in ("all", "llm-methods"):
        from maxent_onpolicy.llm.methods import list_methods

        _show(
            console, "entropy control for language models", [(each.name, _method_text(each)) for each in list_methods()]
        )
        console.print("  in use: EntropyAdvantageGRPOConfig(methods=['clip_cov'])\n")
    if options.what in ("all", "suites"):
        _show(console, "suites", [(name, _description(path)) for name, path in list_suites().items()])
        console.print("  your own: maxent-onpolicy bench FILE.yaml")
    return 0


def _method_text(method: "MethodInfo") -> str:
    from maxent_onpolicy.llm.methods import READ_IN

    summary = method.summary.replace("``", "")
    return f"{method.kind}: {summary} {method.source}, formula from {READ_IN[method.verified]}"


def environments() -> list[tuple[str, str]]:
    """Return groups of environments: the newest version of each that is registered, and those of extras."""
    import gymnasium

    from maxent_onpolicy.envs.procgen import GAMES, PREFIX

    newest: dict[str, tuple[int, str, str]] = {}
    for env_id, spec in gymnasium.registry.items():
        if spec.namespace is not None or env_id.startswith("GymV"):
            continue  # other ways to step the same environments
        group = str(spec.entry_point).split(":")[0].split(".")
        kind = group[2].replace("_", " ") if group[:2] == ["gymnasium", "envs"] else group[0]
        if spec.version is not None and spec.version >= newest.get(spec.name, (-1, "", ""))[0]:
            newest[spec.name] = (spec.version, env_id, kind)
    groups: dict[str, list[str]] = {}
    for _, env_id, kind in newest.values():
        groups.setdefault(kind, []).append(env_id)
    groups["procgen"] = [PREFIX + game for game in GAMES]
    groups["minigrid"] = ["all of MiniGrid's, such as MiniGrid-DoorKey-8x8-v0"]
    groups["self-play"] = [
        "openspiel:kuhn_poker and any other two-player zero-sum game of OpenSpiel",
        "pettingzoo:connect_four_v3 and its like",
    ]
    return [(kind, ", ".join(sorted(ids))) for kind, ids in sorted(groups.items())]


def _description(path: Path) -> str:
    try:
        content = read_yaml(path)
        if not isinstance(content, dict):
            return ""
        budget = read_budget(content.get("budget"), str(path))
    except UsageError as error:
        return str(error)
    return " ".join([*str(content.get("description", "")).split(), f"({budget})" if budget else ""]).strip()


def _show(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    """Print names and texts in two columns; a long name has a line of its own, so that texts keep theirs wide."""
    console.print(Text(title, style="bold"))
    width = max((len(name) for name, _ in rows if len(name) <= _LONGEST), default=0)
    for name, text in rows:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(no_wrap=True, width=2 + width)
        table.add_column(overflow="fold")
        if len(name) > width:
            console.print(Text(f"  {name}"), soft_wrap=True)
            name = ""
        table.add_row(Text(f"  {name}"), Text(text))
        console.print(table)
