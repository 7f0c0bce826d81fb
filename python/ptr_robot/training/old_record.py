"""Records of version 1 (note "Record of a run"), brought to today's form so that their runs go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptr_fast.checkpoint import CheckpointInfo, read_checkpoint
from ptr_fast.config import PolicySpec, to_dict
from ptr_robot.training.ancestry import ancestors_of
from ptr_robot.training.config import DataConfig
from ptr_robot.training.matching import make_spec, with_tasks
from ptr_robot.training.run_record import RunRecord, recorded_sources
from ptr_robot.training.sources import Source
from ptr_robot.training.store_places import StorePlaces

__all__ = ["upgraded"]


def upgraded(data: Mapping[str, Any], newest: CheckpointInfo | None, places: StorePlaces, where: str) -> RunRecord:
    """A record of version 1 with what the run's newest checkpoint holds beside it; tells what is not known.

    A run without a checkpoint takes camera, state and action from its stores (pre-training) or from the checkpoint that
    it starts from (fine-tuning).

    Raises:
        DataError: a key is missing or broken, or such a store or checkpoint is not there.
    """
    config, parent = dict(data["config"]), None
    if data["verb"] == "finetune":
        config.pop("prior", None)
        config["store"] = []
        start = data["checkpoint"]
        parent = {
            "kind": "finetune",
            "run": str(Path(start["path"]).parent.parent),
            "checkpoint": start["path"],
            "step": start["step"],
            "weights": None,
        }
    if newest is not None:
        spec, act, source = newest.spec, newest.act, str(newest.path)
    elif parent is None:
        spec, act, source = _spec_of_stores(data, config, places), config["act"], "its stores"
    else:
        base = read_checkpoint(parent["checkpoint"])
        mode = config["act_mode"]
        spec, source = with_tasks(base.spec, [config["task"]]), str(base.path)
        act = base.act if mode == "same" else replace(base.act, mode=mode)
    config["act"] = to_dict(act)
    print(
        f"{where}: a record of an older version: it has no digests of the episodes, no list of the stores' other "
        f"episodes and no id of Weights & Biases; camera, state, action and task slots are taken from {source}"
    )
    return RunRecord.from_json(
        {
            **data,
            "config": config,
            "spec": to_dict(spec),
            "parent": parent,
            "ancestors": ancestors_of(data),
            "changes": [],
            "wandb": None,
        },
        where,
    )


def _spec_of_stores(data: Mapping[str, Any], config: Mapping[str, Any], places: StorePlaces) -> PolicySpec:
    sources = [Source.from_record(source, places) for source in recorded_sources(data)]
    return make_spec(sources, DataConfig.written_before(config["data"])["cameras"], config["num_task_slots"])
