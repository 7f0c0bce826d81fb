"""The Hugging Face Hub, by its own client ``huggingface_hub`` (the extra ``hub``)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ptr_robot.sharing.folder import FILES

__all__ = ["check_repo", "download", "hub_token", "upload"]

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_repo(repo: str) -> None:
    """Refuses what is no name of a repository.

    Raises:
        ValueError: it is none.
    """
    if not _REPO.fullmatch(repo):
        raise ValueError(f"repo: expected OWNER/NAME, got {repo!r}")


def hub_token() -> str:
    """The token of the environment (HF_TOKEN), or else of the client's login; empty where there is none.

    Raises:
        RuntimeError: ``huggingface_hub`` is missing.
    """
    return os.environ.get("HF_TOKEN", "") or _client().get_token() or ""


def upload(folder: Path, repo: str, token: str, *, private: bool, message: str) -> str:
    """Makes the repository where there is none, and puts the folder's files there; returns where they are.

    Raises:
        RuntimeError: ``huggingface_hub`` is missing, or the Hub refused; says why.
    """
    hub = _client()
    try:
        api = hub.HfApi(token=token)
        api.create_repo(repo_id=repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message=message, allow_patterns=list(FILES))
    except Exception as error:  # of the client, of the library that speaks HTTP for it, or of the system
        raise RuntimeError(f"{repo}: the Hub did not take it ({_first_line(error)})") from error
    return f"https://huggingface.co/{repo}"


def download(repo: str, revision: str, token: str, folder: Path) -> None:
    """Fetches the files that a shared checkpoint may have, and no others.

    Raises:
        RuntimeError: ``huggingface_hub`` is missing, or the Hub has no such repository, or not for this token.
    """
    hub = _client()
    try:
        hub.snapshot_download(
            repo_id=repo,
            revision=revision or None,
            token=token or False,
            local_dir=str(folder),
            allow_patterns=list(FILES),
        )
    except Exception as error:  # as in upload
        raise RuntimeError(f"{repo}: cannot be fetched from the Hub ({_first_line(error)})") from error


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise RuntimeError(f"{error}: pip install 'ptr-fast[hub]'") from error
    return huggingface_hub


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
