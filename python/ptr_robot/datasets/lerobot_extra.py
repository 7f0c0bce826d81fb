"""What a store holds and LeRobot has no place for, kept beside an exported data set so that it can come back whole.

Note "what LeRobot has no place for": ``ptr-fast export-dataset`` writes a folder ``meta/ptr_fast`` with

* ``store.json``: names, units and bounds of the actions, names and units of the state, the control rate;
* ``episodes.parquet``: per episode its id, outcome, kind, domain, split, source and the SHA-256 of its actions;
* ``last_observations.parquet``: state and frames after the last action, of the episodes in which they were recorded: a
  row of LeRobot needs an action, and there is none to write.

LeRobot does not look there. Where its tools have changed the data set, the folder no longer fits and is not used.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ptr_fast.config import from_dict, to_dict
from ptr_fast.data.store import EpisodeStore, StoreMeta
from ptr_fast.errors import DataError
from ptr_fast.files import write_atomically
from ptr_fast.types import ActionSpec, StateSpec
from ptr_robot.datasets.contents import needed_file
from ptr_robot.datasets.layout import Layout, Numbers
from ptr_robot.datasets.lerobot_meta import LeRobotEpisode, parquet_table
from ptr_robot.datasets.source import Frame, SourceEpisode

__all__ = ["Extra", "ExtraEpisode", "image_file", "read_extra", "write_extra"]

VERSION = 1
FOLDER = Path("meta", "ptr_fast")
LABELS = ("episode_id", "outcome", "kind", "domain", "split", "source")


@dataclass(frozen=True, kw_only=True)
class ExtraEpisode:
    """One row of ``episodes.parquet``; see :class:`ptr_fast.data.store.Episode`."""

    episode_id: str
    outcome: str
    kind: str
    domain: str
    split: str
    source: str
    num_steps: int
    has_rewards: bool
    actions_sha256: str


class Extra:
    """The folder of a data set that was read.

    Attributes:
        layout: names, units and bounds as they were in the store.
        control_hz: steps per second.
        episodes: by their number.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], episodes: Sequence[ExtraEpisode]) -> None:
        self._folder, self.episodes = folder, episodes
        action, state = from_dict(ActionSpec, about["action"]), from_dict(StateSpec, about["state"])
        self.control_hz = float(about["control_hz"])
        self.layout = Layout(
            name="of the exported store",
            action=Numbers(names=action.names, units=action.units, low=action.low, high=action.high),
            state=Numbers(names=state.names, units=state.units),
            control_hz=self.control_hz,
        )
        self._last: dict[int, dict[str, Any]] | None = None

    def restored(self, read: SourceEpisode, index: int, camera_keys: Mapping[str, str]) -> SourceEpisode:
        """The episode with its own labels and last observation.

        Raises:
            DataError: its actions are no longer those of the export.
        """
        own = self.episodes[index]
        if _digest(read.actions) != own.actions_sha256:
            raise DataError(
                f"{self._folder}: episode {own.episode_id!r}: its actions are not those that were exported; "
                f"delete {self._folder} to read the data set without it"
            )
        labels = {name: getattr(own, name) for name in LABELS}
        states, frames = read.states, dict(read.frames)
        if (last := self._last_observations().get(index)) is not None:
            states = np.concatenate([states, np.asarray([last["state"]], np.float32)])
            frames = {name: _WithLast(seen, last[camera_keys[name]]) for name, seen in frames.items()}
        rewards = read.rewards if own.has_rewards else None
        return replace(read, **labels, states=states, frames=frames, rewards=rewards)

    def _last_observations(self) -> dict[int, dict[str, Any]]:
        if self._last is None:
            rows = parquet_table(self._folder / "last_observations.parquet").to_pylist()
            self._last = {row["episode_index"]: row for row in rows}
        return self._last


class _WithLast(Sequence[Frame]):
    """Frames and one more, without walking through them first."""

    def __init__(self, frames: Sequence[Frame], last: Frame) -> None:
        self._frames, self._last = frames, last

    def __len__(self) -> int:
        return len(self._frames) + 1

    def __getitem__(self, step):  # type: ignore[no-untyped-def]
        return self._last if step == len(self._frames) else self._frames[step]

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from self._frames
        yield self._last


def read_extra(root: Path, episodes: Sequence[LeRobotEpisode]) -> tuple[Extra | None, list[str]]:
    """What ``meta/ptr_fast`` of a data set says, None where there is none or it no longer fits, and what to tell.

    Raises:
        DataError: it is damaged; names the file.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        return None, []
    file = folder / "store.json"
    needed_file(file)
    try:
        about = json.loads(file.read_bytes())
        if about.get("version") != VERSION:
            raise DataError(f"{file}: version: expected {VERSION}, got {about.get('version')!r}")
        names = [*ExtraEpisode.__dataclass_fields__]
        rows = parquet_table(folder / "episodes.parquet", names).to_pylist()
        extra = Extra(folder, about, [ExtraEpisode(**row) for row in rows])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: not what ptr-fast export-dataset writes ({error!r})") from error
    numbers = [episode.index for episode in episodes]
    if numbers != list(range(len(rows))) or [e.length for e in episodes] != [e.num_steps for e in extra.episodes]:
        return None, [f"{folder} is of another state of this data set, and is not used"]
    return extra, []


def write_extra(root: Path, store: EpisodeStore, camera_keys: Mapping[str, str]) -> None:
    """Writes ``meta/ptr_fast`` of the data set at ``root``, whose episodes are those of ``store`` in their order."""
    folder, table, meta = root / FOLDER, store.episodes, store.meta
    folder.mkdir(parents=True)
    write_atomically(folder / "store.json", (json.dumps(_about(meta), indent=2, ensure_ascii=False) + "\n").encode())
    rows, last = [], []
    for index in range(store.num_episodes):
        first, steps = int(table.first[index]), int(table.num_steps[index])
        labels = {name: getattr(table, name)[index] for name in LABELS}
        digest = _digest(store.action[first : first + steps])
        has_rewards = table.rewards[index] is not None
        rows.append({**labels, "num_steps": steps, "has_rewards": has_rewards, "actions_sha256": digest})
        if table.num_frames[index] > steps:
            record = first + steps
            frames = {key: image_file(store, name, record) for name, key in camera_keys.items()}
            last.append({"episode_index": index, "state": store.state[record].tolist(), **frames})
    pq.write_table(pa.Table.from_pylist(rows), folder / "episodes.parquet")
    schema = pa.schema(
        [("episode_index", pa.int64()), ("state", pa.list_(pa.float32()))]
        + [(key, pa.binary()) for key in camera_keys.values()]
    )
    pq.write_table(pa.Table.from_pylist(last, schema=schema), folder / "last_observations.parquet")


def image_file(store: EpisodeStore, camera: str, record: int) -> bytes:
    """A frame as an image file without loss: the stored JPEG file byte for byte, or a PNG file of raw pixels."""
    if store.meta.camera(camera).encoding != "raw":
        return bytes(store.frame_bytes(camera, record))
    buffer = io.BytesIO()
    Image.fromarray(store.frame(camera, record)).save(buffer, "PNG")
    return buffer.getvalue()


def _about(meta: StoreMeta) -> dict[str, Any]:
    about = {"version": VERSION, "control_hz": meta.control_hz, "source": meta.source}
    return {**about, "action": to_dict(meta.action), "state": to_dict(meta.state)}


def _digest(actions: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(actions, np.float32).tobytes()).hexdigest()
