"""Files that are there whole or not at all, and those that stand for others."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["GIT_LFS", "GIT_LFS_ADVICE", "git_lfs_advice", "sync_directory", "sync_tree", "write_atomically", "writing"]

GIT_LFS = b"version https://git-lfs"
"""How the text begins that Git keeps in place of a large file."""
GIT_LFS_ADVICE = "a Git LFS pointer, not the data: run 'git lfs pull' in its repository"


def git_lfs_advice(file: Path) -> str:
    """What to do about a file that is only a Git LFS pointer; empty where it is none, or cannot be read."""
    try:
        with open(file, "rb") as stream:
            return GIT_LFS_ADVICE if stream.read(len(GIT_LFS)) == GIT_LFS else ""
    except OSError:
        return ""


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


def sync_tree(path: Path) -> None:
    """Flushes every file and folder below a folder, and the folder, which may then be renamed into place."""
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(folder))
