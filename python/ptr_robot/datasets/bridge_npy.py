"""Bridge data as PTR's own preparation wrote it: ``<domain>/<task>/{train,val}/out.npy``.

Each file is an object array of trajectories ``{'observations': [{'images0': uint8[H, W, 3], ..., 'state': (S,)}] * T,
'next_observations': [same] * T, 'actions': [(A,)] * T, 'terminals': [0] * T}``; simulated data calls the camera
``image`` and has ``rewards``. Every frame is in the file twice; here ``next_observations[t] == observations[t + 1]`` is
checked and each frame is kept once: F = T + 1. ``terminals`` and ``rewards`` are not taken over.

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
from ptr_robot.datasets.restricted_pickle import load_object_array
from ptr_robot.datasets.source import (
    EpisodeHandle,
    Shard,
    SourceEpisode,
    as_floats,
    choose_cameras,
    find_files,
    fingerprint_files,
)

__all__ = ["BridgeNpySource"]

FILE_NAME = "out.npy"
CAMERA_KEY = re.compile(r"images?(\d*)$")


class BridgeNpySource:
    """All ``out.npy`` files under a folder.

    Args:
        root: any folder above them.
        cameras: ``image_0`` ... (the keys ``images0`` ...) or ``image``; empty reads those of the first trajectory.

    Raises:
        DataError: no file, or the first one that holds a trajectory is damaged; ValueError: an unknown camera.
    """

    format = "bridge-npy"

    def __init__(self, root: Path, cameras: tuple[str, ...] = ()) -> None:
        self.root, self.notes = root, ()
        self._files = list(find_files(root, FILE_NAME))
        if not self._files:
            raise DataError(f"{root}: no {FILE_NAME} found (expected <domain>/<task>/{{train,val}}/{FILE_NAME})")
        self.cameras = cameras or self._first_cameras()

    def shards(self) -> Sequence[Shard]:
        return [Shard(name=self._name(f), episodes=partial(self._episodes, f), is_done=_is_done) for f in self._files]

    def fingerprint(self) -> str:
        return fingerprint_files(self.root, self._files)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def _first_cameras(self) -> tuple[str, ...]:
        for file in self._files:
            for number, trajectory in enumerate(load_object_array(file)):
                observations = _steps(trajectory, "observations", f"{file}: trajectory {number}")
                return choose_cameras((), _camera_keys(observations[0]), str(file))
        raise DataError(f"{self.root}: every {FILE_NAME} is empty")

    def _episodes(self, file: Path) -> Iterator[EpisodeHandle]:
        """Loads the file; the count in every id lets a later conversion see that it is complete without loading it."""
        try:
            trajectories = load_object_array(file)
        except DataError as error:
            yield EpisodeHandle(episode_id=self._name(file), read=partial(_fail, str(error)), task=_task(file))
            return
        for number, trajectory in enumerate(trajectories):
            name = f"{self._name(file)}#{number}/{len(trajectories)}"
            read = partial(self._read, file, trajectory, name)
            yield EpisodeHandle(episode_id=name, read=read, task=_task(file))

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
        return SourceEpisode(
            episode_id=name,
            task=_task(file),
            states=states,
            actions=actions,
            frames=frames,
            domain=_folder(file, 3),
            split={"train": "train", "val": "val"}.get(file.parent.name, ""),
            source=self._name(file),
            flags=_flags(trajectory),
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


def _camera_keys(step: Any) -> dict[str, str]:
    """Our camera name -> key in the file."""
    keys = step if isinstance(step, dict) else {}
    matches = [match for key in keys if (match := CAMERA_KEY.match(str(key)))]
    return {f"image_{match[1]}" if match[1] else "image": match[0] for match in matches}


def _image(step: Any, camera: str, where: str) -> np.ndarray:
    key = _camera_keys(step).get(camera)
    if key is None:
        raise DataError(f"{where}: no camera {camera!r}")
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


def _folder(file: Path, levels: int) -> str:
    parts = file.parts
    return parts[-1 - levels] if len(parts) > levels else ""


def _task(file: Path) -> str:
    return _folder(file, 2)


def _is_done(ids: set[str]) -> bool:
    """Whether the ids of one file (``<file>#<number>/<count>``) are all of its trajectories."""
    return bool(ids) and {len(ids)} == {int(episode_id.rsplit("/", 1)[1]) for episode_id in ids}


def _fail(message: str) -> SourceEpisode:
    raise DataError(message)
