"""A run folder: its checkpoints, and the one that it means.

Note "the checkpoint of a run": what ``ptr-fast select`` picked; where it picked none, the newest one that it did not
exclude and that the divergence check passes; where there is none of these either, the newest, and something speaks
against it. The check looks at the checkpoint's evaluation, and without one at the last numbers that training reported
before it was saved. Everything that takes a run folder takes this one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptr_fast.config import LearnerConfig, RewardConfig, from_dict
from ptr_fast.diagnostics import RANGE_SLACK
from ptr_fast.errors import DataError
from ptr_fast.json_files import parse_json, read_json
from ptr_fast.learners.divergence import reported_divergence

__all__ = [
    "DAMAGED_ADVICE",
    "MODEL",
    "Choice",
    "checkpoint_folder",
    "choose_checkpoint",
    "list_checkpoints",
    "picked_step",
    "remove_checkpoint",
    "remove_leftovers",
    "weights_of",
]

MODEL = "pretrained_model"
DAMAGED_ADVICE = "copy the checkpoint again, or delete its folder to go on without it"
UNKNOWN = "nothing here says whether it diverged"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which checkpoint a path means.

    Attributes:
        path: the folder named after the step.
        step: number of updates done.
        is_named: the path names this very checkpoint: nothing was chosen.
        why: which one it is and why, in a few words.
        unfit: what speaks against acting by it (it diverged, ``select`` excluded it); empty where nothing is known.
    """

    path: Path
    step: int
    is_named: bool
    why: str
    unfit: str


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    parent = Path(run_dir) / "checkpoints"
    return sorted((p for p in parent.glob("[0-9]*") if p.name.isdecimal() and p.is_dir()), key=lambda p: int(p.name))


def remove_checkpoint(path: Path) -> None:
    """Deletes a checkpoint; it disappears by one rename first, so that it is never seen half-deleted."""
    doomed = path.with_name(f".{path.name}.{os.getpid()}.removed")
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def remove_leftovers(run_dir: Path) -> None:
    """Deletes what a killed process left of checkpoints that it was saving or deleting; to be called under its lock."""
    for pattern in ("*/.[0-9]*.tmp", "*/.[0-9]*.removed"):
        for left in Path(run_dir).glob(pattern):
            shutil.rmtree(left)


def choose_checkpoint(path: Path | str) -> Choice:
    """The checkpoint that a path means: the named one, or of a run folder the note "the checkpoint of a run"'s.

    Args:
        path: a run folder, a checkpoint (``<run>/checkpoints/000500``, or ``last``), or its ``pretrained_model``.

    Raises:
        DataError: there is no checkpoint, or the selection is broken, or of a checkpoint that is gone or has changed.
    """
    path, is_run = _run_or_checkpoint(Path(path))
    return _choose(path) if is_run else _named(path)


def checkpoint_folder(path: Path | str) -> Path:
    """The folder of the checkpoint that a path means, as :func:`choose_checkpoint`; a named one is not looked into."""
    path, is_run = _run_or_checkpoint(Path(path))
    return _choose(path).path if is_run else path.resolve()


def _run_or_checkpoint(path: Path) -> tuple[Path, bool]:
    """A run's folder or a checkpoint's, and whether it is a run's."""
    if path.name == MODEL:
        path = path.parent
    is_run = (path / "checkpoints").is_dir()
    if not is_run and not (path / MODEL / "config.json").is_file():
        if path.parent.name == "checkpoints" and path.is_dir():
            raise DataError(f"{path}: not a whole checkpoint, {MODEL}/config.json is missing; {DAMAGED_ADVICE}")
        raise DataError(
            f"{path}: no checkpoint here; expected a run folder, or one like <run>/checkpoints/000500 "
            f"with {MODEL}/config.json"
        )
    return path, is_run


def _named(path: Path) -> Choice:
    folder, step, unfit = path.resolve(), _step(path), ""
    if folder.parent.name == "checkpoints":
        run = folder.parent.parent
        try:
            unfit = _read_selection(run).excluded.get(step) or _check(run, folder)[0]
        except DataError as error:  # of a file beside the checkpoints: a named one is taken without it
            unfit = f"could not be checked ({error})"
    elif folder.parent.name == "diverged":
        unfit = "was saved by the divergence alarm"
    is_named = path.name != "last"
    return Choice(
        path=folder, step=step, is_named=is_named, why="named" if is_named else "the last one saved", unfit=unfit
    )


def _choose(run: Path) -> Choice:
    found, selection = list_checkpoints(run), _read_selection(run)
    if not found:
        raise DataError(f"{run}: the run has no checkpoint yet")
    if selection.picked is not None:
        return _picked(run, found, selection)
    among = "the only checkpoint" if len(found) == 1 else f"the newest of {len(found)} checkpoints"
    unfit: dict[int, str] = {}
    for folder in reversed(found):
        reason, passed = selection.excluded.get(_step(folder), ""), ""
        if not reason:
            reason, passed = _check(run, folder)
        if not reason:
            passed_over = f" with nothing against it ({_words(unfit)})" if unfit else ""
            return _choice(folder, f"{among}{passed_over}; {passed}")
        unfit[_step(folder)] = reason
    return _choice(found[-1], among, unfit[_step(found[-1])])


def _picked(run: Path, found: list[Path], selection: _Selection) -> Choice:
    file = run / "selection.json"
    for folder in found:
        if _step(folder) == selection.picked:
            if selection.weights not in (None, weights_of(folder)):
                raise DataError(f"{file}: step {selection.picked} has other weights now; run ptr-fast select again")
            newer = sum(_step(other) > selection.newest for other in found)
            unseen = f", which did not see the {newer} newer" if newer else ""
            return _choice(folder, f"picked by ptr-fast select{unseen}")
    raise DataError(f"{file}: the selected checkpoint {selection.picked} is not in the run; run ptr-fast select again")


def _choice(folder: Path, why: str, unfit: str = "") -> Choice:
    return Choice(path=folder.resolve(), step=_step(folder), is_named=False, why=why, unfit=unfit)


def _words(unfit: dict[int, str]) -> str:
    """The newest ones that were passed over, with the reason."""
    shown = [f"step {step} {reason}" for step, reason in list(unfit.items())[:2]]
    return "; ".join([*shown, *([f"and {len(unfit) - 2} more"] if len(unfit) > 2 else [])])


@dataclass(frozen=True)
class _Selection:
    """What ``selection.json`` says: the step that was picked, of which weights, the newest one seen, what is out."""

    picked: int | None = None
    weights: str | None = None
    newest: int = 0
    excluded: dict[int, str] = field(default_factory=dict)


def picked_step(run: Path) -> int | None:
    """The step that ``ptr-fast select`` picked in a run, or None where it was not asked or found none fit."""
    return _read_selection(run).picked


def _read_selection(run: Path) -> _Selection:
    file = run / "selection.json"
    if not file.is_file():
        return _Selection()
    try:
        selection = parse_json(file.read_bytes())
        picked, ranking = selection["selected"], {int(e["step"]): e for e in selection.get("ranking", [])}
        there = {_step(folder): folder for folder in list_checkpoints(run)}
        excluded = {
            step: f"was excluded by ptr-fast select ({entry['excluded']})"
            for step, entry in ranking.items()
            if entry["excluded"] and step in there and entry.get("weights") in (None, weights_of(there[step]))
        }
        if picked is None and not ranking:
            excluded = dict.fromkeys(there, "was not fit to be selected")
        return _Selection(picked, ranking.get(picked, {}).get("weights"), max(ranking, default=picked or 0), excluded)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: not a selection ({error}); run ptr-fast select again") from error


def _check(run: Path, folder: Path) -> tuple[str, str]:
    """The divergence check of one checkpoint: what it found, or else what it passed."""
    evaluation = _evaluation(run, folder)
    if evaluation is not None:
        found = evaluation.get("diverged")
        return (f"diverged ({found})", "") if found else ("", "its evaluation passes the divergence check")
    step = _step(folder)
    row = _last_report(run / "metrics.jsonl", step)
    if row is None:
        return "", UNKNOWN
    found = reported_divergence(row, *_told(folder), RANGE_SLACK)
    where = f"training reported at step {row['step']:.0f}"
    passed = f"what {where} passes the divergence check"
    return (f"diverged ({where}: {found.reason})", "") if found else ("", passed)


def _evaluation(run: Path, folder: Path) -> dict[str, Any] | None:
    """What was written about this very checkpoint (older files do not say of which weights)."""
    file = run / "evaluation" / f"{folder.name}.json"
    if not file.is_file():
        return None
    evaluation = read_json(file)
    return evaluation if evaluation.get("weights") in (None, weights_of(folder)) else None


def _last_report(metrics: Path, step: int) -> dict[str, float] | None:
    """The numbers that training reported last before a step was saved."""
    if not metrics.is_file():
        return None
    last = None
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            row = parse_json(line)
            if row["step"] <= step:
                last = {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
        except (ValueError, KeyError, TypeError, OverflowError):
            break  # the line that a running or killed process was writing
    return last


def _told(folder: Path) -> tuple[RewardConfig, LearnerConfig]:
    """The rewards and the learner of a checkpoint.

    Raises:
        DataError: nobody has registered the learner, or its configuration is broken.
    """
    config = folder / MODEL / "config.json"
    rewards = read_json(folder / MODEL / "train_config.json").get("config", {}).get("rewards")
    try:
        learner = from_dict(LearnerConfig, read_json(config).get("learner"), "learner")
        return RewardConfig() if rewards is None else from_dict(RewardConfig, rewards, "rewards"), learner
    except ValueError as error:
        raise DataError(f"{config}: {error}") from error


def _step(folder: Path) -> int:
    return int(folder.name) if folder.name.isdecimal() else int(read_json(folder / MODEL / "config.json")["step"])


def weights_of(folder: Path) -> str:
    """As :func:`ptr_fast.checkpoint.weights_digest`, of a checkpoint's folder."""
    files = read_json(folder / "files.json")
    names = sorted(name for name in files if name.startswith(MODEL) and name.endswith(".safetensors"))
    return hashlib.sha256("".join(files[name]["sha256"] for name in names).encode()).hexdigest()
