"""The device that a process works on, and which of the processes of a run it is."""

from __future__ import annotations

import os

import torch

from ptr_fast.runtime.engine import needs_cpu

__all__ = ["local_rank", "num_local_ranks", "pick_device", "world_size"]


def pick_device(name: str, engine: str = "auto") -> torch.device:
    """``auto`` takes the GPU where torch sees one; a process that torchrun started takes that of its number.

    Args:
        engine: of a policy that acts; with one of the CPU's ``auto`` is the CPU.

    Raises:
        RuntimeError: a GPU was asked for and torch sees none, or fewer than there are processes on this machine.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("device cuda was asked for, but torch sees no GPU (see ptr-fast info)")
    if name == "cpu" or not torch.cuda.is_available() or (name == "auto" and needs_cpu(engine)):
        return torch.device("cpu")
    if world_size() == 1:
        return torch.device("cuda")
    if num_local_ranks() > torch.cuda.device_count():
        raise RuntimeError(
            f"torchrun started {num_local_ranks()} processes on this machine, and torch sees "
            f"{torch.cuda.device_count()} GPUs: start one process per GPU (--nproc-per-node)"
        )
    return torch.device("cuda", local_rank())


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise RuntimeError(f"the environment variable {name} is {text!r}; torchrun sets it to a number")
    return int(text)


def world_size() -> int:
    """Processes that torchrun started on all machines; 1 without it."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int:
    """Number of this process on its machine: the number of its GPU."""
    return _number("LOCAL_RANK", 0)


def num_local_ranks() -> int:
    """Processes of the run on this machine: they share its memory and cores."""
    return _number("LOCAL_WORLD_SIZE", 1)
