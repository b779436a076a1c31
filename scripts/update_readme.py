"""Put the committed results into the README, between the markers ``results:SUITE:start`` and ``results:SUITE:end``.

    python scripts/update_readme.py           # write
    python scripts/update_readme.py --check   # only say whether the README is up to date (exit status)

What is shown is what ``maxent-onpolicy report results/SUITE`` wrote: the summary and the probability of improvement,
with their captions, and the learning curves. Of ``results/speed``, which ``scripts/speed.sh`` writes, it is the
comparison with the peers and the figure; of ``results/speed_gpu``, what there is of GPUs; of ``results/zero-sum``, what
``python -m benchmarks.games`` makes of solvers and self-play; of ``results/textworld-mini``, returns in games that
training saw and in others, and the entropy at both ends of the training with its curves.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Folder, tables, figure and its description: of suites, and of what is no suite.
SUITE = ("", ("summary", "improvement"), "learning_curves_deterministic", "Learning curves of the suite {}")
OTHERS = {
    "mujoco": (
        "",
        ("maximum_entropy", "while_learning", "summary", "aggregates", "published"),
        "maximum_entropy",
        "Probability that a run with entropy ends above one without, for each task",
    ),
    "speed": ("", ("peers",), "speed", "Steps a second of PPO in several libraries, and where the time goes"),
    "speed_gpu": ("", ("gpu", "gpu-sac"), None, ""),
    "textworld-mini": ("", ("generalisation", "training"), "diagnostics_textworld", "Returns and entropy"),
    "zero-sum": ("solvers", ("self_play",), "exploitability", "Exploitability of solvers against CPU time"),
}
SECTION = r"(<!-- results:{suite}:start -->\n).*?(<!-- results:{suite}:end -->)"


def results_block(results: Path, suite: str) -> str:
    """Return the Markdown for a suite whose results are in ``results``: tables, captions and the learning curves.

    Raises:
        FileNotFoundError: if there is no report yet.
    """
    folder = results / suite
    below, tables, figure, description = OTHERS.get(suite, SUITE)
    paths = [folder / below / "tables" / f"{name}.md" for name in tables]
    # a suite that is run in part may have nothing to aggregate yet
    parts = [path.read_text(encoding="utf-8").strip() for path in paths if path.is_file()]
    if not parts:
        raise FileNotFoundError(f"{folder / below / 'tables'} has none of {', '.join(tables)}")
    if figure:
        path = Path("results", suite, below, "figures", f"{figure}.svg").as_posix()
        parts.append(f"![{description.format(folder.name)}]({path})")
    return "\n" + "\n\n".join(parts) + "\n\n"


def update(text: str, results: Path) -> str:
    """Return a README in which every marked section shows what is in ``results``; those without results stay."""
    for suite in re.findall(r"<!-- results:([\w/-]+):start -->", text):
        if (results / suite / "tables").is_dir():
            block = results_block(results, suite)
            text = re.sub(SECTION.format(suite=suite), lambda match, b=block: match[1] + b + match[2], text, flags=re.S)
    return text


def main() -> int:
    """Update or check the README; return the exit status."""
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = update(old, ROOT / "results")
    if "--check" not in sys.argv:
        readme.write_text(new, encoding="utf-8")
        return 0
    if new != old:
        print("README.md does not show the committed results: run python scripts/update_readme.py", file=sys.stderr)
    return int(new != old)


if __name__ == "__main__":
    sys.exit(main())
