"""Checkpoints: everything needed to act, and beside it everything needed to go on training.

Layout (the one LeRobot users know)::

    <run>/checkpoints/000500/pretrained_model/config.json          learner, camera, state, action, tasks, act
    <run>/checkpoints/000500/pretrained_model/model.safetensors    networks: of CQL and BC actor and averaged actor
    <run>/checkpoints/000500/pretrained_model/critic.safetensors   networks that the learner keeps beside them
                                                                   (``Traits.beside``: critics, temperature), if any
    <run>/checkpoints/000500/pretrained_model/train_config.json    the whole configuration of the run
    <run>/checkpoints/000500/training_state/optimizer_state.safetensors, optimizer_param_groups.json, training_step.json
    <run>/checkpoints/000500/files.json                            size and SHA-256 of every file above
    <run>/checkpoints/last                                         link to the newest

A checkpoint is written under a temporary name, flushed, and renamed: it is there whole or not at all. No random
state is stored: every draw of training is a function of (seed, step).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import nn

from ptr_fast.config import ActConfig, LearnerConfig, PolicySpec, RunReference, from_dict, to_dict
from ptr_fast.errors import DataError
from ptr_fast.files import sync_directory, write_atomically
from ptr_fast.json_files import read_json
from ptr_fast.learners.registry import traits_of
from ptr_fast.run_folder import (
    DAMAGED_ADVICE,
    MODEL,
    checkpoint_folder,
    list_checkpoints,
    remove_checkpoint,
    weights_of,
)

__all__ = [
    "CheckpointInfo",
    "list_checkpoints",
    "load_networks",
    "load_training_state",
    "open_reference",
    "read_checkpoint",
    "remove_checkpoint",
    "save_checkpoint",
    "weights_digest",
]

SCHEMA_VERSION = 1
TRAINING = "training_state"


class Trainable(Protocol):
    """What a learner shows of itself to be saved and loaded."""

    config: LearnerConfig

    def networks(self) -> dict[str, nn.Module]: ...

    def optimizers(self) -> dict[str, torch.optim.Optimizer]: ...


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """A checkpoint's description, without its weights.

    Attributes:
        path: the folder named after the step.
        step: number of updates done.
        config, spec, act: learner configuration, the outside world, acting mode.
        run: the whole configuration of the run that wrote it, as JSON values.
    """

    path: Path
    step: int
    config: LearnerConfig
    spec: PolicySpec
    act: ActConfig
    run: dict[str, Any]


def save_checkpoint(
    run_dir: Path,
    step: int,
    learner: Trainable,
    spec: PolicySpec,
    act: ActConfig,
    run: dict[str, Any],
    folder: str = "checkpoints",
) -> Path:
    """Writes ``<run_dir>/<folder>/<step>`` and points ``last`` at it; an existing one of that step is replaced.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched and nothing half-written is left.
        ValueError: nobody has registered the learner's configuration; nothing is written.
    """
    traits_of(learner.config)
    parent = Path(run_dir) / folder
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / f"{step:06d}"
    temporary = parent / f".{step:06d}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / MODEL).mkdir(parents=True)
        (temporary / TRAINING).mkdir()
        sums = {}
        for name, data in _contents(step, learner, spec, act, run):
            write_atomically(temporary / name, data)
            sums[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        write_atomically(temporary / "files.json", _json(sums))
        for directory in (temporary / MODEL, temporary / TRAINING, temporary):
            sync_directory(directory)
        if final.exists():
            remove_checkpoint(final)
        os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _link_last(parent, final.name)
    return final


def _contents(step: int, learner: Trainable, spec: PolicySpec, act: ActConfig, run: dict[str, Any]):
    networks, beside = learner.networks(), traits_of(learner.config).beside
    model = {name: module for name, module in networks.items() if name not in beside}
    others = {name: module for name, module in networks.items() if name in beside}
    config = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "learner": to_dict(learner.config),
        "spec": to_dict(spec),
        "act": to_dict(act),
    }
    yield f"{MODEL}/config.json", _json(config)
    yield f"{MODEL}/train_config.json", _json(run)
    yield f"{MODEL}/model.safetensors", _pack(model)
    if others:
        yield f"{MODEL}/critic.safetensors", _pack(others)
    tensors, groups = {}, {}
    for name, optimizer in learner.optimizers().items():
        state = optimizer.state_dict()
        groups[name] = state["param_groups"]
        for index, entries in state["state"].items():
            for key, value in entries.items():
                tensors[f"{name}/{index}/{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    yield f"{TRAINING}/optimizer_state.safetensors", safetensors.torch.save(tensors)
    yield f"{TRAINING}/optimizer_param_groups.json", _json(groups)
    yield f"{TRAINING}/training_step.json", _json({"step": step})


def _pack(modules: dict[str, nn.Module]) -> bytes:
    return safetensors.torch.save(
        {
            f"{name}.{key}": value.detach().cpu().contiguous()
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _link_last(parent: Path, name: str) -> None:
    temporary = parent / f".last.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(name)
    os.replace(temporary, parent / "last")
    sync_directory(parent)


def read_checkpoint(path: Path | str) -> CheckpointInfo:
    """Reads a checkpoint's description and checks every file against its recorded size and SHA-256.

    Args:
        path: a checkpoint, or a run: then the one that the run means (:func:`ptr_fast.run_folder.choose_checkpoint`).

    Raises:
        DataError: no checkpoint, a missing, truncated or changed file, or an unknown schema version.
    """
    folder = checkpoint_folder(path)
    _verify(folder)
    config = read_json(folder / MODEL / "config.json")
    version = config.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(f"{folder / MODEL / 'config.json'}: expected schema_version {SCHEMA_VERSION}, got {version}")
    try:
        return CheckpointInfo(
            path=folder,
            step=int(config["step"]),
            config=from_dict(LearnerConfig, config["learner"], "learner"),  # type: ignore[arg-type]
            spec=from_dict(PolicySpec, config["spec"], "spec"),
            act=from_dict(ActConfig, config["act"], "act"),
            run=read_json(folder / MODEL / "train_config.json"),
        )
    except (KeyError, ValueError) as error:
        raise DataError(f"{folder / MODEL / 'config.json'}: {error}") from error


def weights_digest(info: CheckpointInfo) -> str:
    """SHA-256 over the recorded digests of the nets' weights: what identifies them wherever the checkpoint lies."""
    return weights_of(info.path)


def open_reference(reference: RunReference) -> CheckpointInfo:
    """The checkpoint that a learner's configuration refers to.

    Raises:
        DataError: it is not there, it is damaged, or it has other weights than the configuration says.
    """
    try:
        info = read_checkpoint(reference.path)
    except DataError as error:
        raise DataError(f"{error} (the learner refers to it, and cannot be trained without)") from error
    if reference.weights and weights_digest(info) != reference.weights:
        raise DataError(
            f"{info.path}: the learner needs this checkpoint with the weights {reference.weights[:12]}..., got "
            f"{weights_digest(info)[:12]}...; put the old one back"
        )
    return info


def _verify(folder: Path) -> None:
    for name, expected in read_json(folder / "files.json").items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path}: missing from the checkpoint; {DAMAGED_ADVICE}")
        size = path.stat().st_size
        if size != expected["bytes"]:
            told = f"expected {expected['bytes']} bytes, got {size}; the file is truncated or changed"
            raise DataError(f"{path}: {told}; {DAMAGED_ADVICE}")
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected["sha256"]:
            raise DataError(f"{path}: its SHA-256 differs from the recorded one; the file is corrupt; {DAMAGED_ADVICE}")


def load_networks(info: CheckpointInfo, modules: dict[str, nn.Module]) -> None:
    """Fills modules (``{"actor": ..., "target_critic": ...}``) with the checkpoint's weights, in place.

    Raises:
        DataError: a network, parameter or shape does not match; it is named.
    """
    beside = traits_of(info.config).beside
    for name, module in modules.items():
        path = info.path / MODEL / ("critic.safetensors" if name in beside else "model.safetensors")
        own = _load_tensors(path, name + ".")
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise DataError(f"{path}: {name} does not match the configuration: {error}") from error


def _load_tensors(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Those of a file's tensors whose names begin with ``prefix``, without it; the others are not read."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (it is no mapping)
            return {name[len(prefix) :]: file.get_tensor(name) for name in names}
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing from the checkpoint") from error
    except safetensors.SafetensorError as error:
        raise DataError(f"{path}: not a valid safetensors file ({error})") from error


def load_training_state(info: CheckpointInfo, learner: Trainable) -> None:
    """Fills a learner's networks and optimisers, so that its next update equals that of the run that was saved."""
    load_networks(info, learner.networks())
    folder = info.path / TRAINING
    tensors = _load_tensors(folder / "optimizer_state.safetensors")
    groups = read_json(folder / "optimizer_param_groups.json")
    for name, optimizer in learner.optimizers().items():
        if name not in groups:
            raise DataError(f"{folder}: no state for optimiser {name!r}; it has {sorted(groups)}")
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            owner, index, entry = key.rsplit("/", 2)
            if owner == name:
                state.setdefault(int(index), {})[entry] = value
        try:
            optimizer.load_state_dict({"state": state, "param_groups": groups[name]})
        except (ValueError, KeyError) as error:
            raise DataError(f"{folder}: optimiser {name!r} does not match the configuration: {error}") from error
