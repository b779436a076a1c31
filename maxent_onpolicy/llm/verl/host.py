"""verl, if it is there, and whether it is a version that this was tested with."""

import warnings
from importlib import metadata

TESTED = ("0.9.0", "0.9.1")  # the first and the last


def check_verl() -> None:
    """Raise if verl is missing, warn if its version is not among the tested ones.

    Raises:
        ImportError: saying what to install.
    """
    try:
        found = metadata.version("verl")
    except metadata.PackageNotFoundError as error:
        raise ImportError("this needs verl: pip install 'maxent-onpolicy[llm-verl]'") from error
    first, last = TESTED
    if not _numbers(first) <= _numbers(found) <= _numbers(last):
        warnings.warn(
            f"verl {found} is installed, and this was tested with {first} to {last}: what verl gives to "
            "a policy loss may have changed",
            stacklevel=3,
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
