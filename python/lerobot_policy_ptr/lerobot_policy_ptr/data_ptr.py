"""What a LeRobot data set says, as our learners take it.

Shapes: B samples, T observations, H actions of a chunk, S state, A action, N frames of the data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ptr_fast.config import PolicySpec, RewardConfig, TaskTable
from ptr_fast.data.rewards import look_ahead, observed_returns
from ptr_fast.learners.preparation import TrainingData
from ptr_fast.runtime.preprocess import fit_frame
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

__all__ = ["CAMERA", "Labels", "frames_of", "labels_of", "spec_of", "training_data"]

CAMERA = "observation.images."
SUPPORTED = frozenset(
    ("images", "next_images", "state", "next_state", "task_id", "observation_mask", "actions", "action_mask")
    + ("rewards", "masks", "returns")
)
"""Columns of a batch of ours that can be made of a LeRobot batch."""


def spec_of(meta: Any, image_size: int) -> PolicySpec:
    """What a policy of a data set sees and commands; units are unknown, bounds of actions measured.

    Raises:
        ValueError: a key is missing.
    """
    features = meta.features
    for key in ("observation.state", "action"):
        if key not in features:
            raise ValueError(f"{meta.repo_id}: the data set has no {key!r}")
    cameras = [key.removeprefix(CAMERA) for key in meta.camera_keys]
    low, high = (np.asarray(meta.stats["action"][key], np.float64).ravel() for key in ("min", "max"))
    high = np.where(high > low, high, low + 1e-3)  # an axis that never moves has a range all the same
    tasks = tuple(sorted(map(str, meta.tasks.index)))
    names, states = (_names(features[key], key) for key in ("action", "observation.state"))
    return PolicySpec(
        cameras=tuple(CameraSpec(name=name, height=image_size, width=image_size) for name in cameras),
        state=StateSpec(names=states, units=("unknown",) * len(states)),
        action=ActionSpec(
            names=names,
            units=("unknown",) * len(names),
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
            bounds_source="data",
        ),
        tasks=TaskTable(names=tasks, num_slots=len(tasks) + max(8, len(tasks))),
        control_hz=float(meta.fps),
    )


def _names(feature: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names, (size,) = feature.get("names"), feature["shape"]
    if isinstance(names, Mapping) and len(names) == 1:  # as {"motors": [...]}
        (names,) = names.values()
    if isinstance(names, list | tuple) and len(names) == size:
        return tuple(map(str, names))
    return tuple(f"{key}_{i}" for i in range(size))


class Labels(NamedTuple):
    """Of every frame by its global index, ``[N]``; see :mod:`ptr_fast.data.rewards`.

    Attributes:
        rewards, masks: float32. steps: int64, how far ahead the next observation lies. returns: float32, or None.
    """

    rewards: np.ndarray
    masks: np.ndarray
    steps: np.ndarray
    returns: np.ndarray | None


def labels_of(meta: Any, rewards: RewardConfig, discount: float, outcome: str) -> Labels | None:
    """The recipe's rewards of episodes that all succeeded, as stated; None where the data set has rewards of its own.

    Raises:
        ValueError: it has none and nobody stated the outcome, or it has some and somebody did.
    """
    if "next.reward" in meta.features:
        if outcome:
            raise ValueError(f"{meta.repo_id}: has 'next.reward', which is taken: leave --policy.outcome out")
        return None
    if outcome != "success":
        told = "has no 'next.reward', so a critic has nothing to learn from"
        raise ValueError(f"{meta.repo_id}: {told}; state --policy.outcome=success if every episode of it succeeded")
    begin, end = (np.asarray(meta.episodes[key]) for key in ("dataset_from_index", "dataset_to_index"))
    num_steps = (end - begin)[np.argsort(begin)]
    # The observation after an episode's last frame was not recorded; the last steps of a success need none.
    blind = np.ones(len(num_steps), bool)
    found = look_ahead(num_steps, rewards, discount, ends_blind=blind)
    returns = observed_returns(num_steps, rewards, discount) if rewards.lower_bound_returns else None
    return Labels(*found, returns)


def frames_of(images: torch.Tensor, camera: CameraSpec) -> torch.Tensor:
    """Frames float ``[..., 3, H, W]`` in 0..1 as uint8 ``[..., h, w, 3]``, resized as our own data are."""
    levels = (images.detach().float().cpu() * 255.0).round().clamp(0, 255).to(torch.uint8)
    flat = levels.reshape(-1, *levels.shape[-3:]).permute(0, 2, 3, 1).contiguous().numpy()
    fitted = np.stack([fit_frame(frame, camera) for frame in flat])
    return torch.from_numpy(fitted).reshape(*images.shape[:-3], camera.height, camera.width, 3).to(images.device)


def training_data(meta: Any, spec: PolicySpec, labels: Labels | None) -> TrainingData:
    """All frames of the data set without its images, for what a learner fits before its first update."""
    import pyarrow.parquet as pq

    columns = ["action", "observation.state", "task_index", "episode_index"]
    tables = [pq.read_table(file, columns=columns) for file in sorted((Path(meta.root) / "data").rglob("*.parquet"))]
    read = {name: np.concatenate([_column(table, name) for table in tables]) for name in columns}
    slots = np.array([spec.tasks.slot(str(task)) for task in meta.tasks.sort_values("task_index").index])
    none = np.zeros(len(read["action"]), np.float32)
    return TrainingData(
        actions=spec.action.scale(read["action"].reshape(-1, spec.action.dim)),
        state=read["observation.state"].reshape(-1, spec.state.dim).astype(np.float32),
        task_id=slots[read["task_index"]],
        rewards=none if labels is None else labels.rewards,
        masks=none if labels is None else labels.masks,
        episode=read["episode_index"].astype(np.int64),
    )


def _column(table: Any, name: str) -> np.ndarray:
    return np.stack([np.asarray(value) for value in table[name].to_numpy(zero_copy_only=False)])
