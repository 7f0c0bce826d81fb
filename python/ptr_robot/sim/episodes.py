"""Recording of demonstrations: one episode from one seed, and many of them into memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptr_robot.sim.demonstrators import Kind, make_demonstrator
from ptr_robot.sim.environment import KitchenEnv, make_environment

__all__ = ["EpisodeKey", "RecordedEpisode", "RecordingJob", "collect_in_memory", "record", "record_episode", "run_job"]

MAX_ATTEMPTS = 40
PROMISED = {"expert": "success", "expert-clean": "success", "place": "success", "failed": "failure"}


@dataclass(frozen=True, kw_only=True, order=True)
class EpisodeKey:
    """Names one episode; the same key (and the same environment options) always gives the same episode.

    Attributes:
        task: instruction. kitchen: letter. kind: one of :data:`ptr_robot.sim.demonstrators.KINDS`.
        seed: of the collection. index: of the episode within (task, kitchen, kind, seed).
    """

    task: str
    kitchen: str
    kind: Kind
    seed: int
    index: int

    def attempt_seed(self, attempt: int) -> np.random.SeedSequence:
        """Entropy of one attempt at this episode."""
        kind = "expert" if self.kind == "expert-clean" else self.kind  # the same episodes with other labels
        text = zlib.crc32(f"{self.task}|{self.kitchen}|{kind}".encode())
        return np.random.SeedSequence([self.seed, text, self.index, attempt])


@dataclass(frozen=True, kw_only=True)
class RecordedEpisode:
    """T decisions and the T + 1 states around them.

    Attributes:
        key: its name. attempt: which of its sub-seeds gave it (0, unless an attempt missed its aim).
        frames: of each camera by its name: uint8 ``[T + 1, H, W, 3]`` RGB, or as many JPEG files; empty where only the
            state was observed.
        states: float32 ``[T + 1, S]``. actions: float32 ``[T, 4]``.
        outcome: ``success`` or ``failure``, by the simulator's own criterion at the last state.
        who: about its demonstrator in particular, e.g. the operator's skill.
    """

    key: EpisodeKey
    attempt: int
    frames: Mapping[str, np.ndarray | list[bytes]]
    states: np.ndarray
    actions: np.ndarray
    outcome: str
    who: str = ""


def record(env: KitchenEnv, key: EpisodeKey, attempt: int = 0) -> RecordedEpisode:
    """One attempt at an episode, whatever comes of it."""
    start, behaviour = key.attempt_seed(attempt).generate_state(2)
    observation, _ = env.reset(seed=int(start))
    demonstrator = make_demonstrator(key.kind, env.world, np.random.default_rng(int(behaviour)))
    if (restarted := _first_observation(env, demonstrator.before())) is not None:
        observation = restarted
    images, states, actions = [env.images(observation)], [observation["state"]], []
    info: dict[str, Any] = {"success": False}
    ended = False
    while not ended:
        move = demonstrator.move()
        observation, _, terminated, truncated, info = env.step(move.executed)
        images.append(env.images(observation))
        states.append(observation["state"])
        actions.append(move.stored.astype(np.float32))
        ended = terminated or truncated or move.is_last
    return RecordedEpisode(
        key=key,
        attempt=attempt,
        frames={camera: np.stack([frames[camera] for frames in images]) for camera in env.cameras},
        states=np.stack(states),
        actions=np.stack(actions),
        outcome="success" if info["success"] else "failure",
        who=demonstrator.who,
    )


def _first_observation(env: KitchenEnv, before: Iterator[np.ndarray]) -> dict[str, np.ndarray] | None:
    """What is seen after the commands before the recording; None where there are none."""
    observation = None
    for command in before:
        observation, *_ = env.step(command)
    env.restart_clock()
    return observation


def record_episode(env: KitchenEnv, key: EpisodeKey, *, only_success: bool = False) -> RecordedEpisode:
    """The episode of a key: the first attempt that is what its kind promises.

    Episodes of an expert, and those of kind ``place``, end in success, ``failed`` ones in failure; the others may end
    either way.

    Args:
        only_success: promises success for every kind but ``failed``.

    Raises:
        RuntimeError: forty attempts in a row missed their aim.
    """
    wanted = PROMISED.get(key.kind, "success" if only_success else None)
    for attempt in range(MAX_ATTEMPTS):
        episode = record(env, key, attempt)
        if wanted in (None, episode.outcome):
            return episode
    raise RuntimeError(
        f"{key.task!r}, kitchen {key.kitchen}, kind {key.kind}, seed {key.seed}, episode {key.index}: none of "
        f"{MAX_ATTEMPTS} attempts ended in {wanted}; more decisions per episode (--max-steps) may help"
    )


def collect_in_memory(
    task: str, kitchen: str, num_episodes: int, *, kind: Kind = "expert", seed: int = 0, first: int = 0, **options: Any
) -> Iterator[RecordedEpisode]:
    """Episodes ``first`` to ``first + num_episodes - 1`` of a task in a kitchen, one after the other.

    Args:
        options: of :class:`~ptr_robot.sim.environment.KitchenEnv`, e.g. ``image_size=64, start="easy"``.
    """
    env = make_environment(task, kitchen, **options)
    try:
        for index in range(first, first + num_episodes):
            yield record_episode(env, EpisodeKey(task=task, kitchen=kitchen, kind=kind, seed=seed, index=index))
    finally:
        env.close()


@dataclass(frozen=True, kw_only=True)
class RecordingJob:
    """Episodes of one task in one kitchen, for a worker process.

    Attributes:
        keys: their names. options: of the environment. only_success: see :func:`record_episode`.
        jpeg_quality: 1 to 100, or None for raw frames.
    """

    keys: tuple[EpisodeKey, ...]
    options: dict[str, Any]
    only_success: bool = False
    jpeg_quality: int | None = None


_bench: dict[str, KitchenEnv] = {}  # the process's latest environment: the next job is mostly of the same kind


def run_job(job: RecordingJob) -> list[RecordedEpisode]:
    """The episodes of a job, in order."""
    key = job.keys[0]
    name = repr((key.task, key.kitchen, sorted(job.options.items())))
    if name not in _bench:
        for env in _bench.values():
            env.close()
        _bench.clear()
        _bench[name] = make_environment(key.task, key.kitchen, **job.options)
    episodes = [record_episode(_bench[name], key, only_success=job.only_success) for key in job.keys]
    if job.jpeg_quality is None:
        return episodes
    import simplejpeg

    def files(frames: np.ndarray | list[bytes]) -> list[bytes]:
        return [simplejpeg.encode_jpeg(f, quality=job.jpeg_quality, colorsubsampling="444") for f in frames]

    return [replace(e, frames={name: files(frames) for name, frames in e.frames.items()}) for e in episodes]
