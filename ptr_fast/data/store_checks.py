"""What an episode must be before it enters a store."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import simplejpeg

from ptr_fast.data.jpeg_restart import ENCODING, why_not_restart
from ptr_fast.data.store_meta import KINDS_OF_OUTCOME, SPLITS, Episode, StoreMeta
from ptr_fast.errors import DataError
from ptr_fast.types import CameraSpec

__all__ = ["checked_episode", "episode_digest"]


def checked_episode(episode: Episode, meta: StoreMeta) -> tuple[Episode, int]:
    """The episode with contiguous float32 states and actions, and the bytes of its frames.

    Raises:
        DataError: names the episode, the field or camera and step, what was expected and what came.
    """
    where = f"episode {episode.episode_id!r}"
    if not episode.episode_id:
        raise DataError("episode_id: expected a name, got an empty string")
    for field, value, known in (
        ("outcome", episode.outcome, KINDS_OF_OUTCOME),
        ("split", episode.split, SPLITS),
    ):
        if value not in known:
            raise DataError(f"{where}, {field}: expected one of {list(known)}, got {value!r}")
    actions = _checked_floats(episode.actions, meta.action.dim, f"{where}, actions")
    states = _checked_floats(episode.states, meta.state.dim, f"{where}, states")
    if len(actions) == 0:
        raise DataError(f"{where}, actions: expected at least one step, got none")
    rewards = None if episode.rewards is None else _checked_rewards(episode.rewards, len(actions), where)
    if len(states) not in (len(actions), len(actions) + 1):
        raise DataError(
            f"{where}, states: expected {len(actions)} or {len(actions) + 1} for {len(actions)} actions, "
            f"got {len(states)}"
        )
    names = {camera.name for camera in meta.cameras}
    if set(episode.frames) != names:
        raise DataError(f"{where}, frames: expected cameras {sorted(names)}, got {sorted(episode.frames)}")
    num_bytes = 0
    for camera in meta.cameras:
        seen = episode.frames[camera.name]
        if len(seen) != len(states):
            raise DataError(f"{where}, camera {camera.name!r}: expected {len(states)} frames, got {len(seen)}")
        num_bytes += _check_frames(seen, camera, f"{where}, camera {camera.name!r}")
    frames = {n: np.ascontiguousarray(f) if isinstance(f, np.ndarray) else list(f) for n, f in episode.frames.items()}
    return replace(episode, actions=actions, states=states, frames=frames, rewards=rewards), num_bytes


def _checked_floats(values: np.ndarray, dim: int, where: str) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind != "f" or values.ndim != 2 or values.shape[1] != dim:
        raise DataError(f"{where}: expected floats [n, {dim}], got {values.dtype} {list(values.shape)}")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        step = int(np.argmin(finite))
        raise DataError(f"{where}, step {step}: expected finite numbers, got {values[step].tolist()}")
    return np.ascontiguousarray(values, np.float32)


def _checked_rewards(values: np.ndarray, num_steps: int, where: str) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind != "f" or values.shape != (num_steps,):
        raise DataError(f"{where}, rewards: expected floats [{num_steps}], got {values.dtype} {list(values.shape)}")
    if not np.isfinite(values).all():
        step = int(np.argmin(np.isfinite(values)))
        raise DataError(f"{where}, rewards, step {step}: expected a finite number, got {values[step]}")
    return np.ascontiguousarray(values, np.float32)


def _check_frames(frames: list[bytes] | np.ndarray, camera: CameraSpec, where: str) -> int:
    if isinstance(frames, np.ndarray):
        expected = (camera.height, camera.width, 3)
        if camera.encoding != "raw":
            raise DataError(
                f"{where}: expected JPEG files (the camera's encoding is {camera.encoding!r}), got an array"
            )
        if frames.dtype != np.uint8 or frames.shape[1:] != expected:
            raise DataError(f"{where}: expected uint8 [F, {expected}], got {frames.dtype} {list(frames.shape)}")
        return frames.nbytes
    raw_bytes = camera.height * camera.width * 3
    for step, frame in enumerate(frames):
        if camera.encoding == "raw":
            if len(frame) != raw_bytes:
                raise DataError(f"{where}, step {step}: expected {raw_bytes} bytes, got {len(frame)}")
            continue
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(frame)
        except ValueError as error:
            raise DataError(f"{where}, step {step}: not a JPEG file ({error})") from error
        if (height, width) != (camera.height, camera.width):
            raise DataError(
                f"{where}, step {step}: expected a JPEG of {camera.height}x{camera.width}, got {height}x{width}"
            )
        why_not = why_not_restart(frame) if camera.encoding == ENCODING else None
        if why_not is not None:
            raise DataError(f"{where}, step {step}: expected a JPEG with restart markers: {why_not}")
    return sum(len(frame) for frame in frames)


def episode_digest(episode: Episode) -> str:
    """SHA-256 of actions and frames: equal for the same recording under another name."""
    digest = hashlib.sha256(episode.actions.tobytes())
    for name in sorted(episode.frames):
        for frame in episode.frames[name]:
            digest.update(len(memoryview(frame).cast("B")).to_bytes(8, "little"))
            digest.update(frame)
    return digest.hexdigest()
