"""Episodes that a policy acts out, into a store that it can be trained on (``ptr-fast finetune --target STORE``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from ptr_fast.config import PolicySpec
from ptr_fast.data.store import Episode, StoreMeta, StoreWriter
from ptr_fast.errors import DataError
from ptr_fast.resize import RESIZE
from ptr_fast.types import CameraSpec
from ptr_robot.datasets.frames import convert_frames

__all__ = ["Recorder"]


class Recorder:
    """Writes the steps of one episode after the other; a context manager that drops an episode still running.

    Frames are resized as training data are and kept as JPEG files, so that an episode of minutes takes megabytes. Each
    finished episode is committed: whatever ends the process, at most the running one is lost.

    Args:
        path: store, made where there is none; else episodes of the same policy's spec are added.
        spec: of the checkpoint that acts: names, units, bounds, control rate, camera.
        frame_sizes: camera of the checkpoint -> height and width of its frames, pixels, as the robot gives them.
        jpeg_quality: 1 to 100.
        source: what acts, for the store's records, e.g. the checkpoint's path.

    Raises:
        ValueError: the store holds something else; the message names the difference.
        RuntimeError: another process writes to it.
        OSError: the file system refuses.
    """

    def __init__(
        self,
        path: Path | str,
        spec: PolicySpec,
        frame_sizes: Mapping[str, tuple[int, int]],
        jpeg_quality: int = 95,
        source: str = "",
    ) -> None:
        if not 1 <= jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must lie in 1..100, got {jpeg_quality}")
        self.path, self._spec = Path(path), spec
        self._frame_sizes = {name: tuple(size) for name, size in frame_sizes.items()}
        self._quality, self._source = jpeg_quality, source
        self._cameras = tuple(self._camera(camera) for camera in spec.cameras)
        meta = StoreMeta(
            cameras=self._cameras,
            action=spec.action,
            state=spec.state,
            control_hz=spec.control_hz,
            source={"format": "recorded", "jpeg_quality": jpeg_quality},
        )
        exists = (self.path / "meta.json").exists()
        self._writer = StoreWriter.append(self.path, meta) if exists else StoreWriter.create(self.path, meta)
        self._running: tuple[str, str, str] | None = None
        self._frames: dict[str, list[bytes]] = {}
        self._states: list[np.ndarray] = []
        self._actions: list[np.ndarray] = []

    def _camera(self, camera: CameraSpec) -> CameraSpec:
        """A camera of the store that trials are recorded into."""
        height, width = self._frame_sizes[camera.name]
        resize = "none" if (camera.height, camera.width) == (height, width) else RESIZE
        return replace(camera, encoding="jpeg", source_height=height, source_width=width, resize=resize)

    @property
    def num_steps(self) -> int:
        """Steps of the running episode so far."""
        return len(self._actions)

    def __contains__(self, episode_id: str) -> bool:
        return episode_id in self._writer

    def begin_episode(self, episode_id: str, task: str, domain: str = "") -> None:
        """Begins an episode.

        Raises:
            ValueError: one is running, or the store has one of this name.
        """
        if self._running is not None:
            raise ValueError(f"{self.path}: episode {self._running[0]!r} is still running")
        if not episode_id or not task:
            raise ValueError(f"{self.path}: expected names of the episode and its task, got {episode_id!r}, {task!r}")
        if episode_id in self._writer:
            raise ValueError(f"{self.path}: has an episode {episode_id!r} already")
        self._running = (episode_id, task, domain)
        self._forget()

    def add(self, frames: Mapping[str, np.ndarray], state: np.ndarray, action: np.ndarray) -> None:
        """Adds a step: what the policy saw, and the command that was sent.

        Args:
            frames: camera of the checkpoint -> uint8 ``[H, W, 3]`` RGB of the robot's own size.
            state: ``[S]``. action: ``[A]``, in the spec's units.

        Raises:
            ValueError: no episode is running, or another shape or type.
            DataError: a number that is not finite.
        """
        if self._running is None:
            raise ValueError(f"{self.path}: no episode is running")
        where = f"episode {self._running[0]!r}, step {self.num_steps}"
        for name, (height, width) in self._frame_sizes.items():
            frame = frames[name]
            if frame.dtype != np.uint8 or frame.shape != (height, width, 3):
                told = f"expected uint8 [{height}, {width}, 3], got {frame.dtype} {list(frame.shape)}"
                raise ValueError(f"{where}: frame of {name}: {told}")
        rows = []
        for name, value, dim in (("state", state, self._spec.state.dim), ("action", action, self._spec.action.dim)):
            row = np.array(value, np.float32)
            if row.shape != (dim,):
                raise ValueError(f"{where}: {name}: expected [{dim}], got {list(row.shape)}")
            if not np.isfinite(row).all():
                raise DataError(f"{where}: {name}: expected finite numbers, got {row.tolist()}")
            rows.append(row)
        # Encoded last: a step is added whole or not at all.
        encoded = {
            camera.name: bytes(convert_frames([frames[camera.name]], camera, self._quality, where)[0])
            for camera in self._cameras
        }
        for name, frame_file in encoded.items():
            self._frames[name].append(frame_file)
        self._states.append(rows[0])
        self._actions.append(rows[1])

    def end_episode(self, outcome: str = "unknown", keep: bool = True) -> bool:
        """Ends the running episode, and commits it where it is kept and has a step.

        Args:
            outcome: ``success``, ``failure`` or ``unknown``.
            keep: False drops it.

        Returns:
            Whether the store has it now.

        Raises:
            ValueError: no episode is running.
            OSError: it cannot be written (the disk is full, say); names the path. What was stored before is safe, and
                the next commit tries this one again.
            DataError: the episode does not fit the store.
        """
        if self._running is None:
            raise ValueError(f"{self.path}: no episode is running")
        (episode_id, task, domain), self._running = self._running, None
        try:
            if not keep or not self._actions:
                return False
            self._writer.add(
                Episode(
                    episode_id=episode_id,
                    task=task,
                    states=np.stack(self._states),
                    actions=np.stack(self._actions),
                    frames=self._frames,
                    outcome=outcome,
                    kind="policy",
                    domain=domain,
                    source=self._source,
                )
            )
        finally:
            self._forget()
        self._commit()
        return True

    def close(self) -> None:
        """Drops a running episode and gives the store up. Safe to call twice."""
        self._running = None
        self._forget()
        self._writer.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _forget(self) -> None:
        self._frames = {camera.name: [] for camera in self._cameras}
        self._states, self._actions = [], []

    def _commit(self) -> None:
        try:
            self._writer.commit()
        except (RuntimeError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            number = cause.errno if isinstance(cause, OSError) else None
            raise OSError(number, f"cannot record: {error}", str(self.path)) from error
