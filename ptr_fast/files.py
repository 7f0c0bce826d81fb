"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["sync_directory", "write_atomically", "writing"]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around writes to a file: what the file system refuses becomes an error that names the file and says why.

    Raises:
        OSError: with the number of the original one.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        why = "no space left" if full else error.strerror or error
        raise OSError(error.errno, f"cannot write {path}: {why}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, flushes it to disk and renames it: readers see the old bytes or the new.

    Raises:
        OSError: the file system refused (full, read-only, a limit); ``path`` is as it was and nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_directory(path.parent)
        except OSError:
            with contextlib.suppress(OSError):  # its folder may be what is missing
                temporary.unlink()
            raise


def sync_directory(path: Path) -> None:
    """Flushes a directory, so that a rename in it survives a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
