"""The record of a run: all that it was told, settled and drawn, as JSON. ``ptr-fast resume`` makes the run from it.

Note "Record of a run". It is ``RUN/train_config.json``, and ``pretrained_model/train_config.json`` in a checkpoint::

    record_version   2; a record without it is of version 1 (see below)
    verb             "pretrain" or "finetune"
    config           the verb's options, stores as absolute paths, with what came of them: learner (rates and schedule
                     settled), rewards, act, loop (precision and tier of the frames settled)
    spec             camera, state, action, task table with its slots, control rate: PolicySpec
    split
      mix            share of the prior sources in a batch
      sources        one object per store, in the order in which the run samples from them
        role         "prior" or "target"
        store        absolute path of where it lay when the run last began or went on
        fingerprint  of the store when the split was drawn
        train, validation, others   episode ids: trained on (in the order of sampling), held out, and all others of the
                     store; an episode in none of them is new
        weights      {task: factor}: how often its steps are drawn, where that is not 1
        episodes     {id: {digest, states, task, outcome}} of those in train and validation: SHA-256 of actions and
                     frames, CRC-32 of the states, and the labels that rewards and task slots follow from
    parent           the checkpoint that the weights came from, or null: {kind: "finetune", "branch"
                     or "encoder" (nothing else was taken), run, checkpoint, step, weights (digest)}
    ancestors        all runs whose weights went into this one, nearest first: [{run, step, weights, sources: [{store,
                     fingerprint, train: {id: digest}, tasks: {id: task}}]}]; sources is null where that is not known
    changes          what was told to ``resume``: [{step, field, before, after}]
    wandb            id of the run at Weights & Biases, or null
    familiarity      how well the critic that fine-tuning began with knew the task: mean rank correlation of Q and time
                     along demonstrations and along old episodes, and how many of each; or null
    versions         of the program that last began or went on

Older records lack familiarity. A record of version 1 lacks spec (the checkpoint has it), others, episodes, ancestors,
changes and wandb, and has ``checkpoint`` in place of ``parent``. What is missing is told when such a run goes on.
"""

from __future__ import annotations

import platform
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch

import ptr_fast
from ptr_fast.config import ActConfig, LearnerConfig, PolicySpec, RewardConfig, from_dict, to_dict
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot.training.config import EncoderFinetuneConfig, FinetuneConfig, LoopConfig, PretrainConfig
from ptr_robot.training.familiarity import Familiarity, familiarity_in
from ptr_robot.training.weights import parse_weights

__all__ = [
    "RECORD_VERSION",
    "EpisodeRecord",
    "RunRecord",
    "SourceRecord",
    "recorded_sources",
    "versions",
]

RECORD_VERSION = 2


@dataclass(frozen=True)
class EpisodeRecord:
    """What a run saw of an episode.

    Attributes:
        digest: SHA-256 of actions and frames, as in :class:`EpisodeTable`.
        states: CRC-32 of the float32 states, eight hexadecimal digits.
        task, outcome: its labels.
    """

    digest: str
    states: str
    task: str
    outcome: str

    @staticmethod
    def of(store: EpisodeStore, episode: int) -> EpisodeRecord:
        """That of an episode of an open store."""
        table = store.episodes
        first = int(table.first[episode])
        states = np.ascontiguousarray(store.state[first : first + int(table.num_frames[episode])])
        return EpisodeRecord(
            table.digest[episode], f"{zlib.crc32(states.data):08x}", table.task[episode], table.outcome[episode]
        )


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """The episodes of one store that take part in a run, by id.

    Attributes:
        role: ``prior`` or ``target``.
        store: where the store lies.
        fingerprint: of the store when the split was drawn.
        train, validation: ids of the episodes that are trained on and held out.
        others: ids of the store's other episodes when the split was drawn; None: not recorded (version 1).
        episodes: those of train and validation by id; empty: not recorded (version 1).
        weights: how often the steps of a task are drawn, by task, where that is not 1.
        cameras: names of cameras in the run by their names in the store, where the two differ.
    """

    role: str
    store: Path
    fingerprint: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    others: tuple[str, ...] | None
    episodes: Mapping[str, EpisodeRecord]
    weights: Mapping[str, float] = field(default_factory=dict)
    cameras: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(
        role: str,
        store: EpisodeStore,
        train: Iterable[int],
        validation: Iterable[int],
        weights: Mapping[str, float] = MappingProxyType({}),
    ) -> SourceRecord:
        """The record of a choice among the episodes of an open store."""
        ids = store.episodes.episode_id
        chosen = {ids[i]: EpisodeRecord.of(store, int(i)) for i in (*train, *validation)}
        return SourceRecord(
            role=role,
            store=store.path.resolve(),
            fingerprint=store.fingerprint(),
            train=tuple(ids[i] for i in train),
            validation=tuple(ids[i] for i in validation),
            others=tuple(i for i in ids if i not in chosen),
            episodes=chosen,
            weights=dict(weights),
            cameras={stored: name for name, stored in store.stored_names.items() if stored != name},
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "role": self.role,
            "store": str(self.store),
            "fingerprint": self.fingerprint,
            "train": list(self.train),
            "validation": list(self.validation),
            "others": None if self.others is None else list(self.others),
            "weights": dict(self.weights),
            "cameras": dict(self.cameras),
            "episodes": {name: vars(episode) for name, episode in self.episodes.items()},
        }

    @staticmethod
    def written_before(data: Mapping[str, Any]) -> Mapping[str, Any]:
        """With what version 1 did not record."""
        return {"others": None, "episodes": {}, **data}


class Split(TypedDict):
    """``split`` of a record.

    Attributes:
        mix: share of the prior sources in a batch, where there is a target as well.
    """

    mix: NotRequired[float]
    sources: NotRequired[list[SourceRecord]]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The record of a run (note "Record of a run") but for the versions, which are those of the program that writes it.

    Attributes:
        verb: ``pretrain`` or ``finetune``.
        config: the verb's options and what came of them, JSON values.
        spec: what the policy sees and commands.
        mix: share of the prior sources in a batch, where there is a target as well.
        sources: the episodes, store by store.
        parent, ancestors, changes, wandb, familiarity: as in the note.
    """

    verb: str
    config: Mapping[str, Any]
    spec: PolicySpec
    mix: float
    sources: tuple[SourceRecord, ...]
    parent: Mapping[str, Any] | None = None
    ancestors: tuple[Mapping[str, Any], ...] = ()
    changes: tuple[Mapping[str, Any], ...] = ()
    wandb: str | None = None
    familiarity: Familiarity | None = None

    @property
    def learner(self) -> LearnerConfig:
        """The learner's configuration, rates and schedule settled."""
        return from_dict(LearnerConfig, self.config["learner"], "learner")  # type: ignore[arg-type]

    @property
    def rewards(self) -> RewardConfig:
        """Labels of the transitions."""
        return from_dict(RewardConfig, self.config["rewards"], "rewards")

    @property
    def act(self) -> ActConfig:
        """How the checkpoints act unless told otherwise."""
        return from_dict(ActConfig, self.config["act"], "act")

    @property
    def loop(self) -> LoopConfig:
        """Length, saving, reporting."""
        return from_dict(LoopConfig, self.config["loop"], "config.loop")

    @property
    def first_step(self) -> int:
        """Number of updates that were done when the run began: those of its parent where it is a branch."""
        return self.parent["step"] if self.parent and self.parent["kind"] == "branch" else 0

    @property
    def is_finetuning(self) -> bool:
        """Whether it trains a whole checkpoint on with demonstrations of a new task, from that task's first update.

        A branch from step 0 does so too: only fine-tuning has a checkpoint there.
        """
        kind = self.parent["kind"] if self.parent else ""
        return kind == "finetune" or (kind == "branch" and self.first_step == 0)

    @property
    def takes_encoder_alone(self) -> bool:
        """Whether of the parent's weights the image encoder alone was taken."""
        return bool(self.parent) and self.parent["kind"] == "encoder"  # type: ignore[index]

    def with_config(self, **values: Any) -> RunRecord:
        """The record with parts of its configuration (learner, rewards, act, loop) replaced."""
        return replace(self, config={**self.config, **{name: to_dict(value) for name, value in values.items()}})

    def placed(self, out: Path, stores: Sequence[Path]) -> RunRecord:
        """The record with the places where the run and its stores lie, in the order of its sources."""
        paths = [path.resolve() for path in stores]
        config = {**self.config, "out": str(out.resolve())}
        if self.verb == "pretrain":
            data, priors = config["data"], paths
            if any(source.role == "target" for source in self.sources):
                *priors, target = paths
                config["joint"] = {**config["joint"], "target": str(target)}
            moved = dict(zip(map(Path, data["stores"]), priors, strict=False))
            weights = [w.placed(lambda old: moved.get(old, old)) for w in parse_weights(data.get("weights", ()))]
            config["data"] = {**data, "stores": list(map(str, priors)), "weights": list(map(str, weights))}
        else:
            config["target"] = str(paths[-1])
        sources = tuple(replace(source, store=path) for source, path in zip(self.sources, paths, strict=True))
        return replace(self, config=config, sources=sources)

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with this program's versions."""
        return {
            "record_version": RECORD_VERSION,
            "verb": self.verb,
            "config": dict(self.config),
            "spec": to_dict(self.spec),
            "split": {"mix": self.mix, "sources": [source.to_json() for source in self.sources]},
            "parent": self.parent,
            "ancestors": list(self.ancestors),
            "changes": list(self.changes),
            "wandb": self.wandb,
            "familiarity": None if self.familiarity is None else asdict(self.familiarity),
            "versions": versions(),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any], where: str) -> RunRecord:
        """The inverse of :meth:`to_json`; ``where`` names the place in errors.

        Raises:
            DataError: a key is missing, or a value is not what it must be.
        """
        try:
            record = RunRecord(
                verb=data["verb"],
                config=data["config"],
                spec=from_dict(PolicySpec, data["spec"], "spec"),
                mix=data["split"]["mix"],
                sources=tuple(from_dict(Split, data["split"], "split")["sources"]),
                parent=data["parent"],
                ancestors=tuple(data["ancestors"]),
                changes=tuple(data["changes"]),
                wandb=data["wandb"],
                familiarity=familiarity_in(data),
            )
            _check_config(record)
            return record
        except KeyError as error:
            raise DataError(f"{where}: the record of the run lacks {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{where}: {error}") from error


def _check_config(record: RunRecord) -> None:
    """Raises ValueError where a value of ``config`` is not an option, or not one of the options' values."""
    cls: Any = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}[record.verb]
    if "encoder_from" in record.config:
        cls = EncoderFinetuneConfig
    settled = {"learner", "rewards", "act"} - {field.name for field in fields(cls)}
    from_dict(cls, {name: value for name, value in record.config.items() if name not in settled}, "config")
    _ = record.learner, record.rewards, record.act


def versions() -> dict[str, str]:
    """Versions recorded with every run."""
    return {"ptr_fast": ptr_fast.__version__, "torch": torch.__version__, "python": platform.python_version()}


def recorded_sources(run: Mapping[str, Any], where: str = "the record of the run") -> list[SourceRecord]:
    """The sources of a record of either version (``CheckpointInfo.run``); none where it names none.

    Args:
        where: names the record's place in errors.

    Raises:
        DataError: the split is none.
    """
    try:
        return from_dict(Split, run.get("split") or {}, "split").get("sources", [])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
