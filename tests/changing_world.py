"""A tiny run in a world that changes while it is stopped: stores that grow, move, lose episodes or get other ones."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import toy_robot

from ptr_fast.checkpoint import list_checkpoints
from ptr_fast.data.store import StoreWriter
from ptr_robot.cli import main as cli

CAMERAS = ("image_0",)
SMALL = ["--num-steps", "6", "--batch-size", "4", "--log-every", "1", "--checkpoint-every", "3", "--keep-last", "0"]
SMALL += ["--keep-best", "0"]


def episodes(count: int = 12, seed: int = 0) -> list[toy_robot.ToyEpisode]:
    return toy_robot.toy_episodes(count, seed, CAMERAS)


def make_store(path: Path, toys: list[toy_robot.ToyEpisode], **meta) -> Path:
    return toy_robot.write_store(path, toys, toy_robot.toy_meta(CAMERAS, encoding="raw", **meta))


def grow(store: Path, toys: list[toy_robot.ToyEpisode], **meta) -> None:
    """Appends episodes, and whatever else changes with them (``action``: other bounds)."""
    made = make_store(store.with_name(store.name + ".more"), toys)
    from ptr_fast.data.store import Episode, EpisodeStore

    more = EpisodeStore.open(made)
    with StoreWriter.append(store) as writer:
        for e, toy in enumerate(toys):
            first = int(more.episodes.first[e])
            frames = [bytes(more.frame_bytes("image_0", first + t)) for t in range(len(toy.states))]
            episode = Episode(
                episode_id=toy.episode_id, task=toy.task, states=toy.states, actions=toy.actions,
                frames={"image_0": frames}, outcome=toy.outcome,
            )  # fmt: skip
            writer.add(episode)
        if meta:
            writer.update_meta(**meta)
    shutil.rmtree(made)


def new_task(count: int = 3) -> list[toy_robot.ToyEpisode]:
    """Episodes of a task whose name comes before all others, under ids of their own."""
    return [replace(toy, task="arrange cups") for toy in episodes(count, seed=7)]


def stopped(run: Path, out: Path, at: int = 3) -> Path:
    """A copy of a finished run, as it was when it was stopped."""
    shutil.copytree(run, out, symlinks=True)
    (out / "checkpoints" / "last").unlink()
    for path in list_checkpoints(out):
        if int(path.name) > at:
            shutil.rmtree(path)
    return out


def read_record(run: Path) -> dict:
    return json.loads((run / "train_config.json").read_text())


def write_record(run: Path, record: dict) -> None:
    """Puts a record into a run and all of its checkpoints, as the program that wrote such records would have."""
    data = (json.dumps(record, indent=2) + "\n").encode()
    (run / "train_config.json").write_bytes(data)
    for checkpoint in list_checkpoints(run):
        (checkpoint / "pretrained_model" / "train_config.json").write_bytes(data)
        sums = json.loads((checkpoint / "files.json").read_text())
        sha = hashlib.sha256(data).hexdigest()
        sums["pretrained_model/train_config.json"] = {"bytes": len(data), "sha256": sha}
        (checkpoint / "files.json").write_text(json.dumps(sums))


def as_version_1(run: Path) -> None:
    """Takes from a run's records what those of version 1 did not have."""
    record = read_record(run)
    for name in ("record_version", "spec", "ancestors", "changes", "wandb"):
        del record[name]
    for source in record["split"]["sources"]:
        del source["others"], source["episodes"]
    if parent := record.pop("parent"):
        record["checkpoint"] = {"path": parent["checkpoint"], "step": parent["step"]}
        record["config"]["prior"] = record["config"].pop("store")
        del record["config"]["act"]
        record["config"]["act_mode"] = "same"  # what "auto" came to
    write_record(run, record)


def weights(run: Path) -> dict[str, bytes]:
    last = list_checkpoints(run)[-1]
    return {str(p.relative_to(last)): p.read_bytes() for p in sorted(last.rglob("*.safetensors"))}


def numbers(run: Path) -> list[dict]:
    """The metrics without what depends on the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time_s" and not k.startswith("perf/")} for row in rows]


def same_result(run: Path, unbroken: Path) -> None:
    assert numbers(run) == numbers(unbroken)
    assert weights(run) == weights(unbroken)


def ptr_fast(*words) -> int:
    return cli([str(word) for word in words])


def make_home(home: Path) -> Path:
    """Two stores, a run that pre-trained on the first, ``base``, and one that fine-tuned it on the second, ``fine``."""
    make_store(home / "store", episodes())
    make_store(home / "target", [replace(e, task="fold towel") for e in episodes(8, seed=3)])
    choice = ["--data.exclude-tasks", "turn lever", "--data.validation-share", "0.25"]
    assert ptr_fast("pretrain", "smoke", "--data.stores", home / "store", "--out", home / "base", *SMALL, *choice) == 0
    finetune = ["finetune", "--checkpoint", home / "base", "--target", home / "target", "--num-demos", "3"]
    assert ptr_fast(*finetune, "--mix", "0.5", "--out", home / "fine", *SMALL) == 0
    return home


def copy_home(home: Path, world: Path) -> Path:
    """A copy that may change, with both runs stopped after three updates."""
    for name in ("store", "target"):
        shutil.copytree(home / name, world / name)
    for name in ("base", "fine"):
        stopped(home / name, world / name)
    return world


def moved(home: Path, world: Path) -> list[str]:
    """The option that tells a run of ``home`` that its stores are those of ``world``."""
    return ["--store", f"{home}={world}"]
