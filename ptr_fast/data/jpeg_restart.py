"""JPEG files that a GPU can decode in parallel: a restart marker after each row of blocks, the standard tables.

The encoding ``jpeg-restart`` of a camera means such files. Every JPEG reader reads them, to the same pixels as before:
coefficients and quantisation are untouched. ``csrc/data/jpeg_transcode.h`` makes them.
"""

from __future__ import annotations

from typing import Any

from ptr_fast import native
from ptr_fast.errors import DataError

__all__ = ["ENCODING", "add_restarts", "why_not_restart"]

ENCODING = "jpeg-restart"


def add_restarts(data: Any) -> bytes:
    """The file with restart markers; one that has them comes back byte for byte.

    Raises:
        DataError: it is no baseline JPEG in grey or YCbCr, or damaged; one sentence says what it is.
        RuntimeError: there is no native module.
    """
    try:
        return native.require().jpeg_add_restarts(data)
    except ValueError as error:
        raise DataError(str(error)) from error


def why_not_restart(data: Any) -> str | None:
    """None for a file of this encoding, else why it is none; its headers alone are read.

    Raises:
        RuntimeError: there is no native module.
    """
    try:
        _, is_restart = native.require().jpeg_describe(data)
    except ValueError as error:
        return str(error)
    return None if is_restart else "it has no restart marker after each row of blocks, or other than standard tables"
