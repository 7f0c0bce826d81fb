"""Go on with a run that was stopped or killed: ``ptr-fast resume RUN``. The result equals the unbroken run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ptr_fast.checkpoint import list_checkpoints
from ptr_fast.config import from_dict
from ptr_fast.errors import DataError

__all__ = ["Args", "check_new", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        run: run folder, as given to --out.
        num_steps: a new total number of updates; 0 keeps the run's own.
        frames: where the frames lie from now on, as for ``pretrain``; ``same`` as until now. Changing to or from
            ``device-yuv420`` changes their pixels a little, and with them the result.
    """

    run: Annotated[Path, tyro.conf.Positional]
    num_steps: int = 0
    frames: Literal["same", "auto", "device", "device-yuv420", "host", "map", "jpeg"] = "same"


def main(args: Args) -> int:
    """Reads the run's configuration and trains on from its newest checkpoint."""
    from ptr_robot.finetune import finetune
    from ptr_robot.launch import joined
    from ptr_robot.pretrain import pretrain
    from ptr_robot.train import run_lock
    from ptr_robot.train_config import FinetuneConfig, PretrainConfig

    path = args.run / "train_config.json"
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{args.run}: no run here ({path.name} is missing)") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    kinds = {"pretrain": (PretrainConfig, pretrain), "finetune": (FinetuneConfig, finetune)}
    if not isinstance(record, dict) or record.get("verb") not in kinds or not isinstance(record.get("config"), dict):
        raise DataError(f"{path}: expected the keys 'config' and 'verb', one of {sorted(kinds)}")
    cls, train = kinds[record["verb"]]
    resolved = {"learner", "rewards"} - set(cls.__dataclass_fields__)  # a fine-tuning run records the checkpoint's
    values = {key: value for key, value in record["config"].items() if key not in resolved}
    config = replace(from_dict(cls, values, str(path)), out=args.run)
    if args.num_steps:
        config = replace(config, loop=replace(config.loop, num_steps=args.num_steps))
    if args.frames != "same":
        config = replace(config, loop=replace(config.loop, frames=args.frames))
    with joined(config.loop.rank_timeout_s) as ranks, run_lock(args.run, ranks):
        return train(config, ranks)


def check_new(out: Path) -> None:
    """Refuses a run folder that holds a run already.

    Raises:
        ValueError: with the command that goes on; or something else is in the folder.
    """
    if list_checkpoints(out) or (out / "train_config.json").exists():
        raise ValueError(f"{out}: there is a run here already; go on with: ptr-fast resume {out}")
    others = sorted(path.name for path in out.iterdir() if path.name != ".lock")
    if others:
        raise ValueError(f"{out}: expected a new or empty folder for the run, it has {', '.join(others[:5])}")
