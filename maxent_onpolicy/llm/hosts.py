"""Trainers of others that this builds on: whether they are there, and in a version that it was tested with."""

import warnings
from importlib import metadata


def check_host(name: str, package: str, extra: str, tested: tuple[str, str], builds_on: str) -> None:
    """Raise if a package is missing, warn if its version is not among the tested ones.

    Args:
        name: as people write it.
        package: as it is installed.
        extra: of this package that brings it.
        tested: the first and the last version.
        builds_on: what may have changed in another one.

    Raises:
        ImportError: saying what to install.
    """
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise ImportError(f"this needs {name}: pip install 'maxent-onpolicy[{extra}]'") from error
    first, last = tested
    if not _numbers(first) <= _numbers(found) <= _numbers(last):
        span = first if first == last else f"{first} to {last}"
        warnings.warn(
            f"{name} {found} is installed, and this was tested with {span}: {builds_on}, which may have changed",
            stacklevel=4,
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
