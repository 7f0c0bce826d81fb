"""Bridge data as PTR's own preparation wrote it: ``<domain>/<task>/{train,val}/out.npy``.

Each file is an object array of trajectories ``{'observations': [{'images0': uint8[H, W, 3], ..., 'state': (S,)}] * T,
'next_observations': [same] * T, 'actions': [(A,)] * T, 'terminals': [0] * T}``; simulated data calls the camera
``image`` and has ``rewards``. Every frame is in the file twice; here ``next_observations[t] == observations[t + 1]`` is
checked and each frame is kept once: F = T + 1. ``terminals`` and ``rewards`` are not taken over. Bridge V2's files also
have ``language``, one or more instructions of the trajectory, which wins over the path.

Source: PTR ``data_processing/generate_npy.py``, ``examples/train_utils.py`` (load_buffer, insert_data_real).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.bridge_raw import cameras_of_most
from ptr_robot.datasets.layout import Keys, find_layout
from ptr_robot.datasets.restricted_pickle import load_object_array
from ptr_robot.datasets.source import (
    EpisodeHandle,
    Shard,
    SourceEpisode,
    as_floats,
    failing,
    find_files,
    fingerprint_files,
)
from ptr_robot.datasets.task_names import first_instruction, task_and_domain

__all__ = ["BridgeNpySource"]

FILE_NAME = "out.npy"
CAMERA_KEY = re.compile(r"images?(\d*)$")
LANGUAGE = ("language", "language_instruction", "natural_language_instruction", "instruction")
FILES_LOOKED_INTO = 3
"""Files, spread over all of them, whose trajectories say which cameras there are; reading one may take a minute."""
FROM_PATH = "have no instruction; their task is the name of the folder that the layout keeps for it"


class BridgeNpySource:
    """All ``out.npy`` files under a folder.

    Args:
        root: any folder above them.
        cameras: ``image_0`` ... (the keys ``images0`` ...) or ``image``; empty reads those that most trajectories of
            the first files have.
        layout: name of a layout, see :func:`ptr_robot.datasets.layout.find_layout`.

    Raises:
        DataError: no file, or none with a trajectory can be read; ValueError: an unknown camera.
    """

    format, dataset, keys = "bridge-npy", "", Keys()

    def __init__(self, root: Path, cameras: tuple[str, ...] = (), layout: str = "") -> None:
        self.root, self.layout = root, find_layout(layout, self.dataset, self.format)
        self.names: Mapping[str, tuple[str, ...]] = {}
        self.units: Mapping[str, tuple[str, ...]] = {}
        self.notes: tuple[str, ...] = ()
        self._files = list(find_files(root, FILE_NAME))
        if not self._files:
            raise DataError(f"{root}: no {FILE_NAME} found (expected <domain>/<task>/{{train,val}}/{FILE_NAME})")
        self.cameras = cameras or self._usual_cameras()
        if not layout and "image" in self.cameras:
            self.layout = (
                None  # Bridge's preparation counts its cameras; "image" is how simulated data calls its only one
            )

    def shards(self) -> Sequence[Shard]:
        return [Shard(name=self._name(f), episodes=partial(self._episodes, f), is_done=_is_done) for f in self._files]

    def fingerprint(self) -> str:
        return fingerprint_files(self.root, self._files)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def _usual_cameras(self) -> tuple[str, ...]:
        """Those of most trajectories of a few files; damaged files and trajectories do not count."""
        present: list[set[str]] = []
        others: set[str] = set()
        first_error, looked_into = "", 0
        spread = dict.fromkeys(int(i) for i in np.linspace(0, len(self._files) - 1, FILES_LOOKED_INTO))
        for number in dict.fromkeys([*spread, *range(len(self._files))]):
            try:
                steps = [_first_step(trajectory) for trajectory in load_object_array(self._files[number])]
            except (DataError, OSError) as error:
                first_error = first_error or str(error)
                continue
            present += [set(_camera_keys(step)) for step in steps]
            others |= {told for step in steps for told in _other_pictures(step)}
            looked_into += any(steps)
            if looked_into == FILES_LOOKED_INTO:
                break
        if not present:
            raise DataError(first_error or f"{self.root}: every {FILE_NAME} is empty")
        cameras, self.notes = cameras_of_most(present, (), "trajectories of the first files", str(self.root))
        if others:
            self.notes = (*self.notes, f"left out, as these are no colour pictures: {', '.join(sorted(others))}")
        return cameras

    def _episodes(self, file: Path) -> Iterator[EpisodeHandle]:
        """Loads the file; the count in every id lets a later conversion see that it is complete without loading it."""
        try:
            trajectories = load_object_array(file)
        except (DataError, OSError) as error:
            yield failing(self._name(file), str(error))
            return
        for number, trajectory in enumerate(trajectories):
            name = f"{self._name(file)}#{number}/{len(trajectories)}"
            read = partial(self._read, file, trajectory, name)
            yield EpisodeHandle(episode_id=name, read=read, task=_task_and_domain(file, trajectory)[0] or None)

    def _read(self, file: Path, trajectory: Any, name: str) -> SourceEpisode:
        where = f"{file}: trajectory {name.rsplit('#', 1)[1]}"
        observations = _steps(trajectory, "observations", where)
        following = _steps(trajectory, "next_observations", where)
        actions = as_floats(_steps(trajectory, "actions", where), None, f"{where}, actions")
        for what, rows in (("observations", observations), ("next_observations", following)):
            if len(rows) != len(actions):
                raise DataError(f"{where}, {what}: expected {len(actions)} steps, got {len(rows)}")
        steps = [*observations, following[-1]]
        states = as_floats(
            [_value(s, "state", f"{where}, step {t}") for t, s in enumerate(steps)], None, f"{where}, state"
        )
        for t in range(len(observations) - 1):
            state = as_floats([_value(following[t], "state", f"{where}, next of step {t}")], None, f"{where}, state")[0]
            if not np.array_equal(state, states[t + 1], equal_nan=True):
                raise DataError(f"{where}, step {t}: the next state is not the state of step {t + 1}")
        frames = {}
        for camera in self.cameras:
            frames[camera] = [_image(s, camera, f"{where}, step {t}") for t, s in enumerate(steps)]
            for t in range(len(observations) - 1):
                image = _image(following[t], camera, f"{where}, next of step {t}")
                if not np.array_equal(image, frames[camera][t + 1]):
                    raise DataError(f"{where}, step {t}, {camera!r}: the next frame is not the frame of step {t + 1}")
        task, domain, is_from_path = _task_and_domain(file, trajectory)
        return SourceEpisode(
            episode_id=name,
            task=task,
            states=states,
            actions=actions,
            frames=frames,
            domain=domain,
            split={"train": "train", "val": "val"}.get(file.parent.name, ""),
            source=self._name(file),
            flags=_flags(trajectory),
            remarks=(FROM_PATH,) if is_from_path else (),
        )


def _steps(trajectory: Any, key: str, where: str) -> Sequence[Any]:
    if not isinstance(trajectory, dict) or key not in trajectory:
        raise DataError(f"{where}: expected a dict with {key!r}")
    rows = trajectory[key]
    if not isinstance(rows, list | tuple | np.ndarray) or len(rows) == 0:
        raise DataError(f"{where}, {key}: expected at least one step, got {type(rows).__name__}")
    return rows  # type: ignore[return-value]


def _value(step: Any, key: str, where: str) -> Any:
    if not isinstance(step, dict) or key not in step:
        raise DataError(f"{where}: expected a dict with {key!r}")
    return step[key]


def _first_step(trajectory: Any) -> dict[str, Any]:
    """The first observation of a trajectory; empty where it has none."""
    observations = trajectory.get("observations") if isinstance(trajectory, dict) else None
    if not isinstance(observations, list | tuple | np.ndarray) or len(observations) == 0:
        return {}
    return observations[0] if isinstance(observations[0], dict) else {}


def _camera_keys(step: Any) -> dict[str, str]:
    """Our camera name -> key in the file, of colour pictures: uint8 ``[H, W, 3]``, or flat."""
    keys = step if isinstance(step, dict) else {}
    matches = [match for key in keys if (match := CAMERA_KEY.match(str(key))) and _is_colour(keys[match[0]])]
    return {f"image_{match[1]}" if match[1] else "image": match[0] for match in matches}


def _is_colour(value: Any) -> bool:
    shape = np.shape(value)
    return getattr(value, "dtype", None) == np.uint8 and (len(shape) == 1 or (len(shape) == 3 and shape[2] == 3))


def _other_pictures(step: dict[str, Any]) -> list[str]:
    """What else has the shape of a picture, or is called one."""
    cameras = _camera_keys(step).values()
    left = {key: value for key, value in step.items() if key not in cameras and isinstance(value, np.ndarray)}
    return [f"{k} ({v.dtype} {list(v.shape)})" for k, v in left.items() if v.ndim >= 2 or CAMERA_KEY.match(str(k))]


def _image(step: Any, camera: str, where: str) -> np.ndarray:
    keys = step if isinstance(step, dict) else {}
    named = {f"image_{m[1]}" if m[1] else "image": k for k in keys if (m := CAMERA_KEY.match(str(k)))}
    if camera not in named:
        raise DataError(f"{where}: no camera {camera!r}")
    key = named[camera]
    image = np.asarray(step[key])
    if image.ndim == 1 and image.dtype == np.uint8:  # simulated data: a flat CHW image
        side = math.isqrt(len(image) // 3)
        if 3 * side * side == len(image):
            return np.ascontiguousarray(image.reshape(3, side, side).transpose(1, 2, 0))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{where}, {key}: expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    return image


def _flags(trajectory: Mapping[str, Any]) -> dict[str, bool]:
    names = {"rewards": "rewards_all_zero", "terminals": "terminal_flags_all_zero"}
    return {
        flag: not np.any(np.asarray(trajectory[key], np.float32)) for key, flag in names.items() if key in trajectory
    }


def _task_and_domain(file: Path, trajectory: Any) -> tuple[str, str, bool]:
    """The trajectory's own instruction, else the task folder's name where it is one (then True); the domain."""
    task, domain = task_and_domain(file)
    values = [trajectory.get(key) for key in LANGUAGE] if isinstance(trajectory, dict) else []
    told = first_instruction(text for value in values for text in _texts(value))
    return told or task, domain, not told and bool(task)


def _texts(value: Any) -> list[str]:
    """The texts of a string, of bytes, or of any number of them."""
    if isinstance(value, bytes):
        return [value.decode(errors="replace")]
    if isinstance(value, str):
        return [str(value)]
    if isinstance(value, list | tuple | np.ndarray) and np.ndim(value) > 0:
        return [text for one in value for text in _texts(one)]
    return []


def _is_done(ids: set[str]) -> bool:
    """Whether the ids of one file (``<file>#<number>/<count>``) are all of its trajectories."""
    return bool(ids) and {len(ids)} == {int(episode_id.rsplit("/", 1)[1]) for episode_id in ids}
