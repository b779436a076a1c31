"""Draw what an agent sees: the sixteen games of Procgen, and training beside test levels of some of them.

    python scripts/draw_frames.py            # into results/pictures, where the documentation takes them from

Images are the observations themselves, 64 by 64 pixels in easy mode, some way into an episode of random actions. The
extra procgen must be installed; the same version of it gives the same pictures.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from maxent_onpolicy import make_vec_env
from maxent_onpolicy.envs.procgen.games import GAMES
from maxent_onpolicy.evaluation.drawing import PAPER, WIDTH, style

STEPS = 40
COLUMNS = 8
COMPARED = ("coinrun", "fruitbot")
LEVELS = 6


def observe(game: str, n_envs: int, num_levels: int) -> np.ndarray:
    """Return observations ``[n_envs, 64, 64, 3]`` after :data:`STEPS` random steps."""
    env = make_vec_env(f"procgen:{game}", n_envs, seed=1, num_levels=num_levels, distribution_mode="easy")
    rng = np.random.default_rng(1)
    env.reset()
    for _ in range(STEPS):
        observations = env.step(rng.integers(0, 15, n_envs))[0]
    env.close()
    return np.asarray(observations)


def draw(images: Sequence[np.ndarray], titles: Sequence[str], columns: int) -> Figure:
    """Return the images in rows of ``columns``, each under its title."""
    rows = len(images) // columns
    figure = Figure(figsize=(WIDTH, rows * (WIDTH / columns + 0.2)), facecolor=PAPER)
    figure.set_layout_engine("constrained", h_pad=0.06)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, image, title in zip(axes, images, titles, strict=True):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title, fontsize=7.5)
        axis.set_axis_off()
    return figure


def main() -> None:
    """Draw both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results" / "pictures")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    images: list[np.ndarray] = []
    titles: list[str] = []
    for game in COMPARED:
        for name, num_levels in (("training", 200), ("test", 0)):
            images += list(observe(game, LEVELS, num_levels))
            titles += [f"{game}, {name}"] * LEVELS
    with style():
        figures = {
            "procgen_games": draw([observe(game, 1, 200)[0] for game in GAMES], GAMES, COLUMNS),
            "procgen_levels": draw(images, titles, LEVELS),
        }
        for name, figure in figures.items():
            figure.savefig(output / f"{name}.png", dpi=120, metadata={"Software": None})
            print(f"wrote {output / name}.png")


if __name__ == "__main__":
    main()
