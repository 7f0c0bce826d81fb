"""One ``ptr-fast`` command, what it waits for, and the key that says whether it has to run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Stage", "digest_of", "fill_in_keys"]

TRAININGS = ("pretrain", "finetune")


@dataclass
class Stage:
    """One command.

    Attributes:
        name: shown before its lines; also the name of its log. Stages of one folder have different names.
        verb: arguments of ``ptr-fast``.
        after: names of the stages that must have finished.
        accepts: exit codes that count as finished.
        makes: file or folder that is there afterwards. Where it is gone, a finished stage runs again if a later stage
            that has not finished needs it, or if no other stage waits for it at all. None: nothing is looked for.
        kind: stages of one kind take about as long per unit of work. Default: the verb.
        work: how much there is to do: updates, episodes or trials.
        key: changes when the command or anything it waits for changes, so that a finished stage runs again; filled in
            by :func:`fill_in_keys`.
    """

    name: str
    verb: list[str]
    after: list[str] = field(default_factory=list)
    accepts: tuple[int, ...] = (0,)
    makes: Path | None = None
    kind: str = ""
    work: float = 1.0
    key: str = ""

    def __post_init__(self) -> None:
        self.kind = self.kind or self.verb[0]

    @property
    def is_training(self) -> bool:
        """Whether it is a training, which a later start resumes."""
        return self.verb[0] in TRAININGS

    @property
    def uses_gpu(self) -> bool:
        """Whether it computes on a GPU where there is one."""
        return self.is_training or self.verb[0] in ("select", "evaluate")


def digest_of(verb: Sequence[str], keys: Sequence[str], root: Path) -> str:
    """Short digest of a command and of the keys of everything it waits for.

    Paths inside ``root`` count relative to it: a folder that was moved as a whole keeps its keys. ``--workers N`` does
    not count: how many processes make something does not change it.
    """
    counted = [w for before, w in zip(["", *verb], verb, strict=False) if "--workers" not in (before, w)]
    lineage = json.dumps([[word.replace(f"{root}/", "") for word in counted], list(keys)])
    return hashlib.sha256(lineage.encode()).hexdigest()[:16]


def fill_in_keys(stages: Sequence[Stage], root: Path) -> None:
    """Gives every stage its key.

    Raises:
        ValueError: two stages have one name, or a stage waits for one that does not stand before it.
    """
    keys: dict[str, str] = {}
    for stage in stages:
        if stage.name in keys:
            raise ValueError(f"two stages are called {stage.name!r}")
        if unknown := [name for name in stage.after if name not in keys]:
            raise ValueError(f"stage {stage.name!r} waits for {unknown[0]!r}, which does not stand before it")
        stage.key = keys[stage.name] = digest_of(stage.verb, [keys[name] for name in stage.after], root)
