"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["sync_directory", "write_atomically"]


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, flushes it to disk and renames it: readers see the old bytes or the new.

    Raises:
        OSError: the file system refused (full, read-only, a limit); ``path`` is as it was and nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        why = f"no space left for {len(data)} bytes" if full else error.strerror
        raise OSError(error.errno, f"cannot write {path}: {why}") from error


def sync_directory(path: Path) -> None:
    """Flushes a directory, so that a rename in it survives a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
