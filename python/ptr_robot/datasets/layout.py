"""Layouts: what the numbers of a data set mean, from the table beside this file, a file of one's own, a store or a run.

Nothing about a data set follows from the number of its dimensions. A layout is named by the user, or recognised by the
name that the data set gives itself (``dataset_info.json``) or by its reader; a recognised one is said, and dropped
where the actions do not stay inside its bounds (:mod:`ptr_robot.datasets.spaces`).
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ptr_fast.config import from_dict
from ptr_fast.errors import DataError
from ptr_fast.types import ActionSpec, StateSpec

__all__ = ["NO_LAYOUT", "Keys", "Layout", "Numbers", "builtin_layouts", "find_layout", "read_layouts"]

TABLE = Path(__file__).with_name("layouts.toml")
NO_LAYOUT = "none"


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The dimensions of an action or a state.

    Attributes:
        names, units: one per dimension.
        low, high: bounds per dimension, in ``units``; empty where they are not known.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        dim = len(self.names)
        for name in ("units", "low", "high"):
            count = len(getattr(self, name))
            if count != dim and (count or name == "units"):
                raise ValueError(f"{name}: expected {dim} values, one for each of {list(self.names)}, got {count}")
        if len(self.low) != len(self.high):
            raise ValueError("low and high: give both or none")
        for name, low, high in zip(self.names, self.low, self.high, strict=False):
            if not low < high:
                raise ValueError(f"bounds of {name!r}: expected low < high, got {low} and {high}")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Features of a step, each a path such as ``observation/state``, whose values follow each other; empty where
    nothing is said. Reward and success are one feature each."""

    action: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    reward: tuple[str, ...] = ()
    success: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One entry of the table; see the comments in ``layouts.toml``."""

    action: Numbers
    state: Numbers | None = None
    control_hz: float | None = None
    keys: Keys = Keys()
    datasets: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    source: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.control_hz is not None and not self.control_hz > 0:
            raise ValueError(f"control_hz: expected a positive number, got {self.control_hz}")


def read_layouts(file: Path) -> dict[str, Layout]:
    """The layouts of a TOML file, by name.

    Raises:
        DataError: missing, not TOML, or an entry is wrong; names the file and the entry.
    """
    if not file.is_file():
        raise DataError(f"{file}: {'a folder, expected a file' if file.is_dir() else 'missing'}")
    try:
        tables = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not TOML: {error}") from error
    layouts = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise DataError(f"{file}: expected a table [{name}] with action and state, got {table!r}")
        try:
            layouts[name] = from_dict(Layout, {**table, "name": name})
        except (ValueError, TypeError) as error:
            raise DataError(f"{file}: [{name}]: {error}") from error
    if not layouts:
        raise DataError(f"{file}: expected at least one table [NAME] with action and state")
    return layouts


@functools.cache
def builtin_layouts() -> dict[str, Layout]:
    """The layouts that come with the program."""
    return read_layouts(TABLE)


def find_layout(named: str, dataset: str, kind: str) -> Layout | None:
    """The layout that was asked for; where none was, the one that the data set's own name or its format stands for.

    Args:
        named: name of a layout, a TOML file with exactly one, a store, a run or checkpoint, ``none``, or empty.
        dataset: the name that the data set gives itself; empty where it gives none.
        kind: format of the source.

    Raises:
        ValueError: no such layout; DataError: its file or store is damaged.
    """
    if named == NO_LAYOUT:
        return None
    if named:
        return _asked_for(named)
    for layout in builtin_layouts().values():
        if kind in layout.formats or any(fnmatch(dataset.lower(), pattern) for pattern in layout.datasets):
            return layout
    return None


def _asked_for(named: str) -> Layout:
    if named in builtin_layouts():
        return builtin_layouts()[named]
    path = Path(named)
    if (path / "meta.json").is_file():
        return _of_store(path)
    if path.is_file() or path.suffix == ".toml":
        layouts = read_layouts(path)
        if len(layouts) > 1:
            raise ValueError(f"{path}: holds {len(layouts)} layouts {list(layouts)}; keep one to a file")
        return next(iter(layouts.values()))
    if path.is_dir():
        return _of_run(path)
    known = [*builtin_layouts(), NO_LAYOUT]
    raise ValueError(f"--layout {named}: expected one of {known}, a TOML file with one layout, a store or a run")


def _of_store(path: Path) -> Layout:
    from ptr_fast.data.store_meta import load_meta

    meta = load_meta(path)
    return _layout(path, meta.action, meta.state, meta.control_hz)


def _of_run(path: Path) -> Layout:
    from ptr_fast.checkpoint import read_checkpoint

    try:
        spec = read_checkpoint(path).spec
    except DataError as error:
        raise ValueError(f"--layout {path}: neither a store nor a run or checkpoint: {error}") from error
    return _layout(path, spec.action, spec.state, spec.control_hz)


def _layout(path: Path, action: ActionSpec, state: StateSpec, control_hz: float) -> Layout:
    return Layout(
        name=str(path),
        action=Numbers(names=action.names, units=action.units, low=action.low, high=action.high),
        state=Numbers(names=state.names, units=state.units),
        control_hz=control_hz,
    )


_BRIDGE = builtin_layouts()["bridge"].action
BRIDGE_NAMES, BRIDGE_UNITS, BRIDGE_LOW, BRIDGE_HIGH = _BRIDGE.names, _BRIDGE.units, _BRIDGE.low, _BRIDGE.high
"""What the WidowX arm of Bridge takes, for its robot class."""
