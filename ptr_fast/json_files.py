"""JSON files, read and checked: what is wrong in one is an error that names the file and the place in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptr_fast.config import from_dict
from ptr_fast.errors import DataError

__all__ = ["parse_json", "read_checked", "read_json"]


def parse_json(text: bytes | str) -> Any:
    """The value that a JSON text stands for.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object.

    Raises:
        DataError: it is missing, or something else.
    """
    try:
        value = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected an object, got {type(value).__name__}")
    return value


def read_checked(path: Path, kind: Any, name: str) -> dict[str, Any]:
    """A JSON file's object as it stands there, once its fields are found to be those of a TypedDict.

    Args:
        name: of what the file holds, for errors.

    Raises:
        DataError: as of :func:`read_json`, or a field is missing or of another type.
    """
    value = read_json(path)
    try:
        from_dict(kind, value, name)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return value
