"""Files that are there as a whole or not at all, however the process or the machine ends."""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it once the block succeeds.

    Whoever reads ``path`` sees the old file or the new one, never a part. If
    the block raises, the old file stays and the temporary one is removed.

    Args:
        path: the file to create or replace; its suffix is kept on the temporary name.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private; results are to be shared
        sync(temporary)
        os.replace(temporary, path)
        with suppress(OSError):  # a directory is no file everywhere
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary(path: Path) -> None:
    """Remove what :func:`replacing` left behind beside ``path`` when the process was killed inside it."""
    for temporary in path.parent.glob(f".{glob.escape(path.stem)}-????????{glob.escape(path.suffix)}"):
        temporary.unlink(missing_ok=True)


def remove_temporaries(directory: Path) -> None:
    """Remove what :func:`replacing` left behind anywhere in ``directory``.

    What a kill in :meth:`RunDirectory.create` left beside it goes too.
    """
    for path in directory.glob(".*-????????.*"):
        path.unlink(missing_ok=True)
    for path in directory.parent.glob(f".{glob.escape(directory.name)}-????????"):
        shutil.rmtree(path, ignore_errors=True)


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` with ``text``; after a crash it holds all of the old or all of the new text.

    Raises:
        OSError: if the file cannot be written, for example because the disk is full.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
