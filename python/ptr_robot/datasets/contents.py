"""What a file holds in place of what its name promises, told from its first bytes, so that an error can help."""

from __future__ import annotations

from pathlib import Path

from ptr_fast.errors import DataError
from ptr_fast.files import GIT_LFS, GIT_LFS_ADVICE

__all__ = ["needed_file", "whats_in", "whats_there"]

ARCHIVES = (
    (b"\x1f\x8b", "gzip data: unpack it first"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PAR1", "a Parquet file"),
    (b"<!DOCTYPE", "a web page, not the data: download it again"),
    (b"<!doctype", "a web page, not the data: download it again"),
    (b"<html", "a web page, not the data: download it again"),
)
HEAD = 512


def whats_in(head: bytes) -> str:
    """What the first bytes of a file say that it is instead; empty where they say nothing."""
    if head.startswith(GIT_LFS):
        return GIT_LFS_ADVICE
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    return next((told for start, told in ARCHIVES if head.startswith(start)), "")


def whats_there(file: Path) -> str:
    """:func:`whats_in` of a file on disk; a missing, empty or unreadable one and a folder are told, too."""
    if file.is_dir():
        return "a folder, expected a file"
    if file.is_symlink() and not file.exists():
        return "a link to a file that is not there (fetch it: 'git annex get', or copy the target)"
    if not file.exists():
        return "missing"
    try:
        with open(file, "rb") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return whats_in(head) if head else "empty (0 bytes)"


def needed_file(file: Path, start: bytes = b"") -> None:
    """Passes where the file is there and may hold what its name says.

    Args:
        start: the first bytes of what is expected, where they are known.

    Raises:
        DataError: it is missing, empty, a folder, a Git LFS pointer, an archive or a web page; names the file.
    """
    told = whats_there(file)
    if start and (not told or told in dict(ARCHIVES).values()):
        with open(file, "rb") as stream:
            head = stream.read(len(start))
        told = "" if head == start else told or f"expected a file that begins with {start!r}, got {head!r}"
    if told:
        raise DataError(f"{file}: {told}")
