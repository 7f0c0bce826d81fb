"""What a policy sees and commands, and whether the stores of a run agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_fast.types import CameraSpec
from ptr_robot.training.sources import Source

__all__ = ["check_matches", "make_spec", "tell_cameras", "with_camera_names", "with_tasks"]


def make_spec(sources: Sequence[Source], cameras: Sequence[str], num_task_slots: int) -> PolicySpec:
    """What the policy will see and command, from the first store; the others must agree.

    Args:
        cameras: their names, in order; empty takes the first one of the store, or none where it has none.

    Raises:
        ValueError: no such camera, or two stores differ in camera size, state, action space or control rate.
    """
    meta = sources[0].store.meta
    _check_finished(sources[0].store)
    chosen = [_camera(sources[0].store, name) for name in cameras or [camera.name for camera in meta.cameras[:1]]]
    names = sorted({source.store.episodes.task[i] for source in sources for i in source.train})
    num_slots = num_task_slots or len(names) + max(8, len(names))
    spec = PolicySpec(
        cameras=tuple(chosen),
        state=meta.state,
        action=meta.action,
        tasks=TaskTable(names=tuple(names), num_slots=num_slots),
        control_hz=meta.control_hz,
    )
    for source in sources[1:]:
        check_matches(source.store, spec)
    return spec


def tell_cameras(sources: Sequence[Source], spec: PolicySpec, advice: str) -> None:
    """Says which cameras are trained on where a store has others."""
    names = [camera.name for camera in spec.cameras]
    others = dict.fromkeys(c.name for source in sources for c in source.store.meta.cameras if c.name not in names)
    if others:
        mine = "camera that is trained on is" if len(names) == 1 else "cameras that are trained on are"
        told = " and ".join(", ".join(map(repr, names)).rsplit(", ", 1))
        print(f"the {mine} {told}, not {', '.join(map(repr, others))}: {advice}")


def with_camera_names(store: EpisodeStore, spec: PolicySpec, pairs: Sequence[str]) -> EpisodeStore:
    """A store whose cameras go by the names that a checkpoint has for them.

    Args:
        pairs: ``STORE=CHECKPOINT``, of ``--camera-map``; a camera that no pair names keeps its name.

    Raises:
        ValueError: a pair that is none, or a camera that is missing, unknown or named twice; lists both sides.
    """
    has, wanted = [c.name for c in store.meta.cameras], [c.name for c in spec.cameras]
    both = f"the checkpoint sees {wanted}, the store has {has}"
    named: dict[str, str] = {}
    for pair in pairs:
        stored, equals, name = pair.partition("=")
        if not equals or stored not in has or name not in wanted or stored in named or name in named.values():
            told = f"camera-map: expected STORE=CHECKPOINT, each once, got {pair!r}: {both}"
            raise ValueError(f"{store.path}: {told}")
        named[stored] = name
    store = store.renamed(named)
    missing = [name for name in wanted if name not in store.stored_names]
    if missing:
        told = f"no camera {', '.join(map(repr, missing))}: {both}; name them with --camera-map STORE=CHECKPOINT"
        raise ValueError(f"{store.path}: {told}")
    return store


def _camera(store: EpisodeStore, name: str) -> CameraSpec:
    cameras = {camera.name: camera for camera in store.meta.cameras}
    if name not in cameras:
        raise ValueError(f"{store.path}: no camera {name!r}; it has {sorted(cameras)}")
    return cameras[name]


def _check_finished(store: EpisodeStore) -> None:
    """Refuses a store whose conversion was killed before it had measured the actions' bounds."""
    if store.meta.action.bounds_source == "unfinished":
        raise DataError(
            f"{store.path}: the action bounds are placeholders, the conversion did not come to its end; "
            "run the same convert command again"
        )


def check_matches(store: EpisodeStore, spec: PolicySpec, *, with_bounds: bool = True) -> None:
    """Refuses a store whose frames, state or actions mean something else than the policy's.

    Args:
        with_bounds: also where the bounds differ. Those of a store that the policy was trained on may have moved since,
            where they are computed from what the store holds; the policy keeps its own.

    Raises:
        ValueError: naming the first difference.
    """
    _check_finished(store)
    pairs: list[tuple[str, Any, Any]] = [
        (f"size of camera {mine.name!r}", (mine.height, mine.width), (theirs.height, theirs.width))
        for mine in spec.cameras
        for theirs in [_camera(store, mine.name)]
    ]
    pairs += [
        ("state names", spec.state.names, store.meta.state.names),
        ("state units", spec.state.units, store.meta.state.units),
        ("action names", spec.action.names, store.meta.action.names),
        ("action units", spec.action.units, store.meta.action.units),
        ("action low bounds", spec.action.low, store.meta.action.low),
        ("action high bounds", spec.action.high, store.meta.action.high),
        ("control rate in Hz", spec.control_hz, store.meta.control_hz),
    ]
    for what, expected, got in pairs:
        if expected != got and (with_bounds or not what.endswith("bounds")):
            told = "; convert this store again with --layout STORE_OR_RUN, which takes what that one says, or --bounds"
            advice = told if what.startswith("action") else ""
            raise ValueError(f"{store.path}: {what} differs: expected {expected}, got {got}{advice}")


def with_tasks(spec: PolicySpec, tasks: Sequence[str]) -> PolicySpec:
    """The spec with a slot for every task: the one it has, or the next spare one."""
    return replace(spec, tasks=spec.tasks.with_tasks(tasks))
