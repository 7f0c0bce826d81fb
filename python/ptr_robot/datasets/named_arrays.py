"""What readers of named arrays share: HDF5 groups, zarr arrays, ``.npz`` files and Minari data sets.

Each hands an episode over as a mapping from a path (``obs/agentview_image``) to an array with a row per step. Which are
cameras, state, action, reward and success is decided here, by dtype, shape and the options of ``convert``.
Nothing is guessed from a name but what the name is the word for: ``action(s)``, ``state``, ``reward(s)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.layout import Keys
from ptr_robot.datasets.rlds_features import NO_COLOURS, SMALLEST_PICTURE
from ptr_robot.datasets.source import Frame, SourceEpisode, choose_cameras, outcome_of

__all__ = ["Array", "Chosen", "choose_arrays", "episode_of"]

IMAGE_FILES = (b"\xff\xd8\xff", b"\x89PNG")
USUAL = {"action": ("actions", "action"), "state": ("state", "states"), "reward": ("rewards", "reward"), "success": ()}


@dataclass(frozen=True, kw_only=True)
class Array:
    """An array as the first episode declares it: its dtype and the shape of one row, or that rows are image files."""

    dtype: np.dtype
    shape: tuple[int, ...]
    holds_files: bool = False

    @classmethod
    def of(cls, values: Any) -> Array:
        """Of an array with rows, in memory or not."""
        row = values[0] if values.dtype.kind == "O" and values.shape[0] else b""
        start = bytes(row[:4]) if isinstance(row, (bytes, np.ndarray)) and np.size(row) else b""
        return cls(dtype=values.dtype, shape=tuple(values.shape[1:]), holds_files=start.startswith(IMAGE_FILES))

    @property
    def is_numeric(self) -> bool:
        """At most one number, or a row of numbers."""
        return self.dtype.kind in "biuf" and len(self.shape) < 2

    @property
    def is_picture(self) -> bool:
        """Image files, or ``[H, W, 3]`` large enough for a picture."""
        if self.holds_files:
            return True
        return len(self.shape) == 3 and self.shape[2] == 3 and min(self.shape[:2]) >= SMALLEST_PICTURE

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which arrays are read.

    Attributes:
        cameras: camera name -> path.
        keys: state, action, reward and success; reward and success are empty where there is none.
        names: per field, names of its dimensions where the paths give them.
        notes: what is left out, one sentence each.
    """

    cameras: Mapping[str, str]
    keys: Keys
    names: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def choose_arrays(
    arrays: Mapping[str, Array], cameras: Sequence[str], asked: Keys, where: str, usual: Keys = Keys()
) -> Chosen:
    """Chooses among the arrays of an episode.

    Args:
        arrays: by path; arrays that are looked at together with others (``next_obs``) are not among them.
        cameras: wanted cameras by name or path; empty takes every colour picture (uint8 ``[H, W, 3]``).
        asked: what ``--key`` says.
        where: file, for errors.
        usual: what this format calls its state and action.

    Raises:
        DataError: no camera, or no array is called a state or an action; names what can be chosen.
        ValueError: an unknown camera, or an option that the format does not have.
    """
    if asked.language:
        raise ValueError(f"{where}: --key language is not for this format; --task says the task")
    chosen_cameras, left_out = _cameras(arrays, cameras, where)
    keys = {what: _keys(arrays, what, getattr(asked, what) or getattr(usual, what), where) for what in USUAL}
    names = {what: _names(arrays, keys[what]) for what in ("action", "state")}
    notes = [f"left out, as these are no colour pictures (uint8 [H, W, 3]): {', '.join(left_out)}"] if left_out else []
    if keys["success"]:
        notes.append(f"outcomes are taken from {keys['success'][0]}: above 0 at any step is a success, else a failure")
    elif keys["reward"]:
        notes.append(
            f"outcomes are unknown; --key success={keys['reward'][0]} takes episodes with a reward above 0 as successes"
        )
    used = {*chosen_cameras.values(), *(path for paths in keys.values() for path in paths)}
    if unused := sorted(path for path, array in arrays.items() if path not in used and array.is_numeric):
        notes.append(f"not read: {', '.join(unused)}")
    return Chosen(cameras=chosen_cameras, keys=Keys(**keys), names=names, notes=tuple(notes))


def episode_of(
    chosen: Chosen,
    arrays: Mapping[str, Any],
    where: str,
    *,
    episode_id: str,
    task: str,
    split: str = "",
    source: str = "",
    last: Mapping[str, Any] | None = None,
) -> SourceEpisode:
    """The episode of some arrays.

    Args:
        chosen: which of them are read.
        arrays: by path; anything that ``numpy.asarray`` reads, so that only chosen ones are loaded.
        where: file and episode, for errors.
        episode_id, task, split, source: as in :class:`SourceEpisode`.
        last: arrays of which the last row is what was seen after the last action; None where nothing is.

    Raises:
        DataError: an array is missing or has another number of rows or columns.
    """
    actions = _joined(arrays, chosen.keys.action, where)
    num_steps = len(actions)
    states = _with_last(_joined(arrays, chosen.keys.state, where), last, chosen.keys.state, where, num_steps)
    frames = {}
    for name, path in chosen.cameras.items():
        seen = _pictures(_array(arrays, path, where), f"{where}, {path}")
        if last is not None and len(seen) == num_steps:
            seen += _pictures(_array(last, path, where)[-1:], f"{where}, {path}")
        if len(seen) != len(states):
            raise DataError(f"{where}, {path}: expected {len(states)} frames, one for each state, got {len(seen)}")
        frames[name] = seen
    reward, success = (_single(arrays, keys, where) for keys in (chosen.keys.reward, chosen.keys.success))
    if reward is not None and len(reward) != num_steps:
        raise DataError(f"{where}, {chosen.keys.reward[0]}: expected {num_steps} rewards, got {len(reward)}")
    return SourceEpisode(
        episode_id=episode_id,
        task=task,
        states=states,
        actions=actions,
        frames=frames,
        split=split,
        source=source,
        outcome=outcome_of(success),
        rewards=reward,
    )


def _cameras(arrays: Mapping[str, Array], wanted: Sequence[str], where: str) -> tuple[dict[str, str], list[str]]:
    """Camera name -> path, and the pictures that are left out with the reason."""
    pictures = [path for path, array in arrays.items() if array.is_picture]
    leaves = [path.rsplit("/", 1)[-1] for path in pictures]
    names = {
        leaf if leaves.count(leaf) == 1 else path.replace("/", "_"): path
        for path, leaf in zip(pictures, leaves, strict=True)
    }
    why = {name: _why_no_colours(path, arrays[path]) for name, path in names.items()}
    asked = tuple(next((name for name, path in names.items() if want in (name, path)), want) for want in wanted)
    usual = [name for name in names if not why[name]]
    chosen = choose_cameras(asked, names if asked else usual, where)
    shaped = [f"{path} ({array})" for path, array in arrays.items() if len(array.shape) == 3 and not array.is_picture]
    left = [f"{name} ({why[name]})" for name in names if why[name] and name not in chosen]
    return {name: names[name] for name in chosen}, [*left, *shaped]


def _why_no_colours(path: str, array: Array) -> str:
    if array.dtype != np.uint8 and not array.holds_files:
        return f"{array}; --cameras takes it all the same where its numbers are whole and in 0..255"
    word = next((word for word in NO_COLOURS if word in path.lower()), "")
    return f"called {word!r}" if word else ""


def _keys(arrays: Mapping[str, Array], what: str, given: tuple[str, ...], where: str) -> tuple[str, ...]:
    numeric = {path: array for path, array in arrays.items() if array.is_numeric}
    if not given:
        given = tuple(path for word in USUAL[what] for path in numeric if path.rsplit("/", 1)[-1] == word)[:1]
    if not given and what in ("reward", "success"):
        return ()
    if len(given) > 1 and what in ("reward", "success"):
        raise ValueError(f"--key {what}: expected one array, got {list(given)}")
    missing = [path for path in given if path not in numeric]
    if missing or not given:
        shown = [f"{path} {list(array.shape)}" for path, array in sorted(numeric.items())]
        was = (
            f"{missing[0]!r} is {arrays.get(missing[0], 'not there')}"
            if missing
            else f"nothing is called {USUAL[what][0]}"
        )
        raise DataError(f"{where}: {what}: {was}; --key {what}=PATH names one or more of {shown}")
    return given


def _names(arrays: Mapping[str, Array], paths: Sequence[str]) -> tuple[str, ...]:
    """Names of dimensions that come from several arrays, by the arrays' own names; empty for a single one."""
    if len(paths) < 2:
        return ()
    names = []
    for path in paths:
        leaf, size = path.rsplit("/", 1)[-1], int(np.prod(arrays[path].shape))
        names += [leaf] if size == 1 else [f"{leaf}_{i}" for i in range(size)]
    return tuple(names) if len(set(names)) == len(names) else tuple(f"{name}_{i}" for i, name in enumerate(names))


def _array(arrays: Mapping[str, Any], path: str, where: str) -> Any:
    if path not in arrays:
        raise DataError(f"{where}: expected an array {path!r}, got {sorted(arrays)}")
    return arrays[path]


def _rows(arrays: Mapping[str, Any], path: str, where: str) -> np.ndarray:
    values = np.asarray(_array(arrays, path, where))
    if values.dtype.kind not in "biuf" or values.ndim not in (1, 2) or not values.size:
        raise DataError(f"{where}, {path}: expected rows of numbers, got {values.dtype} {list(values.shape)}")
    with np.errstate(over="ignore"):  # a number too large is told as one that is not finite
        return values.astype(np.float32).reshape(len(values), -1)


def _joined(arrays: Mapping[str, Any], paths: Iterable[str], where: str) -> np.ndarray:
    """float32 ``[n, D]``: the numbers of some arrays side by side."""
    pieces: list[np.ndarray] = []
    for path in paths:
        pieces.append(_rows(arrays, path, where))
        if len(pieces[-1]) != len(pieces[0]):
            raise DataError(f"{where}, {path}: expected {len(pieces[0])} rows, got {len(pieces[-1])}")
    return np.concatenate(pieces, axis=1)


def _single(arrays: Mapping[str, Any], paths: Sequence[str], where: str) -> np.ndarray | None:
    """float32 ``[n]``: an array of one number a step; None where no path is given."""
    if not paths:
        return None
    rows = _joined(arrays, paths, where)
    if rows.shape[1] != 1:
        raise DataError(f"{where}, {paths[0]}: expected one number a step, got {rows.shape[1]}")
    return rows[:, 0]


def _with_last(
    states: np.ndarray, last: Mapping[str, Any] | None, paths: Sequence[str], where: str, num_steps: int
) -> np.ndarray:
    """States with what was seen after the last action, where it was recorded apart."""
    if last is None or len(states) != num_steps:
        return states
    return np.concatenate([states, _joined(last, paths, where)[-1:]])


def _pictures(values: Any, where: str) -> list[Frame]:
    """Image files, or uint8 ``[H, W, 3]``."""
    pixels = np.asarray(values)
    if pixels.dtype.kind == "O":
        return [bytes(row) for row in pixels]
    if pixels.ndim != 4 or pixels.shape[3] != 3:
        raise DataError(f"{where}: expected pictures [n, H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    if pixels.dtype == np.uint8:
        return list(pixels)
    whole = pixels.astype(np.uint8) if np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 255 else None
    if whole is None or not np.array_equal(whole, pixels):
        raise DataError(
            f"{where}: expected whole numbers in 0..255, got {pixels.dtype} in {pixels.min()}..{pixels.max()}"
        )
    return list(whole)
