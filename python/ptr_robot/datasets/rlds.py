"""RLDS in TFRecord files, as TensorFlow Datasets writes them (Open-X, Bridge, DROID and their kin), without TensorFlow.

An episode is one ``tf.Example``; a feature ``steps/...`` holds the values of all T steps one after the other. All T
actions are taken as valid; the frame after the last action is not in the format, so an episode has F == T frames. The
labels ``reward``, ``is_last`` and ``is_terminal`` are not taken over (rewards are computed when a store is loaded);
whether they were all zero is recorded. What is a camera, a state, an action: :mod:`ptr_robot.datasets.rlds_features`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import whats_there
from ptr_robot.datasets.layout import Keys, Layout, find_layout
from ptr_robot.datasets.rlds_features import (
    Cameras,
    FeatureSpec,
    find_cameras,
    find_keys,
    language_keys,
    names_of,
    read_features,
)
from ptr_robot.datasets.rlds_shards import SHARD_NAME, find_shards, read_info
from ptr_robot.datasets.source import (
    EpisodeHandle,
    Frame,
    Shard,
    SourceEpisode,
    choose_cameras,
    failing,
    find_files,
    fingerprint_files,
)
from ptr_robot.datasets.task_names import first_instruction, task_and_domain
from ptr_robot.datasets.tfrecord import Feature, index_records, parse_example, read_record

__all__ = ["RldsSource"]

SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "val"}
ACTION, STATE, PATH = "steps/action", "steps/observation/state", "episode_metadata/file_path"
PIECES = ("world_vector", "rotation_delta"), ("open_gripper", "gripper_closedness_action")
"""How many Open-X data sets keep an action: the first two, and one of the last two."""


class RldsSource:
    """A folder with ``features.json`` and ``*.tfrecord*`` files, or a folder above exactly one such folder.

    Args:
        root: the folder.
        cameras: cameras to read, by name or by path below ``observation``; empty reads every colour picture.
        keys: features to read for state, action and instruction where they are not the usual ones.
        layout: name of a layout, see :func:`ptr_robot.datasets.layout.find_layout`.
        allow_missing_shards: read what is here of a split of which files are missing.

    Raises:
        DataError: no such folder, wrong or missing ``features.json``, a missing shard, no camera; names the file.
        ValueError: an unknown camera, feature or layout.
    """

    format = "rlds"

    def __init__(
        self,
        root: Path,
        cameras: tuple[str, ...] = (),
        keys: Keys = Keys(),
        layout: str = "",
        allow_missing_shards: bool = False,
    ) -> None:
        self.root = _dataset_folder(root)
        self._where = str(self.root / "features.json")
        self.features = read_features(self.root / "features.json")
        info = read_info(self.root / "dataset_info.json")
        self.dataset = info.name
        self.layout: Layout | None = find_layout(layout, self.dataset, self.format)
        pictures = find_cameras(self.features)
        self._camera_keys = self._chosen(pictures, cameras)
        self.cameras = tuple(self._camera_keys)
        self.keys = self._all_keys(keys, recognised=not layout)
        named = {"action": names_of(self.features, self.keys.action), "state": names_of(self.features, self.keys.state)}
        self.names: Mapping[str, tuple[str, ...]] = {field: names for field, (names, _) in named.items()}
        self.units: Mapping[str, tuple[str, ...]] = {field: units for field, (_, units) in named.items()}
        shards = find_shards(self.root, info, allow_missing_shards)
        self._files, self._lengths = shards.files, shards.lengths
        self.notes = (*shards.notes, *self._left_out(pictures))

    def shards(self) -> Sequence[Shard]:
        return [
            Shard(name=f.name, episodes=partial(self._episodes, f), num_episodes=self._lengths.get(f.name))
            for f in self._files
        ]

    def fingerprint(self) -> str:
        return fingerprint_files(self.root, [self.root / "features.json", *self._files])

    def _chosen(self, pictures: Cameras, wanted: tuple[str, ...]) -> dict[str, str]:
        """Camera name -> feature of the cameras that are read."""
        on_demand = {name: key for name, (key, _) in pictures.others.items()}
        by_path = {key.removeprefix("steps/").removeprefix("observation/"): name for name, key in pictures.keys.items()}
        names = tuple(by_path.get(name.removeprefix("steps/").removeprefix("observation/"), name) for name in wanted)
        for name in names:
            if name in pictures.unreadable:
                raise ValueError(f"{self._where}: camera {name!r} is {pictures.unreadable[name]}")
        if not pictures.keys and not names:
            told = "; left out: " + ", ".join(pictures.told()) if pictures.told() else ""
            offer = f"; --cameras {' '.join(on_demand)} takes them all the same" if on_demand else ""
            raise DataError(f"{self._where}: no camera found: no feature is uint8 [H, W, 3]{told}{offer}")
        known = {**pictures.keys, **(on_demand if names else {})}
        return {name: known[name] for name in choose_cameras(names, known, self._where)}

    def _all_keys(self, asked: Keys, recognised: bool) -> Keys:
        """Asked for, else the layout's, else the usual ones. A layout speaks of its own features alone."""
        layout = self.layout.keys if self.layout else Keys()
        given: dict[str, tuple[str, ...]] = {}
        for what, usual in (("action", self._usual_action()), ("state", (STATE,))):
            own = tuple(f"steps/{key}" for key in getattr(layout, what)) or usual
            wanted = find_keys(self.features, getattr(asked, what), what, self._where) or own
            others = wanted != own or any(key not in self.features for key in own)
            if others and recognised:
                self.layout = None  # it has the name of that data set alone, or is read in another way
                wanted = wanted if wanted != own else usual
            elif wanted != own and self.layout is not None and getattr(layout, what):
                told = f"layout {self.layout.name} speaks of {', '.join(getattr(layout, what))}"
                raise ValueError(f"--key {what}: {told}; use --layout none, and --{what}-names to say what these are")
            given[what] = find_keys(self.features, wanted, what, self._where)
        language = find_keys(self.features, asked.language, "language", self._where) or language_keys(self.features)
        return Keys(**given, language=language)

    def _usual_action(self) -> tuple[str, ...]:
        if ACTION in self.features:
            return (ACTION,)
        both, one_of = PIECES
        last = [name for name in one_of if f"{ACTION}/{name}" in self.features]
        return tuple(f"{ACTION}/{name}" for name in (*both, *(last[:1] or one_of[:1])))

    def _left_out(self, pictures: Cameras) -> list[str]:
        """What the data set has beside what is read."""
        notes = []
        left = [told for told in pictures.told() if told.split(" ", 1)[0] not in self._camera_keys]
        if left:
            notes.append("left out, as these are no colour pictures: " + ", ".join(left))
        pieces = [k for k, spec in self.features.items() if k.startswith(ACTION + "/") and spec.is_numeric]
        if unused := [k.rsplit("/", 1)[-1] for k in pieces if k not in self.keys.action]:
            used = [k.removeprefix("steps/") for k in self.keys.action]
            notes.append(f"the action is {' + '.join(used)}; left out of it: {sorted(unused)}")
        told = [(key, " ".join(self.features[key].description.split())) for key in self.keys.action]
        if self.layout is None:
            notes += [
                f"features.json says of {key}: {words!r}; often a template's words, so nothing is taken from them"
                for key, words in told
                if words
            ]
        if not self.keys.language:
            texts = sorted(k for k, spec in self.features.items() if spec.is_text and k != PATH)
            notes.append(f"no feature is known to hold an instruction; --key language=PATH names one of {texts}")
        return notes

    def _episodes(self, file: Path) -> Iterator[EpisodeHandle]:
        try:
            index = index_records(file)
        except OSError as error:
            yield failing(f"{file.name}#0...", f"{file}: {error.strerror}")
            return
        for number, offset in enumerate(index.offsets):
            name = f"{file.name}#{number}"
            yield EpisodeHandle(episode_id=name, read=partial(self._read, file, offset, name))
        damage, expected = index.damage, self._lengths.get(file.name)
        if not damage and not index.offsets and expected is None:
            damage = f"{file}: {whats_there(file) or 'no record in it'}"
        if not damage and expected is not None and expected != len(index.offsets):
            damage = f"{file}: expected {expected} episodes (dataset_info.json), got {len(index.offsets)}"
        if damage:
            yield failing(f"{file.name}#{len(index.offsets)}...", damage)

    def _read(self, file: Path, offset: int, name: str) -> SourceEpisode:
        where = f"{file}: episode {name!r}"
        try:
            example = parse_example(read_record(file, offset))
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        actions = self._joined(example, self.keys.action, None, where)
        num_steps = len(actions)
        states = self._joined(example, self.keys.state, num_steps, where)
        path = next(iter(_texts(example, PATH, self.features)), "")
        told, remarks = self._instruction(example)
        folder_task, domain = task_and_domain(path)
        if not told and folder_task:
            remarks = (*remarks, "have no instruction; their task is the name of a folder in their file path")
        match = SHARD_NAME.match(file.name)
        return SourceEpisode(
            episode_id=name,
            task=told or folder_task.replace("_", " "),
            states=states,
            actions=actions,
            frames={camera: self._frames(example, camera, num_steps, where) for camera in self.cameras},
            domain=domain,
            split=SPLITS.get(match["split"], "") if match else "",
            source=path or file.name,
            flags=_flags(example),
            remarks=remarks,
        )

    def _instruction(self, example: dict[str, Feature]) -> tuple[str, tuple[str, ...]]:
        """The first instruction that says something, and what is to be said of it."""
        for key in self.keys.language:
            texts = _texts(example, key, self.features)
            if told := first_instruction(texts):
                changes = len({first_instruction([text]) for text in texts} - {""}) > 1
                return told, ("change their instruction on the way; the first one was taken",) if changes else ()
        return "", ()

    def _joined(
        self, example: dict[str, Feature], keys: Sequence[str], num_steps: int | None, where: str
    ) -> np.ndarray:
        """float32 ``[T, n]``: the numbers of some features side by side."""
        pieces = []
        for key in keys:
            pieces.append(_numbers(example.get(key), self.features[key], f"{where}, {key}"))
            num_steps = len(pieces[0]) if num_steps is None else num_steps
            if len(pieces[-1]) != num_steps:
                raise DataError(f"{where}, {key}: expected {num_steps} steps, got {len(pieces[-1])}")
        return np.concatenate(pieces, axis=1)

    def _frames(self, example: dict[str, Feature], camera: str, num_steps: int, where: str) -> Sequence[Frame]:
        key = self._camera_keys[camera]
        frames, spec = example.get(key), self.features[key]
        if spec.kind == "tensor":
            rows = _numbers(frames, spec, f"{where}, camera {camera!r}").reshape(-1, *spec.shape)
            frames = list(rows.astype(np.uint8))
        elif not isinstance(frames, list):
            came = "nothing" if frames is None else "numbers"
            raise DataError(f"{where}, camera {camera!r}: expected image files, got {came}")
        if len(frames) != num_steps:
            raise DataError(f"{where}, camera {camera!r}: expected {num_steps} frames, got {len(frames)}")
        return [frame if isinstance(frame, np.ndarray) else bytes(frame) for frame in frames]


def _numbers(values: Feature | None, spec: FeatureSpec, where: str) -> np.ndarray:
    """float32 ``[T, n]`` of a feature, from numbers or from the bytes of an encoded tensor."""
    width = math.prod(spec.shape)
    if isinstance(values, list) and values and spec.encoding in ("bytes", "zlib"):
        try:
            whole = [zlib.decompress(v) if spec.encoding == "zlib" else bytes(v) for v in values]
            values = np.concatenate([np.frombuffer(one, np.dtype(spec.dtype)) for one in whole])
        except (TypeError, ValueError, zlib.error) as error:
            raise DataError(f"{where}: expected {spec} in {spec.encoding} ({error})") from error
    if not isinstance(values, np.ndarray):
        raise DataError(f"{where}: expected numbers, got {'nothing' if values is None else 'bytes'}")
    if len(values) == 0 or len(values) % width:
        raise DataError(f"{where}: expected a multiple of {width} numbers, got {len(values)}")
    return values.reshape(-1, width).astype(np.float32)


def _texts(example: dict[str, Feature], key: str, features: Mapping[str, FeatureSpec]) -> list[str]:
    """The values of a text feature: strings, or rows of character codes that end in zeros."""
    values = example.get(key)
    if isinstance(values, np.ndarray):
        width = math.prod(features[key].shape) if key in features else 0
        if width < 1 or len(values) % width or (values < 0).any() or (values > 255).any():
            return []  # numbers of words, not codes of characters
        texts = [bytes(code for code in row if code) for row in values.reshape(-1, width).astype(np.int64)]
    else:
        texts = [bytes(value) for value in values or ()]
    return [text.decode(errors="replace").strip() for text in texts]


def _flags(example: dict[str, Feature]) -> dict[str, bool]:
    """Which labels and claims of the format say nothing."""

    def all_zero(*keys: str) -> dict[str, bool]:
        found: list[Any] = [example[key] for key in keys if key in example]
        return {"zero": not any(np.any(values) for values in found)} if found else {}

    flags = {
        "rewards_all_zero": all_zero("steps/reward"),
        "terminal_flags_all_zero": all_zero("steps/is_last", "steps/is_terminal"),
        "has_image_flags_all_zero": all_zero(*(k for k in example if k.startswith("episode_metadata/has_image_"))),
    }
    return {name: value["zero"] for name, value in flags.items() if value}


def _dataset_folder(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if (root / "features.json").exists() or (root / "features.json").is_symlink():
        return root
    found = [file.parent for file in find_files(root, "features.json")]
    if len(found) == 1:
        return found[0]
    if found:
        names = [str(folder.relative_to(root)) for folder in found]
        raise DataError(f"{root}: holds {len(found)} RLDS datasets, name one of them: {names}")
    raise DataError(f"{root / 'features.json'}: missing; an RLDS folder needs it")
