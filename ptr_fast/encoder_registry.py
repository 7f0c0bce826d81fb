"""Which image encoders there are, by name. Looking a name up loads that encoder alone, and PyTorch with it.

An encoder is a package that registers itself when it is imported::

    register(EncoderKind("disc", make=DiscEncoder, options=DiscOptions))

Those of this project are in :mod:`ptr_fast.nets.encoders`. Another package brings its own by an entry point of the
group ``ptr_fast.encoders``, whose name is the encoder's and whose value is the module that registers it.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

__all__ = ["BUILT_IN", "ENTRY_POINTS", "EncoderKind", "find", "known", "register"]

ENTRY_POINTS = "ptr_fast.encoders"
_FOLDER = "ptr_fast.nets.encoders"

BUILT_IN = {
    "resnet_small": f"{_FOLDER}.resnet",
    "resnet18": f"{_FOLDER}.resnet",
    "resnet34": f"{_FOLDER}.resnet",
    "resnet50": f"{_FOLDER}.resnet",
    "conv3": f"{_FOLDER}.conv3",
    "vit": f"{_FOLDER}.vit",
    "frozen_resnet18": f"{_FOLDER}.frozen_resnet",
    "frozen_resnet34": f"{_FOLDER}.frozen_resnet",
    "frozen_resnet50": f"{_FOLDER}.frozen_resnet",
    "none": f"{_FOLDER}.none",
}
"""Names of the encoders of this project, and the module that registers each."""


@dataclass(frozen=True)
class EncoderKind:
    """An encoder as it is registered.

    Attributes:
        name: what ``EncoderConfig.name`` calls it.
        make: ``make(config, options, height, width)`` with the whole :class:`ptr_fast.config.EncoderConfig`, the
            options of this encoder (None where it has none), and the size of the images in pixels. Returns a
            :class:`ptr_fast.nets.Encoder`, whose weights are not drawn yet.
        options: a frozen dataclass, what ``EncoderConfig.options`` may set; None: nothing.
    """

    name: str
    make: Callable[..., Any]
    options: type | None = None


_kinds: dict[str, EncoderKind] = {}


def register(kind: EncoderKind) -> None:
    """Makes an encoder known.

    Raises:
        ValueError: another module has registered another encoder of this name.
    """
    other = _kinds.setdefault(kind.name, kind)
    places = [(one.make.__module__, one.make.__qualname__) for one in (kind, other)]
    if places[0] != places[1]:
        raise ValueError(f"encoder {kind.name!r} is registered by {places[1][0]} already, and again by {places[0][0]}")


def find(name: str) -> EncoderKind:
    """The encoder of a name.

    Raises:
        ValueError: there is none, or the package that brings it cannot be loaded.
    """
    if name in BUILT_IN:
        importlib.import_module(BUILT_IN[name])
    elif name not in _kinds and (entry := _entries().get(name)) is not None:
        try:
            entry.load()
        except (Exception, SystemExit) as error:  # of another package: anything may happen there
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"encoder {name!r}: its package {entry.value!r} cannot be loaded: {why}") from error
        if name not in _kinds:
            raise ValueError(f"encoder {name!r}: its package {entry.value!r} registers no encoder of this name")
    if name not in _kinds:
        close = difflib.get_close_matches(str(name), known(), n=1, cutoff=0.5)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"encoder.name: expected one of {known()}, got {name!r}{hint}")
    return _kinds[name]


def known() -> list[str]:
    """Names of all encoders; those of other packages are not loaded for this."""
    return list(dict.fromkeys((*BUILT_IN, *_kinds, *_entries())))


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
