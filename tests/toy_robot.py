"""Made-up episodes of a sound robot, in which tests plant one trap at a time."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import simplejpeg

from ptr_fast.data.store import Episode, StoreMeta, StoreWriter
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

SIZE = 48
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
UNITS = ("m", "m", "m", "rad", "rad", "rad", "1")
TASKS = ("put carrot on plate", "flip pot upright", "turn lever")


@dataclass(frozen=True)
class ToyEpisode:
    """One episode before encoding: states ``[T + 1, 7]``, actions ``[T, 7]``, images uint8 ``[T + 1, H, W, 3]``."""

    episode_id: str
    task: str
    states: np.ndarray
    actions: np.ndarray
    images: dict[str, np.ndarray]
    outcome: str = "success"
    split: str = ""
    kind: str = "unknown"


def toy_episodes(count: int = 24, seed: int = 0, cameras: tuple[str, ...] = ("image_0", "image_1")) -> list[ToyEpisode]:
    """Sound episodes of 16 to 40 steps: the arm does what it is told within the step, the hand opens at 1."""
    return [_toy_episode(index, np.random.default_rng((seed, index)), seed, cameras) for index in range(count)]


def _toy_episode(index: int, rng: np.random.Generator, seed: int, cameras: tuple[str, ...]) -> ToyEpisode:
    num_steps = int(rng.integers(16, 41))
    effort = np.repeat(rng.choice([0.1, 0.5, 1.0], num_steps // 3 + 1), 3)[:num_steps, None]
    direction = rng.normal(size=(num_steps, 6))
    actions = np.zeros((num_steps, 7), np.float32)
    actions[:, :6] = np.clip(0.45 * effort * direction, -1, 1) * np.array([0.05] * 3 + [0.25] * 3)
    close, release = sorted(rng.choice(np.arange(4, num_steps - 2), 2, replace=False))
    actions[:, 6] = 1.0
    actions[close:release, 6] = 0.0
    states = np.zeros((num_steps + 1, 7), np.float32)
    states[0] = [0.25, 0.0, 0.15, 0.0, 0.0, 0.0, 1.0]
    states[0, :6] += rng.normal(scale=0.02, size=6)
    for t in range(num_steps):
        states[t + 1, :6] = states[t, :6] + 0.9 * actions[t, :6] + rng.normal(scale=[0.001] * 3 + [0.005] * 3)
        states[t + 1, 6] = states[t, 6] + np.clip(actions[t, 6] - states[t, 6], -0.6, 0.6)
    images = {name: _draw(states, rng, side) for side, name in enumerate(cameras)}
    return ToyEpisode(f"toy_{seed}_{index:03d}", TASKS[index % len(TASKS)], states, actions, images)


def _draw(states: np.ndarray, rng: np.random.Generator, side: int) -> np.ndarray:
    """A square hand over a shaded table; one axis of the arm goes across, one down; its shade tells the turn."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    table = 90 + 40 * np.sin(columns / 9.0 + rng.uniform(0, 6)) + 0.6 * rows
    frames = np.empty((len(states), SIZE, SIZE, 3), np.uint8)
    for t, state in enumerate(states):
        across = SIZE / 2 + 160 * (state[side] - (0.25, 0.0)[side])
        down = SIZE / 2 + 160 * (state[2] - 0.15)
        near = np.clip(5.5 - np.maximum(np.abs(columns - across), np.abs(rows - down)), 0, 1)
        shade = 190 + 40 * np.sin(3 * state[3:6].sum())
        frame = table * (1 - near) + shade * near
        tinted = frame[..., None] * np.array([1.0, 0.95, 0.85]) + rng.normal(scale=1.5, size=(SIZE, SIZE, 1))
        frames[t] = np.clip(tinted, 0, 245)
    return frames


def toy_meta(cameras: tuple[str, ...] = ("image_0", "image_1"), encoding: str = "jpeg", **changes) -> StoreMeta:
    """Meta of a store of toy episodes."""
    action = ActionSpec(
        names=NAMES, units=UNITS, low=(-0.05,) * 3 + (-0.25,) * 3 + (0.0,), high=(0.05,) * 3 + (0.25,) * 3 + (1.0,)
    )
    specs = tuple(CameraSpec(name=name, height=SIZE, width=SIZE, encoding=encoding) for name in cameras)
    meta = StoreMeta(cameras=specs, action=action, state=StateSpec(names=NAMES, units=UNITS), control_hz=5.0)
    return replace(meta, **changes)


def write_store(path: Path, episodes: list[ToyEpisode], meta: StoreMeta | None = None) -> Path:
    """Writes toy episodes, as JPEG or raw according to the cameras of ``meta``."""
    meta = meta or toy_meta(tuple(episodes[0].images))
    with StoreWriter.create(path, meta) as writer:
        for toy in episodes:
            frames = {
                camera.name: toy.images[camera.name]
                if camera.encoding == "raw"
                else [simplejpeg.encode_jpeg(np.ascontiguousarray(image), 90) for image in toy.images[camera.name]]
                for camera in meta.cameras
            }
            writer.add(
                Episode(
                    episode_id=toy.episode_id,
                    task=toy.task,
                    states=toy.states,
                    actions=toy.actions,
                    frames=frames,
                    outcome=toy.outcome,
                    split=toy.split,
                    kind=toy.kind,
                )
            )
    return path
