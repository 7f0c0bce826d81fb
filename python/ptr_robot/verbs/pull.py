"""Fetch a checkpoint that was pushed, from the Hugging Face Hub or from a folder, and check every file of it.

Only JSON, text and safetensors are fetched; nothing is unpickled or run. Sizes and SHA-256 are those of its files.json,
and every network is filled once. That shows that it is whole, not who made it: --weights does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        source: OWNER/NAME on the Hugging Face Hub, or a folder that push wrote. Private ones need the environment's
            HF_TOKEN, or the login of huggingface_hub.
        out: The new folder: a checkpoint for act, finetune, rollout, serve and export.
        revision: Branch, tag or commit on the Hub. Default: the newest.
        weights: SHA-256 that its weights must have, as the card of the one that you trust tells it.
    """

    source: Annotated[str, tyro.conf.Positional]
    out: Path
    revision: str = ""
    weights: str = ""


def main(args: Args) -> int:
    """Fetches, checks, writes."""
    import os
    import shutil

    from ptr_fast.files import writing
    from ptr_robot.sharing.folder import FILES, check_shared, put_in_place
    from ptr_robot.sharing.hub import check_repo, download, hub_token

    if args.out.exists():
        raise ValueError(f"{args.out} exists already; name a new folder with --out")
    local = Path(args.source)
    is_local = (local / "files.json").is_file()
    if is_local and args.revision:
        raise ValueError(f"--revision is of a repository on the Hub, {local} is a folder")
    if not is_local:
        if local.exists() or args.source.startswith((".", "/")):
            raise ValueError(f"{local}: no folder that ptr-fast push wrote, files.json is missing")
        check_repo(args.source)
    elif local.resolve() in args.out.resolve().parents:
        raise ValueError(f"{args.out}: lies inside {local}, which stays as it is; name another folder with --out")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_name(f".{args.out.name}.{os.getpid()}.tmp")
    try:
        if is_local:
            check_shared(local, args.weights)
            with writing(args.out):
                for name in (name for name in FILES if (local / name).is_file()):
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(local / name, temporary / name)
        else:
            download(args.source, args.revision, hub_token(), temporary)
            shutil.rmtree(temporary / ".cache", ignore_errors=True)  # the client's notes of what it fetched
        info = check_shared(temporary, args.weights)
        put_in_place(temporary, args.out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    digest = "its weights are those that you named" if args.weights else "who made it, --weights would check"
    print(f"{args.out}: step {info.step}, every file as its files.json says; {digest}")
    return 0
