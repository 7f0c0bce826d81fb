"""Other runs that a learner's configuration refers to, settled when a training begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ptr_fast.checkpoint import read_checkpoint, weights_digest
from ptr_fast.config import LearnerConfig, RunReference
from ptr_robot.chosen_checkpoint import chosen_checkpoint

__all__ = ["settled", "with_references"]


def with_references(config: LearnerConfig, words: Sequence[str]) -> LearnerConfig:
    """The configuration with other runs in place of some that it refers to; to be :func:`settled`.

    Args:
        words: ``NAME=RUN``, the name being a field of the configuration.

    Raises:
        ValueError: another form, or a field that refers to no run; with those that do.
    """
    known = [field.name for field in fields(config) if isinstance(getattr(config, field.name), RunReference)]
    changed: dict[str, Any] = {}
    for word in words:
        name, equals, run = word.partition("=")
        if not equals or not run or name not in known or name in changed:
            told = f"this learner refers to {', '.join(known) or 'no other run'}"
            raise ValueError(f"references: expected NAME=RUN, each name once, got {word!r}; {told}")
        changed[name] = RunReference(path=Path(run))
    return replace(config, **changed)


def settled(config: LearnerConfig, left: LearnerConfig | None = None) -> LearnerConfig:
    """The configuration with the checkpoint that every reference means, and the digest of its weights.

    Args:
        left: of the run that a branch leaves: references that are still its own were settled when it began.

    Raises:
        ValueError: a reference that names no run.
        DataError: no checkpoint there, or a damaged one.
    """
    changed: dict[str, Any] = {}
    for field in fields(config):
        reference = getattr(config, field.name)
        if not isinstance(reference, RunReference) or reference == getattr(left, field.name, None):
            continue
        option = f"--learner.{field.name.replace('_', '-')}.path"
        if reference.path == Path():
            raise ValueError(f"learner.{field.name}.path: this learner needs another run: name it with {option} RUN")
        info = read_checkpoint(chosen_checkpoint(reference.path, to=sys.stdout))
        changed[field.name] = RunReference(path=info.path, weights=weights_digest(info))
    return replace(config, **changed) if changed else config
