"""TRL, if it is there, and whether it is a version that this was tested with."""

import warnings
from importlib import metadata

TESTED = ("1.16.0", "1.16.0")  # the first and the last


def check_trl() -> None:
    """Raise if TRL is missing, warn if its version is not among the tested ones.

    Raises:
        ImportError: saying what to install.
    """
    try:
        found = metadata.version("trl")
    except metadata.PackageNotFoundError as error:
        raise ImportError("this needs TRL: pip install 'maxent-onpolicy[llm]'") from error
    first, last = TESTED
    if not _numbers(first) <= _numbers(found) <= _numbers(last):
        span = first if first == last else f"{first} to {last}"
        warnings.warn(
            f"TRL {found} is installed, and this was tested with {span}: the trainer builds on how "
            "GRPOTrainer computes its loss, which may have changed",
            stacklevel=3,
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
