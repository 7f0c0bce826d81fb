"""The options of ``ptr-fast convert``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ptr_robot.datasets.layout import Keys
from ptr_robot.datasets.task_names import is_blank

__all__ = ["Args", "Format", "pairs"]

Format = Literal["auto", "rlds", "bridge-raw", "bridge-npy", "lerobot", "robomimic", "minari", "zarr", "episode-files"]
Values = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]
"""Several values after one option, which may be given again: without it, all but the last would be lost in silence. An
``Args`` holds them as one flat tuple."""
_LARGEST_JPEG = 65_500  # pixels of height or width, libjpeg's JPEG_MAX_DIMENSION


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to convert, and how.

    Attributes:
        source: Folder of the source data.
        out: Store to make or to go on with.
        format: Layout of the files; auto tells it from their names.
        layout: What the numbers mean: bridge, droid or libero (python/ptr_robot/datasets/layouts.toml), a TOML file
            with one layout, another store or a run, or none. Empty: recognised by the name in dataset_info.json, and
            said.
        cameras: Cameras to take, e.g. image_0 image_1, or by path, e.g. images/front; none given takes those that the
            store has, a new one all colour pictures.
        key: Features to read where they are not the usual ones: state=PATH action=PATH language=PATH reward=PATH
            success=PATH, e.g. state=observation/proprio; several follow each other with commas:
            action=action/xyz,action/grip. An episode has succeeded where its success is above 0 at any step; without
            such a feature outcomes are unknown. Bridge's formats have no choice, and rewards of RLDS are not read.
        task: The task of every episode, whatever the source says.
        blank_task: The task of episodes whose instruction is blank; without it they are listed and not converted.
        action_names: Names of the actions' dimensions, e.g. x y z roll pitch yaw gripper.
        action_units: Units of the actions, e.g. m m m rad rad rad 1.
        state_names: Names of the state's dimensions.
        state_units: Units of the state.
        gripper: Which value of the gripper is which: closed=1, or closed=1 open=-1; dimension=NAME where no name says
            gripper.
        flip_gripper: Store the gripper's actions mirrored between its two ends, so that in the store 1 is open (or -1,
            with --gripper open=1): for data to be mixed with data of the other sign.
        bounds: Action range that becomes [-1, 1]: layout (the layout's), data (measured: 1st and 99th percentile of
            each dimension over the whole store), or NAME=LOW:HIGH of every dimension, all=LOW:HIGH for the rest. None
            given: the layout's where there is one, else data.
        control_hz: Steps per second; None takes what the source or the layout says, else 5, and says so.
        allow_missing_shards: Read what is here of an RLDS split of which files are missing; run again when they have
            come.
        image_size: Height and width of the stored frames, pixels (the paper: 128); None keeps the source's size.
        encoding: jpeg keeps JPEG frames of the right size byte for byte; jpeg-restart keeps their pixels and adds
            restart markers, so that a GPU can decode them inside its step (frames that are encoded anew have colours at
            half the resolution); raw stores pixels (faster to read, 10 times larger).
        jpeg_quality: Quality of frames that are encoded anew, 1 to 100.
        workers: Threads that decode, resize and encode.
        decoder: What decodes JPEG frames that have to be resized; auto takes DALI where there is a GPU, which decodes
            there.
        on_bad: What a bad episode does: stop with its error, or skip it and list it in bad_episodes.json of the store.
        tasks: Only episodes whose task contains one of these texts (case does not matter).
        limit: Only the first so many matching episodes of the source; None takes all.
        seed: Seed of the train/validation split where the source has none (raw Bridge).
    """

    source: Path
    out: Path
    format: Format = "auto"
    layout: str = ""
    cameras: tuple[str, ...] = ()
    key: Values = ()
    task: str = ""
    blank_task: str = ""
    action_names: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    state_units: tuple[str, ...] = ()
    gripper: Values = ()
    flip_gripper: bool = False
    bounds: Values = ()
    control_hz: float | None = None
    allow_missing_shards: bool = False
    image_size: int | None = None
    encoding: Literal["jpeg", "jpeg-restart", "raw"] = "jpeg"
    jpeg_quality: int = 95
    workers: int = 2
    decoder: Literal["auto", "simplejpeg", "dali"] = "auto"
    on_bad: Literal["stop", "skip"] = "stop"
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("key", "gripper", "bounds"):
            groups = ((group,) if isinstance(group, str) else group for group in getattr(self, name))
            object.__setattr__(self, name, tuple(value for group in groups for value in group))
        for name, least in (("image_size", 1), ("workers", 1), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name.replace('_', '-')} must be at least {least}, got {value}")
        if self.image_size is not None and self.image_size > _LARGEST_JPEG:
            raise ValueError(f"image-size must be at most {_LARGEST_JPEG} pixels (of JPEG), got {self.image_size}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg-quality must lie in 1..100, got {self.jpeg_quality}")
        if self.control_hz is not None and not self.control_hz > 0:
            raise ValueError(f"control-hz must be positive, got {self.control_hz}")
        for name in ("task", "blank_task"):
            value = getattr(self, name)
            if value and is_blank(value):
                raise ValueError(f"{name.replace('_', '-')}: expected what is done, got {value!r}")
        for name in ("action_names", "state_names"):
            names = getattr(self, name)
            if len(set(names)) < len(names):
                raise ValueError(f"{name.replace('_', '-')}: expected distinct names, got {list(names)}")
        self.keys()

    def keys(self) -> Keys:
        """``key`` by field."""
        given = pairs(self.key, "key", ("state", "action", "language", "reward", "success"))
        return Keys(**{what: tuple(path.strip("/") for path in paths.split(",")) for what, paths in given.items()})


def pairs(values: Iterable[Any], option: str, known: tuple[str, ...] = ()) -> dict[str, str]:
    """``NAME=VALUE`` values of an option by name.

    Raises:
        ValueError: another form, a name twice or, where ``known`` is given, another name.
    """
    out: dict[str, str] = {}
    for value in values:
        name, equals, right = value.partition("=")
        if not equals or not name or not right or name in out or (known and name not in known):
            expected = " or ".join(f"{name}=..." for name in known) or "NAME=..."
            raise ValueError(f"--{option}: expected {expected}, each once, got {value!r}")
        out[name] = right
    return out
