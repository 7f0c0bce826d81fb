"""What a run records of the file that an encoder's weights come from."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from ptr_fast.config import EncoderConfig
from ptr_fast.errors import DataError

__all__ = ["file_digest", "with_digest"]


def with_digest(config: EncoderConfig) -> EncoderConfig:
    """The configuration with the absolute path and the SHA-256 of its file of weights.

    A file is what an encoder calls ``weights`` among its options, beside ``sha256``; a configuration without one comes
    back as it is.

    Raises:
        DataError: the file cannot be read, or has another digest than the one that is asked for.
    """
    options = config.typed_options()
    if not hasattr(options, "weights") or not hasattr(options, "sha256"):
        return config
    digest = file_digest(options.weights)
    if options.sha256 not in ("", digest):
        raise DataError(f"{options.weights}: expected SHA-256 {options.sha256}, got {digest}")
    return replace(config, options={**config.options, "weights": str(options.weights.resolve()), "sha256": digest})


def file_digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot read the encoder's weights: {error.strerror}") from error
