"""The runs whose weights went into a run, and the episodes that they trained on.

They are ``parent`` and ``ancestors`` of a record (note "Record of a run" in :mod:`ptr_robot.training.run_record`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ptr_fast.checkpoint import CheckpointInfo, weights_digest
from ptr_fast.json_files import parse_json
from ptr_robot.training.run_record import recorded_sources

__all__ = ["TrainedEpisodes", "ancestors_of", "parent_and_ancestors", "trained_on"]


@dataclass(frozen=True, kw_only=True)
class TrainedEpisodes:
    """Episodes of one store that a run, or one of its ancestors, trained on.

    Attributes:
        run: folder of the run that did; empty: the run of the record itself.
        store: where the store lay.
        fingerprint: of the store when that run's split was drawn.
        digests: SHA-256 of actions and frames by episode id; empty text where a record of version 1 does not say.
        tasks: of the episodes, by id; without those that a record of version 1 does not say.
    """

    run: str
    store: Path
    fingerprint: str
    digests: Mapping[str, str]
    tasks: Mapping[str, str]


def parent_and_ancestors(
    info: CheckpointInfo, kind: Literal["finetune", "branch", "encoder"]
) -> tuple[dict[str, Any], tuple[Mapping[str, Any], ...]]:
    """``parent`` and ``ancestors`` of a run whose weights come from a checkpoint."""
    run, weights = str(info.path.parent.parent), weights_digest(info)
    sources = trained_sources(info.run) if "split" in info.run else None
    nearest = {"run": run, "step": info.step, "weights": weights, "sources": sources}
    parent = {"kind": kind, "run": run, "checkpoint": str(info.path), "step": info.step, "weights": weights}
    return parent, (nearest, *ancestors_of(info.run))


def trained_on(run: Mapping[str, Any]) -> tuple[list[TrainedEpisodes], list[str]]:
    """All that went into the weights of a run's checkpoints, by its record (``CheckpointInfo.run``).

    Returns:
        The episodes, store by store, of the run itself and of every ancestor; and the folders of those ancestors of
        which nothing is known.
    """
    own = [("", source) for source in trained_sources(run)]
    unknown = [str(ancestor["run"]) for ancestor in ancestors_of(run) if ancestor["sources"] is None]
    theirs = [(str(ancestor["run"]), source) for ancestor in ancestors_of(run) for source in ancestor["sources"] or ()]
    found = [
        TrainedEpisodes(
            run=run_, store=Path(s["store"]), fingerprint=s["fingerprint"], digests=s["train"], tasks=s.get("tasks", {})
        )
        for run_, s in (*own, *theirs)
    ]
    return found, unknown


def trained_sources(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a run itself trained on, as ``ancestors`` of a later run keeps it."""
    out = []
    for source in recorded_sources(run):
        digests = {name: source.episodes[name].digest if name in source.episodes else "" for name in source.train}
        tasks = {name: source.episodes[name].task for name in source.train if name in source.episodes}
        out.append({"store": str(source.store), "fingerprint": source.fingerprint, "train": digests, "tasks": tasks})
    return out


def ancestors_of(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ``ancestors`` of a record; one of version 1 names its parent alone, which is read where it still lies."""
    if "ancestors" in run:
        return run["ancestors"]
    if not run.get("checkpoint"):
        return []
    path, step = Path(run["checkpoint"]["path"]), run["checkpoint"]["step"]
    try:
        parent = parse_json((path / "pretrained_model" / "train_config.json").read_bytes())
    except (OSError, ValueError):
        parent = None
    sources = None if parent is None or "split" not in parent else trained_sources(parent)
    nearest = {"run": str(path.parent.parent), "step": step, "weights": None, "sources": sources}
    return [nearest, *([] if parent is None else ancestors_of(parent))]
