"""The table of images: who is how fast, and where the time goes."""

import pandas as pd

from benchmarks.speed.image_workloads import IMAGE_WORKLOADS, LIMIT, OURS, SB3
from benchmarks.speed.summary import Measurements
from benchmarks.speed.workloads import Contender, Workload
from maxent_onpolicy.evaluation.tables import Table

PARTS = {"environments": "env_ms", "network, acting": "policy_ms", "network, learning": "update_ms"}
NOT_RUN = "–"


def images(measured: Measurements) -> Table:
    """Steps a second on Procgen, and the shares of environments and networks."""
    data, text = [], []
    for workload in IMAGE_WORKLOADS:
        for contender in workload.contenders:
            row = _row(measured, workload, contender)
            data.append(row)
            words = {name: _cell(name, value) for name, value in row.items()}
            times = measured.ratio(workload.name, contender.name, SB3.name)
            if times is not None and contender.name == OURS.name:
                words["times SB3"] += f" [{times.low:.2f}, {times.high:.2f}]"
            text.append(words)
    caption = (
        "PPO on CoinRun (easy, 200 levels), 64 environments, minibatches of 2,048, 3 epochs, two threads; everybody "
        "has the same environments and the same network. Environment steps a second, medians over fresh processes "
        "that take turns; in brackets the ratio's spread over rounds; shares of an iteration's time. Acting includes "
        f"critics. Aimed at: {LIMIT:g} times SB3."
    )
    return Table("images", "Images", caption, pd.DataFrame(data), pd.DataFrame(text))


def _row(measured: Measurements, workload: Workload, contender: Contender) -> dict[str, str | float | None]:
    speed = measured.summary(workload.name, contender.name)
    times = measured.ratio(workload.name, contender.name, SB3.name)
    whole = measured.summary(workload.name, contender.name, "iteration_ms")
    row: dict[str, str | float | None] = {
        "Network": workload.title,
        "Library": contender.label,
        "Steps/s": speed and speed.median,
        "times SB3": times and times.median,
    }
    for name, column in PARTS.items():
        part = measured.summary(workload.name, contender.name, column)
        row[name] = part.median / whole.median if part and whole else None
    return row


def _cell(name: str, value: str | float | None) -> str:
    if value is None:
        return NOT_RUN
    if isinstance(value, str):
        return value
    if name in PARTS:
        return f"{value:.1%}"
    return f"{value:,.0f}" if name == "Steps/s" else f"{value:.2f}"
