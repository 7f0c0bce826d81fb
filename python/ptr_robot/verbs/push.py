"""Write a checkpoint as a folder with a model card, and push it to the Hugging Face Hub where a token is given.

The card says what the run's own files say: what it was trained on, held-out metrics, trials with their intervals, and
what is not known. Weights are safetensors, all else is JSON; stores and runs are named without the places of this
machine. Without a token, or without the package of the Hub, folder and card are written all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        run: Run (the checkpoint that select picked, else the newest that has not diverged), or one checkpoint.
        out: The new folder. Default: outputs/shared/RUN-STEP.
        repo: OWNER/NAME on the Hugging Face Hub. The environment's HF_TOKEN is used, or the login of huggingface_hub.
        public: Make a new repository public. Default: private.
        name: Title of the card. Default: the run's name.
        license: Identifier of the licence that you give it, e.g. mit or cc-by-4.0. Default: the card says that it is
            unknown.
        notes: Markdown file of your own, for the top of the card: what only you know.
        trials: Result of rollout (a JSON file, or a folder of trials on a robot) to tell of, repeat for several. Those
            in the run's rollouts are told without this.
    """

    run: Path
    out: Path | None = None
    repo: str = ""
    public: bool = False
    name: str = ""
    license: str = ""
    notes: Path | None = None
    trials: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()


def main(args: Args) -> int:
    """Writes the folder, pushes it."""
    from ptr_fast.checkpoint import read_checkpoint
    from ptr_fast.run_folder import choose_checkpoint
    from ptr_robot.chosen_checkpoint import chosen_checkpoint
    from ptr_robot.sharing.card import model_card, read_trials
    from ptr_robot.sharing.folder import CARD, write_shared
    from ptr_robot.sharing.hub import check_repo, hub_token, upload

    if args.repo:
        check_repo(args.repo)
    choice = choose_checkpoint(args.run)
    info = read_checkpoint(chosen_checkpoint(args.run))
    run = info.path.parent.parent if info.path.parent.name == "checkpoints" else info.path
    notes = _text(args.notes) if args.notes else ""
    own = sorted((run / "rollouts").glob("*.json"))
    trials = read_trials(own, info, must_match=False)
    given = [file for file in args.trials if file.resolve() not in {each.resolve() for each in own}]
    trials += read_trials(given, info, must_match=True)
    name = args.name or run.name
    card = model_card(info, choice, trials, name=name, license_name=args.license, notes=notes)
    folder = args.out or Path("outputs/shared") / f"{run.name}-{info.step:06d}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_shared(info, card, folder)
    print(f"wrote {folder} (step {info.step}, {len(trials)} results of trials on the card {folder / CARD})", flush=True)
    if not args.repo:
        return 0
    token = hub_token()
    if not token:
        raise RuntimeError(f"{args.repo}: not pushed, there is no token: set HF_TOKEN, or run 'hf auth login'")
    where = upload(folder, args.repo, token, private=not args.public, message=f"{name}, step {info.step}")
    print(f"pushed to {where}")
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected Markdown in UTF-8 ({error})") from error
