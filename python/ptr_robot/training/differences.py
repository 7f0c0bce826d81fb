"""What differs between two JSON objects, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["differences"]


def differences(before: Mapping[str, Any], after: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Name (dotted, down to the innermost field), old and new value of all that differs; None where there is none."""
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{where}{name}.")
        elif old != new:
            yield f"{where}{name}", old, new
