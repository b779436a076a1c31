"""Which runs of a benchmark are trained in one process, on stacked parameters."""

from collections.abc import Callable

from maxent_onpolicy.cli.config import RunConfig
from maxent_onpolicy.cli.jobs import Job


def put_together(jobs: list[Job], workers: int, message: Callable[[str], None]) -> None:
    """Mark the jobs of each algorithm in each environment as belonging together, where their models can be stacked.

    On the CPU a process computes with one core. So there the seeds are shared out between as many processes as keep
    all workers busy; on a GPU they stay in one.

    Args:
        jobs: which are marked.
        workers: processes at a time.
        message: called with a line for each algorithm and environment that is trained one by one, and why.
    """
    cells: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        cells.setdefault((job.config.label, job.config.env_id), []).append(job)
    several = {cell: members for cell, members in cells.items() if len(members) > 1}
    for (label, env_id), members in several.items():
        reason, device = _inspect(members[0].config)
        if reason is not None:
            message(f"{label} on {env_id}: seeds are trained one by one because of {reason}")
            continue
        parts = max(1, min(len(members), workers // len(cells))) if device == "cpu" else 1
        for index, job in enumerate(members):
            job.together = (label, env_id, str(index % parts))


def _inspect(config: RunConfig) -> tuple[str | None, str]:
    """Return why a run's model cannot be stacked, or ``None``, and its kind of device."""
    from maxent_onpolicy.algorithms.train_seeds import why_not_stacked
    from maxent_onpolicy.cli.build import make_model, make_training_env

    env = make_training_env(config)
    try:
        model = make_model(config, env)
        return why_not_stacked(model), model.device.type
    finally:
        env.close()
