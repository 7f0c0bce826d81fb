"""Actions of a checkpoint on the frames of stored episodes, beside the recorded ones, in the robot's units."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from ptr_robot.acting_options import ActingOptions

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        checkpoint: run (the checkpoint that select picked, else the newest that has not diverged), or one checkpoint.
        store: a store with other episodes than the run's held-out ones; or OLD=NEW for a store of the run's that has
            moved; repeat for several.
        camera_map: STORE=CHECKPOINT for every camera of that other store whose name in the checkpoint is another.
        task: task name as the policy knows it; empty takes each episode's own.
        episode_ids: which episodes; empty takes the first two that were not trained on.
        every: act on every so-many-th frame.
        device: ``auto`` takes a GPU where there is one.
        json: print JSON lines instead of a table.
        acting: how the checkpoint acts, where it is to be otherwise than it says itself.
    """

    checkpoint: Path
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    camera_map: tuple[str, ...] = ()
    task: str = ""
    episode_ids: tuple[str, ...] = ()
    every: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    json: bool = False
    acting: Annotated[ActingOptions, tyro.conf.arg(name="")] = ActingOptions()


def main(args: Args) -> int:
    """Acts frame by frame, as a robot would, and prints what came out."""
    from ptr_robot.chosen_checkpoint import chosen_checkpoint
    from ptr_robot.device import pick_device
    from ptr_robot.evaluation.held_out import episodes_of, observed
    from ptr_robot.training.matching import check_matches
    from ptr_robot.training.store_places import StorePlaces

    if args.every < 1:
        raise ValueError(f"every must be at least 1, got {args.every}")
    policy = args.acting.load(chosen_checkpoint(args.checkpoint), pick_device(args.device))
    places = StorePlaces.parse(args.store, takes_given=True, camera_map=args.camera_map)
    store, episodes, held_out = episodes_of(places, args.episode_ids, policy.info, bool(args.task))
    check_matches(store, policy.spec, with_bounds=False)
    rows = []
    for episode in episodes:
        task = args.task or store.episodes.task[episode]
        for t in range(0, int(store.episodes.num_steps[episode]), args.every):
            record = int(store.episodes.first[episode]) + t
            chunk, _ = policy.act(*observed(store, policy, episode, t, task), seed=t)
            record, action = int(store.episodes.first[episode]) + t, chunk[0]
            rows.append((store.episodes.episode_id[episode], t, action, store.action[record]))
    if args.json:
        for episode_id, t, action, recorded in rows:
            row = {"episode_id": episode_id, "t": t, "action": action.tolist(), "recorded": recorded.tolist()}
            print(json.dumps(row))
    else:
        _print_table(policy, rows, held_out)
    return 0


def _print_table(policy, rows, held_out: bool | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ptr_robot.report.runs import told_search

    spec = policy.spec.action
    told = {True: "held-out episodes", False: "TRAINING episodes", None: "episodes (unknown whether trained on)"}
    mode = policy.mode + told_search(policy.act_config.told())
    table = Table(title=f"{mode} actions on {told[held_out]}: policy / recorded")
    table.add_column("episode")
    table.add_column("t", justify="right")
    for name, unit in zip(spec.names, spec.units, strict=True):
        table.add_column(f"{name} [{unit}]" if unit else name, justify="right")
    for episode_id, t, action, recorded in rows:
        pairs = [f"{a:+.3f} / {r:+.3f}" for a, r in zip(action, recorded, strict=True)]
        table.add_row(escape(episode_id), str(t), *pairs)
    console = Console()
    console.print(table)
    error = np.mean([np.abs(spec.scale(a) - spec.scale(r)) for _, _, a, r in rows])
    console.print(f"mean absolute error {error:.3f} of the action's half range, {len(rows)} frames")
