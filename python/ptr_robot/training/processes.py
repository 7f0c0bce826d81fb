"""What a training run stands on: device, threads, precision, the other processes of the run, and the wish to stop.

Many processes: ``torchrun ... -m ptr_robot pretrain ...`` makes every process join the others.

torchrun tells a process who it is (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``); nothing else does, and
without it a run is one process. Rank 0 writes and prints; errors of the others carry their rank.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from ptr_fast import native
from ptr_fast.kernels import dispatch
from ptr_fast.learners.distributed import Ranks
from ptr_robot.device import _number, local_rank, pick_device, world_size
from ptr_robot.training.config import LoopConfig
from ptr_robot.training.precision import resolve_precision, set_matmul_precision

__all__ = [
    "StopRequest",
    "branch_command",
    "choose_kernels",
    "is_lost_contact",
    "joined",
    "leave",
    "only_first_speaks",
    "prepare_process",
    "resume_command",
]

_LOST = ("connection closed by peer", "connection reset", "gloo", "nccl", "timed out", "broken pipe", "socket")


def prepare_process(loop: LoopConfig, takes_bfloat16: bool = True) -> tuple[LoopConfig, torch.device]:
    """Sets this process up for a learner: CPU threads, memory that is kept for the next step, precision, kernels.

    Args:
        loop: of the run.
        takes_bfloat16: the learner's encoders can train in bfloat16.

    Returns:
        The configuration with its precision settled, and the device.

    Raises:
        ValueError: a device, precision or kernel backend that cannot be had here.
    """
    if loop.num_threads:
        torch.set_num_threads(loop.num_threads)
    native.keep_freed_memory()
    device = pick_device(loop.device)
    dispatch.check_forced(device)
    precision = resolve_precision(loop.precision, device, takes_bfloat16)
    set_matmul_precision(precision)
    processes = f" by {world_size()} processes" if world_size() > 1 else ""
    kernels = f", {choose_kernels(loop.deterministic)}" if device.type == "cuda" else ""
    print(f"training on {device.type} in {precision}{kernels}{processes}")
    return replace(loop, precision=precision), device


def choose_kernels(deterministic: bool) -> str:
    """By what the libraries of a GPU choose their kernels, in words.

    By time, cuDNN measures its convolutions on the shapes of the first update and takes the fastest: another process
    may take others, and then differs in the last bits. Deterministic, it goes by rule, sums have one order, and an op
    that has no such kernel is an error. Our own kernels are deterministic either way.
    """
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it would write every tensor once more
    if not deterministic:
        return "the fastest convolutions by time"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts, which is later
    return "deterministic"


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a number that the loop looks at; the second one interrupts at once.

    With several ranks, all stop after the same update, whichever of them got the signal; a second one changes nothing:
    torchrun ends those that take too long.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.signal: int | None = None

    def agreed(self) -> int:
        """The signal that stops the run after this update, or 0; every rank calls this after every update."""
        return self.ranks.largest_until_now(self.signal or 0)

    def __enter__(self) -> StopRequest:
        self.previous = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _handle(self, number: int, _frame: object) -> None:
        alone = self.ranks.world_size == 1
        if self.signal is not None and alone:
            raise KeyboardInterrupt
        if self.signal is None and self.ranks.is_first:
            more = "; once more to stop at once" if alone else ""
            print(f"\nstopping after this update{more}", file=sys.stderr, flush=True)
        self.signal = number

    def __exit__(self, *_: object) -> None:
        if self.ranks.world_size == 1:  # else torchrun's signal may still come, and must not cut off what is said
            for number, handler in self.previous.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def joined(timeout_s: float) -> Iterator[Ranks]:
    """The ranks of this run; where there are several, connected inside the block: NCCL for GPUs, gloo for the host.

    Args:
        timeout_s: how long a rank waits for another one that is alive and does not answer. One that has died is noticed
            at once.

    Raises:
        RuntimeError: the processes do not find each other.
    """
    size = world_size()
    if size == 1:
        yield Ranks()
        return
    ranks = Ranks(_number("RANK", 0), size)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available() and local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(local_rank())
    try:
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RuntimeError(f"rank {ranks.rank} of {size} cannot join the others at {where}: {error}") from error
    try:
        with only_first_speaks():
            yield ranks
    except SystemExit as stop:  # rank 0 failed and says why
        leave(int(stop.code or 0))
    dist.barrier()  # nobody leaves, and makes torchrun end the others, while one is still writing
    dist.destroy_process_group()


@contextlib.contextmanager
def only_first_speaks() -> Iterator[None]:
    """What is printed inside the block is printed by rank 0 alone."""
    is_first = _number("RANK", 0) == 0
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(sys.stdout if is_first else nowhere):
        yield


def leave(code: int) -> None:
    """Ends this process where an error left it joined: a group with a dead member could hang on the way out."""
    if not dist.is_initialized():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_lost_contact(error: BaseException) -> bool:
    """Whether an error says that another rank has died or does not answer."""
    if isinstance(error, dist.DistError):
        return True
    return dist.is_initialized() and type(error) is RuntimeError and any(w in str(error).lower() for w in _LOST)


def _program() -> str:
    return "ptr-fast" if world_size() == 1 else "torchrun --nproc-per-node N -m ptr_robot"


def resume_command(out: Path) -> str:
    """What goes on with a run."""
    return f"{_program()} resume {shlex.quote(str(out))}"


def branch_command(verb: str, checkpoint: Path, out: Path, options: Sequence[str] = ()) -> str:
    """What goes on from a checkpoint in a new run with changed settings, to be pasted into a shell.

    Args:
        verb: of the run that the checkpoint is of.
        out: that run; the new one gets the first free name after it.
        options: the changes, e.g. ``["--learner.cql-alpha", "1"]``.
    """
    number = next(n for n in itertools.count(2) if not out.with_name(f"{out.name}-{n}").exists())
    words = [verb, "--from", str(checkpoint), "--out", str(out.with_name(f"{out.name}-{number}")), *options]
    return f"{_program()} {shlex.join(words)}"
