"""Bridge data as the robot wrote it: one folder per trajectory.

Layout (Bridge V1 and V2): ``.../<domain>/<task>[/<number>]/<YYYY-MM-DD_HH-MM-SS>/raw/traj_group*/traj*/`` with
``obs_dict.pkl`` (``full_state``), ``policy_out.pkl`` (one action, or a dict with ``actions``, per step),
``imagesK/im_t.jpg`` and in V2 ``lang.txt`` (instructions, one a line, and lines such as ``confidence: 0.9``).
With N frames f_0..f_{N-1}, N states and N-1 actions, step t is (f_t, a_t, f_{t+1}); in a store that is F = T + 1
records, record t = (f_t, state_t, a_t).

Note "latency shift": the cameras of data recorded up to 2021-07-23 lag one step more. The reference then pairs a_t with
the frame one step later: obs = f[1:-1], next = f[2:], actions = a[:-1]. In our records: drop f_0, state_0 and the last
action, so record t = (f_{t+1}, state_{t+1}, a_t) with T = N - 2 and F = N - 1.

Source: PTR ``data_processing/generate_npy.py`` (process_dc). Deviations: the 90/10 split follows from a hash of seed
and trajectory name (the reference shuffles without a seed), so it stays the same when data is added; a trajectory whose
frames, states and actions do not match in number is an error with a name (the reference drops it in silence).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import needed_file, whats_there
from ptr_robot.datasets.layout import Keys, find_layout
from ptr_robot.datasets.restricted_pickle import load_pickle
from ptr_robot.datasets.source import EpisodeHandle, Shard, SourceEpisode, as_floats, choose_cameras, fingerprint_files
from ptr_robot.datasets.task_names import first_instruction, task_and_domain

__all__ = ["BridgeRawSource", "cameras_of_most", "find_trajectories"]

LAST_DAY_OF_SLOW_CAMERAS = "2021-07-23"
TRAIN_SHARE = 0.9
DATED = re.compile(r"(\d{4}-\d{2}-\d{2})_\d{2}-\d{2}-\d{2}$")
CAMERA_FOLDER = re.compile(r"images(\d+)$")
FRAME_FILE = re.compile(r"im_(\d+)\.(?:jpg|jpeg|png)$")
PICKLES = ("obs_dict.pkl", "policy_out.pkl")
FROM_PATH = "have no instruction in lang.txt; their task is the name of the folder that the layout keeps for it"


class BridgeRawSource:
    """All trajectories under a folder.

    Args:
        root: any folder above the dated ones.
        cameras: ``image_0``, ``image_1`` ... (the folders ``images0`` ...); empty reads those that most trajectories
            have: one that lacks a camera is one bad episode, and does not cost all others that camera.
        seed: of the train/validation split.
        layout: name of a layout, see :func:`ptr_robot.datasets.layout.find_layout`.

    Raises:
        DataError: no trajectory; ValueError: a camera that no trajectory has.
    """

    format, dataset, keys = "bridge-raw", "", Keys()

    def __init__(self, root: Path, cameras: tuple[str, ...] = (), seed: int = 0, layout: str = "") -> None:
        self.root, self._seed, self.layout = root, seed, find_layout(layout, self.dataset, self.format)
        self.names: Mapping[str, tuple[str, ...]] = {}
        self.units: Mapping[str, tuple[str, ...]] = {}
        self._folders = list(find_trajectories(root))
        if not self._folders:
            raise DataError(f"{root}: no trajectory found (expected .../<date>/raw/traj_group*/traj*)")
        inside = [_folders_in(folder) for folder in self._folders]
        present = [{f"image_{m[1]}" for name in names if (m := CAMERA_FOLDER.match(name))} for names in inside]
        self.cameras, self.notes = cameras_of_most(present, cameras, "trajectories", str(root))
        others = sorted({name for names in inside for name in names if not CAMERA_FOLDER.match(name)})
        if others:
            self.notes = (*self.notes, f"left out, as these folders are no colour cameras: {', '.join(others)}")

    def shards(self) -> Sequence[Shard]:
        return [
            Shard(name=self._name(folder), episodes=partial(self._episodes, folder), num_episodes=1)
            for folder in self._folders
        ]

    def fingerprint(self) -> str:
        files = (folder / name for folder in self._folders for name in PICKLES)
        return fingerprint_files(self.root, [file for file in files if file.is_file()])

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()

    def _episodes(self, folder: Path) -> Iterator[EpisodeHandle]:
        try:
            task = _instruction_and_domain(folder)[0]
        except DataError:  # reading the episode will say it
            task = ""
        yield EpisodeHandle(episode_id=self._name(folder), read=partial(self._read, folder), task=task or None)

    def _read(self, folder: Path) -> SourceEpisode:
        for name in PICKLES:
            needed_file(folder / name)
        observations, policy_out = load_pickle(folder / PICKLES[0]), load_pickle(folder / PICKLES[1])
        if not isinstance(observations, dict) or "full_state" not in observations:
            raise DataError(f"{folder / PICKLES[0]}: expected a dict with 'full_state'")
        states = as_floats(observations["full_state"], None, f"{folder / PICKLES[0]}, full_state")
        actions = as_floats(_actions(policy_out, folder / PICKLES[1]), None, f"{folder / PICKLES[1]}, actions")
        frames = {camera: _frame_files(folder, camera) for camera in self.cameras}
        num_frames = len(actions) + 1
        for what, count in (
            ("states", len(states)),
            *((f"frames of {c!r}", len(files)) for c, files in frames.items()),
        ):
            if count != num_frames:
                raise DataError(f"{folder}: expected {num_frames} {what} for {len(actions)} actions, got {count}")
        first = 1 if _has_slow_cameras(folder) else 0
        if num_frames - first < 2:
            raise DataError(f"{folder}: no step is left of {len(actions)} actions after the latency shift")
        task, domain, is_from_path = _instruction_and_domain(folder)
        name = self._name(folder)
        return SourceEpisode(
            episode_id=name,
            task=task,
            states=states[first:],
            actions=actions[: len(actions) - first],
            frames={camera: [file.read_bytes() for file in files[first:]] for camera, files in frames.items()},
            domain=domain,
            split=_split(self._seed, name),
            source=name,
            remarks=(FROM_PATH,) if is_from_path else (),
        )


def cameras_of_most(
    present: Sequence[set[str]], wanted: tuple[str, ...], what: str, where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The wanted cameras, or those that at least half of the episodes with any camera have; and notes.

    Raises:
        DataError: there is no camera at all; ValueError: a wanted one is in no episode.
    """
    seeing = [names for names in present if names]
    counts = {name: sum(name in names for names in seeing) for name in sorted(set().union(*seeing))}
    usual = [name for name, count in counts.items() if 2 * count >= len(seeing)]
    chosen = choose_cameras(wanted, counts if wanted else usual, where)
    left = [f"{n} (in {c} of {len(seeing)} {what})" for n, c in counts.items() if n not in chosen and not wanted]
    some = [f"{n} (lacking in {len(seeing) - counts[n]})" for n in chosen if counts[n] < len(seeing)]
    notes = [f"cameras left out: {', '.join(left)}; --cameras takes them"] if left else []
    if some:
        notes.append(f"cameras that not all {what} have: {', '.join(some)}; those without are bad episodes")
    return chosen, tuple(notes)


def find_trajectories(root: Path) -> Iterator[Path]:
    """Trajectory folders under ``root`` in natural order; folders with ``lmdb`` in their name are passed over."""
    for folder, folders, _ in os.walk(root):
        folders[:] = sorted((f for f in folders if "lmdb" not in f), key=_natural)
        path = Path(folder)
        if path.parent.name == "raw" and path.name.startswith("traj_group"):
            yield from (path / f for f in folders if f.startswith("traj"))
            folders.clear()


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", name)]


def _folders_in(folder: Path) -> list[str]:
    """Folders of a trajectory; none where its own cannot be read, which reading it will say."""
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []


def _frame_files(folder: Path, camera: str) -> list[Path]:
    images = folder / f"images{camera.removeprefix('image_')}"
    if not images.is_dir():
        told = "a file, expected a folder" if images.exists() else "missing"
        raise DataError(f"{images}: {told}; --cameras chooses those that all trajectories have")
    found = sorted(
        (int(match[1]), entry.name) for entry in os.scandir(images) if (match := FRAME_FILE.match(entry.name))
    )
    for expected, (number, _) in enumerate(found):
        if number != expected:
            raise DataError(f"{images}: frame im_{expected} is missing")
    return [images / name for _, name in found]


def _actions(policy_out: object, file: Path) -> list[object]:
    if not isinstance(policy_out, list) or not policy_out:
        came = "an empty list" if policy_out == [] else type(policy_out).__name__
        raise DataError(f"{file}: expected a list with one action per step, got {came}")
    if not isinstance(policy_out[0], dict):
        return policy_out
    for step, entry in enumerate(policy_out):
        if not isinstance(entry, dict) or "actions" not in entry:
            raise DataError(f"{file}, step {step}: expected a dict with 'actions'")
    return [np.asarray(entry["actions"]).reshape(-1) for entry in policy_out]


def _dated_folder(folder: Path) -> Path:
    return folder.parents[2]


def _has_slow_cameras(folder: Path) -> bool:
    match = DATED.match(_dated_folder(folder).name)
    if not match:
        raise DataError(f"{_dated_folder(folder)}: expected a folder named YYYY-MM-DD_HH-MM-SS")
    return match[1] <= LAST_DAY_OF_SLOW_CAMERAS


def _instruction_and_domain(folder: Path) -> tuple[str, str, bool]:
    """The first instruction of ``lang.txt``, else the task folder's name where it is one (then True); the domain."""
    task, domain = task_and_domain(folder)
    told = first_instruction(_instructions(folder / "lang.txt"))
    return told or task, domain, not told and bool(task)


def _instructions(file: Path) -> list[str]:
    """The lines of ``lang.txt`` but those that tell how sure an annotator was."""
    if not file.exists():
        return []
    if told := whats_there(file):
        if file.is_file() and file.stat().st_size == 0:
            return []
        raise DataError(f"{file}: {told}")
    lines = file.read_text("utf-8-sig", errors="replace").splitlines()
    return [line for line in lines if "confidence" not in line.lower()]


def _split(seed: int, name: str) -> str:
    number = int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "little")
    return "train" if number < TRAIN_SHARE * 2**64 else "val"
