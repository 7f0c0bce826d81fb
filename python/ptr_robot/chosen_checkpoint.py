"""The checkpoint that a verb was given; told in a line where its path does not name it or it is unfit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from ptr_fast.errors import DataError
from ptr_fast.run_folder import choose_checkpoint

__all__ = ["chosen_checkpoint"]


def chosen_checkpoint(path: Path, *, moves_an_arm: bool = False, to: TextIO | None = None) -> Path:
    """The folder of the checkpoint that ``path`` means (:func:`ptr_fast.run_folder.choose_checkpoint`).

    Args:
        moves_an_arm: refuse one that diverged or that select excluded, unless the path names it by its step.
        to: where the line goes; None is standard error.

    Raises:
        DataError: there is none, or none that may move an arm.
    """
    choice = choose_checkpoint(path)
    if choice.unfit and moves_an_arm and not choice.is_named:
        raise DataError(
            f"{path}: no checkpoint here is fit to move an arm: step {choice.step} ({choice.why}) {choice.unfit}; "
            f"to take it all the same name it by its step: {choice.path}"
        )
    if choice.unfit or not choice.is_named:
        but = f", but it {choice.unfit}" if choice.unfit else ""
        print(f"{path} is step {choice.step}: {choice.why}{but}", file=to or sys.stderr, flush=True)
    return choice.path
