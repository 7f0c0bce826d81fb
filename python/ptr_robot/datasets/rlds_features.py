"""What ``features.json`` of TensorFlow Datasets declares: cameras, rows of numbers, instructions.

Declared dtypes and shapes decide: a camera is a colour picture (uint8, ``[H, W, 3]``). Depth, masks and segmentation
are none, whatever their file format (TensorFlow Datasets writes float32 depth as RGBA PNG): left out, and named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import needed_file

__all__ = [
    "NO_COLOURS",
    "Cameras",
    "FeatureSpec",
    "find_cameras",
    "find_keys",
    "language_keys",
    "names_of",
    "read_features",
]

LANGUAGE = ("language_instruction", "natural_language_instruction", "natural_language", "language", "instruction")
NO_COLOURS = ("depth", "mask", "segment", "semantic", "disparity", "normals", "optical_flow", "heatmap")
"""Words in the name of a picture that show no colours even where it is declared as uint8 [H, W, 3]."""
SMALLEST_PICTURE = 16  # pixels of height and width from which a tensor is taken for a picture
PICTURE_DTYPES = ("uint8", "")  # an empty dtype is what older versions wrote for their only one


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One leaf of the feature tree.

    Attributes:
        kind: ``image``, ``text``, ``tensor``, or ``other`` (videos, audio, ...).
        shape: per step; -1 for a size that varies.
        dtype: as declared, e.g. ``float32``, ``bool``, ``string``.
        encoding: of a tensor: ``none``, ``bytes`` or ``zlib``.
        description: what the data set says about it; often a leftover of a template.
        repeated: a list of its own inside a step.
    """

    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    encoding: str = "none"
    description: str = ""
    repeated: bool = False

    @property
    def is_text(self) -> bool:
        """Text, a tensor of one string, or a row of character codes."""
        if self.kind == "text" or (self.kind == "tensor" and self.dtype in ("string", "object")):
            return True
        return self.kind == "tensor" and self.dtype.startswith(("int", "uint")) and len(self.shape) == 1

    @property
    def is_numeric(self) -> bool:
        """Numbers of a fixed count per step."""
        number = self.kind == "tensor" and re.match(r"(bool|u?int|float|bfloat)", self.dtype or "float") is not None
        return number and not self.repeated and all(size > 0 for size in self.shape)

    def __str__(self) -> str:
        return f"{self.dtype or self.kind} {list(self.shape)}"


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """The pictures of a data set.

    Attributes:
        keys: camera name -> feature, of everything that is a colour picture.
        others: camera name -> feature and why it is not read unless asked for.
        unreadable: camera name -> why it cannot be read at all.
    """

    keys: Mapping[str, str]
    others: Mapping[str, tuple[str, str]]
    unreadable: Mapping[str, str]

    def told(self) -> list[str]:
        """What is left out, and why."""
        left = {**{name: why for name, (_, why) in self.others.items()}, **self.unreadable}
        return [f"{name} ({why})" for name, why in sorted(left.items())]


def read_features(file: Path) -> dict[str, FeatureSpec]:
    """Leaves of the feature tree, by path (``steps/observation/image_0``).

    Raises:
        DataError: missing, not JSON, or no tree with steps.
    """
    if not file.exists() and not file.is_symlink():
        raise DataError(f"{file}: missing; an RLDS folder needs it")
    needed_file(file)
    try:
        tree = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON: {error}") from error
    leaves: dict[str, FeatureSpec] = {}
    try:
        _collect(tree, "", 0, leaves)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: not a feature tree of TensorFlow Datasets ({error!r})") from error
    if not any(name.startswith("steps/") for name in leaves):
        raise DataError(f"{file}: expected features under 'steps', got {sorted(leaves)}")
    return leaves


def _collect(node: dict[str, Any], path: str, depth: int, leaves: dict[str, FeatureSpec]) -> None:
    if "featuresDict" in node:
        for name, child in node["featuresDict"]["features"].items():
            _collect(child, f"{path}/{name}" if path else name, depth, leaves)
    elif "sequence" in node:
        _collect(node["sequence"]["feature"], path, depth + 1, leaves)
    else:
        kind = next((k for k in ("image", "text", "tensor") if k in node), "other")
        about = node.get(kind) or {}
        leaves[path] = FeatureSpec(
            kind=kind,
            shape=tuple(int(size) for size in (about.get("shape") or {}).get("dimensions", ())),
            dtype=about.get("dtype", ""),
            encoding=about.get("encoding") or "none",
            description=str(node.get("description") or ""),
            repeated=depth > 1,
        )


def find_cameras(features: Mapping[str, FeatureSpec]) -> Cameras:
    """All pictures of a step: those under ``observation`` at any depth, or all others where there is none.

    A camera is called by the last word of its path where that is unlike all others, else by the whole path below
    ``observation`` with ``_`` for ``/``.
    """
    pictures = {key: spec for key, spec in features.items() if key.startswith("steps/") and _is_picture(spec)}
    below = {key: spec for key, spec in pictures.items() if key.startswith("steps/observation/")}
    pictures = below or pictures
    short = {key: key.rsplit("/", 1)[-1] for key in pictures}
    counts = list(short.values())
    keys, others, unreadable = {}, {}, {}
    for key, spec in pictures.items():
        path = key.removeprefix("steps/").removeprefix("observation/")
        name = path if "/" not in path or counts.count(short[key]) > 1 else short[key]
        name = name.replace("/", "_")
        hard, soft = _why_not(path, spec)
        if hard:
            unreadable[name] = hard
        elif soft:
            others[name] = (key, soft)
        else:
            keys[name] = key
    return Cameras(keys=keys, others=others, unreadable=unreadable)


def _is_picture(spec: FeatureSpec) -> bool:
    """An image, or a tensor that has the shape of a picture or of a map such as depth."""
    shaped = len(spec.shape) == 2 or (len(spec.shape) == 3 and spec.shape[2] in (1, 3, 4))
    return spec.kind == "image" or (spec.kind == "tensor" and shaped and min(spec.shape[:2]) >= SMALLEST_PICTURE)


def _why_not(path: str, spec: FeatureSpec) -> tuple[str, str]:
    """Why a picture cannot be a camera, and why it should not be one unless somebody asks for it."""
    if spec.dtype not in PICTURE_DTYPES:
        return f"{spec}, no colour picture", ""
    if spec.repeated:
        return f"{spec}, several in one step", ""
    if spec.kind == "tensor" and spec.shape[2:] != (3,):
        return f"{spec}, no colour picture", ""
    word = next((word for word in NO_COLOURS if word in path.lower()), "")
    if word:
        return "", f"{spec}, called {word!r}"
    if len(spec.shape) == 3 and spec.shape[2] not in (3, -1):
        return "", f"{spec}, {spec.shape[2]} channel{'s' if spec.shape[2] != 1 else ''}"
    return "", ""


def language_keys(features: Mapping[str, FeatureSpec]) -> tuple[str, ...]:
    """Features that may hold the instruction, the best name first; of ``x``, ``x_2``, ``x_3`` the shortest first."""
    ranked = []
    for key, spec in features.items():
        leaf = re.sub(r"_\d+$", "", key.rsplit("/", 1)[-1])
        if spec.is_text and leaf in LANGUAGE:
            ranked.append((LANGUAGE.index(leaf), len(key), key))
    return tuple(key for *_, key in sorted(ranked))


def find_keys(features: Mapping[str, FeatureSpec], wanted: Iterable[str], what: str, where: str) -> tuple[str, ...]:
    """The features of some paths, which may leave ``steps/`` out.

    Raises:
        DataError: no such feature, or one that holds no numbers (``state``, ``action``) or text (``language``); names
            what there is.
    """
    found = []
    for path in wanted:
        key = next((k for k in (f"steps/{path}", path) if k in features), None)
        if what == "language":
            fits = [k for k, spec in features.items() if spec.is_text]
        else:
            fits = [k for k, spec in features.items() if spec.is_numeric and k.startswith("steps/")]
        if key not in fits:
            was = f"is {features[key]}" if key else "is not there"
            shown = [f"{k.removeprefix('steps/')} {list(features[k].shape)}" for k in sorted(fits)]
            raise DataError(f"{where}: {what}: {path!r} {was}; what can be named with --key {what}=PATH: {shown}")
        found.append(key)
    return tuple(found)


def names_of(features: Mapping[str, FeatureSpec], keys: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of numbers that come in several features, by the features' own names; empty for a single one.

    A feature ``open_gripper`` of truth values says by its name that 1 is open.
    """
    if len(keys) < 2:
        return (), ()
    names, units = [], []
    for key in keys:
        leaf, spec = key.rsplit("/", 1)[-1], features[key]
        count = 1
        for size in spec.shape:
            count *= size
        names += [leaf] if count == 1 else [f"{leaf}_{i}" for i in range(count)]
        is_switch = leaf == "open_gripper" and spec.dtype == "bool"
        units += ["1 = open, 0 = closed" if is_switch else ""] * count
    if len(set(names)) < len(names):
        names = [f"{name}_{i}" for i, name in enumerate(names)]
    return tuple(names), tuple(units)
