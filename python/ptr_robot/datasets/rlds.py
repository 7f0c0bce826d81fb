"""RLDS in TFRecord files, as TensorFlow Datasets writes them (Bridge V1 and V2 and their kin), without TensorFlow.

An episode is one ``tf.Example``; a feature ``steps/...`` holds the values of all T steps one after the other. All T
actions are taken as valid; the frame after the last action is not in the format, so an episode has F == T frames. The
labels ``reward``, ``is_last`` and ``is_terminal`` are not taken over (rewards are computed when a store is loaded);
whether they were all zero is recorded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.source import EpisodeHandle, Shard, SourceEpisode, choose_cameras, find_files, fingerprint_files
from ptr_robot.datasets.tfrecord import Feature, index_records, parse_example, read_record

__all__ = ["FeatureSpec", "RldsSource", "read_features"]

LANGUAGE = ("language_instruction", "natural_language_instruction", "natural_language", "instruction")
SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "val"}
SHARD_NAME = re.compile(r"(?P<name>.+)-(?P<split>\w+)\.tfrecord-(?P<shard>\d+)-of-(?P<num_shards>\d+)$")
# The first public Bridge build keeps an action in pieces.
ACTION_PIECES = ("steps/action/world_vector", "steps/action/rotation_delta", "steps/action/open_gripper")


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One leaf of the feature tree: ``image``, ``text`` or ``tensor``, its shape per step and its dtype."""

    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""


class RldsSource:
    """A folder with ``features.json`` and ``*.tfrecord*`` files, or a folder above exactly one such folder.

    Args:
        root: the folder.
        cameras: image features under ``observation`` to read; empty reads all.

    Raises:
        DataError: no such folder, wrong or missing ``features.json``, a missing shard; names the file.
        ValueError: an unknown camera.
    """

    format = "rlds"

    def __init__(self, root: Path, cameras: tuple[str, ...] = ()) -> None:
        self.root = _dataset_folder(root)
        self.features = read_features(self.root / "features.json")
        prefix = "steps/observation/"
        images = [name.removeprefix(prefix) for name, spec in self.features.items() if spec.kind == "image"]
        self.cameras = choose_cameras(cameras, (n for n in images if "/" not in n), str(self.root / "features.json"))
        if not self.language_keys:
            raise DataError(f"{self.root / 'features.json'}: expected a language feature, one of {list(LANGUAGE)}")
        self._state_dim = math.prod(self._require(prefix + "state").shape)
        self._action_keys = ("steps/action",) if "steps/action" in self.features else ACTION_PIECES
        for key in self._action_keys:
            self._require(key)
        self._files, self.notes, self._lengths = _shard_files(self.root)

    @property
    def language_keys(self) -> list[str]:
        """Text features that may hold the instruction, the best name first."""
        leaves = {key: key.rsplit("/", 1)[-1] for key, spec in self.features.items() if spec.kind == "text"}
        return sorted(
            (key for key, leaf in leaves.items() if leaf in LANGUAGE), key=lambda k: LANGUAGE.index(leaves[k])
        )

    def shards(self) -> Sequence[Shard]:
        return [
            Shard(name=f.name, episodes=partial(self._episodes, f), num_episodes=self._lengths.get(f.name))
            for f in self._files
        ]

    def fingerprint(self) -> str:
        return fingerprint_files(self.root, [self.root / "features.json", *self._files])

    def _require(self, key: str) -> FeatureSpec:
        if key not in self.features:
            raise DataError(f"{self.root / 'features.json'}: expected the feature {key!r}, got {sorted(self.features)}")
        return self.features[key]

    def _episodes(self, file: Path) -> Iterator[EpisodeHandle]:
        index = index_records(file)
        for number, offset in enumerate(index.offsets):
            name = f"{file.name}#{number}"
            yield EpisodeHandle(episode_id=name, read=partial(self._read, file, offset, name))
        damage, expected = index.damage, self._lengths.get(file.name)
        if not damage and expected is not None and expected != len(index.offsets):
            damage = f"{file}: expected {expected} episodes (dataset_info.json), got {len(index.offsets)}"
        if damage:
            yield EpisodeHandle(episode_id=f"{file.name}#{len(index.offsets)}...", read=partial(_fail, damage))

    def _read(self, file: Path, offset: int, name: str) -> SourceEpisode:
        where = f"{file}: episode {name!r}"
        try:
            example = parse_example(read_record(file, offset))
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        states = self._floats(example, "steps/observation/state", where)
        actions = [self._floats(example, key, where) for key in self._action_keys]
        num_steps = len(actions[0])
        for key, values in zip(self._action_keys, actions, strict=True):
            if len(values) != num_steps:
                raise DataError(f"{where}, {key}: expected {num_steps} steps, got {len(values)}")
        if len(states) != num_steps:
            raise DataError(f"{where}, steps/observation/state: expected {num_steps} steps, got {len(states)}")
        path = _text(example, "episode_metadata/file_path")
        folder_task, domain = _from_path(path)
        instructions = (_text(example, key) for key in self.language_keys)
        task = next((text for text in instructions if text), folder_task)
        if not task:
            raise DataError(f"{where}: no instruction in {self.language_keys}, and no task in its file path {path!r}")
        match = SHARD_NAME.match(file.name)
        return SourceEpisode(
            episode_id=name,
            task=task,
            states=states,
            actions=np.concatenate(actions, axis=1),
            frames={camera: self._frames(example, camera, num_steps, where) for camera in self.cameras},
            domain=domain,
            split=SPLITS.get(match["split"], "") if match else "",
            source=path or file.name,
            flags=_flags(example),
        )

    def _floats(self, example: dict[str, Feature], key: str, where: str) -> np.ndarray:
        values = example.get(key)
        if not isinstance(values, np.ndarray):
            raise DataError(f"{where}, {key}: expected numbers, got {'nothing' if values is None else 'bytes'}")
        width = math.prod(self.features[key].shape)
        if len(values) == 0 or len(values) % width:
            raise DataError(f"{where}, {key}: expected a multiple of {width} numbers, got {len(values)}")
        return values.reshape(-1, width).astype(np.float32)

    def _frames(self, example: dict[str, Feature], camera: str, num_steps: int, where: str) -> list[bytes]:
        frames = example.get(f"steps/observation/{camera}")
        if not isinstance(frames, list):
            raise DataError(
                f"{where}, camera {camera!r}: expected image files, got {'numbers' if frames else 'nothing'}"
            )
        if len(frames) != num_steps:
            raise DataError(f"{where}, camera {camera!r}: expected {num_steps} frames, got {len(frames)}")
        return [bytes(frame) for frame in frames]


def read_features(file: Path) -> dict[str, FeatureSpec]:
    """Leaves of the feature tree of TensorFlow Datasets, by path (``steps/observation/image_0``).

    Raises:
        DataError: missing, not JSON, or no tree with steps.
    """
    if not file.is_file():
        raise DataError(f"{file}: missing; an RLDS folder needs it")
    try:
        tree = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON: {error}") from error
    leaves: dict[str, FeatureSpec] = {}
    try:
        _collect(tree, "", leaves)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: not a feature tree of TensorFlow Datasets ({error!r})") from error
    if not any(name.startswith("steps/") for name in leaves):
        raise DataError(f"{file}: expected features under 'steps', got {sorted(leaves)}")
    return leaves


def _collect(node: dict[str, Any], path: str, leaves: dict[str, FeatureSpec]) -> None:
    if "featuresDict" in node:
        for name, child in node["featuresDict"]["features"].items():
            _collect(child, f"{path}/{name}" if path else name, leaves)
    elif "sequence" in node:
        _collect(node["sequence"]["feature"], path, leaves)
    else:
        kind = next((k for k in ("image", "text", "tensor") if k in node), "other")
        about = node.get(kind) or {}
        shape = tuple(int(size) for size in (about.get("shape") or {}).get("dimensions", ()))
        leaves[path] = FeatureSpec(kind=kind, shape=shape, dtype=about.get("dtype", ""))


def _dataset_folder(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if (root / "features.json").is_file():
        return root
    found = [file.parent for file in find_files(root, "features.json")]
    if len(found) == 1:
        return found[0]
    if found:
        names = [str(folder.relative_to(root)) for folder in found]
        raise DataError(f"{root}: holds {len(found)} RLDS datasets, name one of them: {names}")
    raise DataError(f"{root / 'features.json'}: missing; an RLDS folder needs it")


def _shard_files(root: Path) -> tuple[list[Path], tuple[str, ...], dict[str, int]]:
    """Record files, notes, and the number of episodes per file as far as ``dataset_info.json`` tells it."""
    files = sorted(file for file in root.iterdir() if ".tfrecord" in file.name and file.is_file())
    if not files:
        raise DataError(f"{root}: no *.tfrecord* file")
    notes, lengths = [], {}
    present: dict[tuple[str, str], set[str]] = {}
    for file in files:
        match = SHARD_NAME.match(file.name)
        if match:
            present.setdefault((match["name"], match["split"]), set()).add(file.name)
    for (name, split), names in present.items():
        digits = SHARD_NAME.match(next(iter(names)))
        total, width = int(digits["num_shards"]), len(digits["num_shards"])  # type: ignore[index]
        wanted = [f"{name}-{split}.tfrecord-{i:0{width}d}-of-{total:0{width}d}" for i in range(total)]
        missing = [file for file in wanted if file not in names]
        if missing:
            raise DataError(f"{root}: split {split!r}: {len(missing)} of {total} files are missing, e.g. {missing[0]}")
    for split, shard_lengths in _split_lengths(root / "dataset_info.json").items():
        names = sorted(n for (_, one), group in present.items() if one == split for n in group)
        if not names:
            notes.append(f"split {split!r} is named in dataset_info.json, but none of its files is here")
        elif len(names) == len(shard_lengths):
            lengths.update(zip(names, shard_lengths, strict=True))
    return files, tuple(notes), lengths


def _split_lengths(file: Path) -> dict[str, list[int]]:
    if not file.is_file():
        return {}
    try:
        info = json.loads(file.read_bytes())
        kind = info.get("fileFormat", "tfrecord")
        splits = {split["name"]: [int(n) for n in split.get("shardLengths", ())] for split in info.get("splits", ())}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: not a dataset description of TensorFlow Datasets ({error!r})") from error
    if kind != "tfrecord":
        raise DataError(f"{file}: fileFormat is {kind!r}, only 'tfrecord' can be read")
    return splits


def _flags(example: dict[str, Feature]) -> dict[str, bool]:
    """Which labels and claims of the format say nothing."""

    def all_zero(*keys: str) -> dict[str, bool]:
        found = [example[key] for key in keys if key in example]
        return {"zero": not any(np.any(values) for values in found)} if found else {}

    flags = {
        "rewards_all_zero": all_zero("steps/reward"),
        "terminal_flags_all_zero": all_zero("steps/is_last", "steps/is_terminal"),
        "has_image_flags_all_zero": all_zero(*(k for k in example if k.startswith("episode_metadata/has_image_"))),
    }
    return {name: value["zero"] for name, value in flags.items() if value}


def _text(example: dict[str, Feature], key: str) -> str:
    values = example.get(key)
    return bytes(values[0]).decode(errors="replace").strip() if isinstance(values, list) and values else ""


def _from_path(path: str) -> tuple[str, str]:
    """Task and domain from ``.../<domain>/<task>[/<number>]/{train,val}/out.npy``; empty where it is no such path."""
    parts = [part for part in Path(path).parts[:-1] if part not in ("train", "val") and not part.isdigit()]
    return (parts[-1].replace("_", " "), parts[-2]) if len(parts) >= 2 else ("", "")


def _fail(message: str) -> SourceEpisode:
    raise DataError(message)
