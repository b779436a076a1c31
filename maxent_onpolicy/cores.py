"""How many processor cores there are to use."""

import os

#: Environment variable with the number of cores that a run of a benchmark should keep busy.
CORES = "MAXENT_ONPOLICY_CORES"


def available_cores() -> int:
    """Return how many cores this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_of_cores() -> int:
    """Return how many cores this process should keep busy: its part, where others like it were started here.

    ``torchrun`` says how many there are, a benchmark how many cores each of its runs has.
    """
    cores = available_cores()
    given = os.environ.get(CORES, "")
    if given.isdecimal():
        cores = min(cores, int(given))
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
