"""What a CUDA graph does, on the CPU: Python runs once, its tensor ops are recorded, a replay repeats them in place.

Every op is kept with the very tensors that it read and wrote, and a replay writes into the same ones. What a graph
cannot hold raises when it is recorded: reading a value back, shapes that depend on values, a tensor made from Python
numbers, a random generator.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ptr_fast.cuda_graph import copy_batch
from ptr_fast.types import Batch

READS_BACK = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique_dim", "_unique2"}
READS_BACK |= {"unique_consecutive", "unique_dim_consecutive", "repeat_interleave", "bincount", "histc"}
DRAWS = {"uniform_", "normal_", "random_", "bernoulli", "bernoulli_", "rand", "randn", "randint", "randperm"}
DRAWS |= {"multinomial", "native_dropout", "exponential_"}
UPLOADS = {"lift_fresh"}
METHODS = {"item", "tolist", "numpy", "cpu", "pin_memory", "nonzero", "__bool__", "__int__", "__float__"}
METHODS |= {"__index__", "__array__", "__dlpack__", "__contains__", "cuda"}


class NotCapturableError(RuntimeError):
    """What a CUDA graph cannot hold; the same kind of error as torch's own."""


class _Methods(TorchFunctionMode):
    """Refuses the ways to a value that do not pass the dispatcher."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in METHODS:
            raise NotCapturableError(f"Tensor.{name} in a captured step")
        return func(*args, **(kwargs or {}))


class _Ops(TorchDispatchMode):
    """Refuses ops that cannot be captured, and records the others where there is a tape."""

    def __init__(self, tape: list | None) -> None:
        super().__init__()
        self.tape = tape

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        by_mask = name.startswith("index") and any(
            isinstance(t, torch.Tensor) and t.dtype in (torch.bool, torch.uint8) for t in tree_leaves(args[1:2])
        )
        if name in READS_BACK | DRAWS | UPLOADS or by_mask:
            raise NotCapturableError(f"{func} in a captured step")
        out = func(*args, **kwargs)
        if self.tape is not None:
            self.tape.append((func, args, kwargs, out))
        return out


@contextmanager
def capturable(tape: list | None = None):
    """Only what a CUDA graph can hold runs inside the block."""
    with _Methods(), _Ops(tape):
        yield


class TapeRecorder:
    """See :class:`ptr_fast.cuda_graph.Recorder`.

    The capture has to run the ops to know them; what they changed is put back.
    """

    def __init__(self, state: Callable[[], list[torch.Tensor]]) -> None:
        self.state, self.num_replays, self.num_ops = state, 0, 0

    def fill(self, make: Callable[[], Batch], fixed: Batch | None) -> Batch:
        return copy_batch(make(), fixed)

    def warm_up(self, work: Callable[[], None]) -> None:
        with capturable():
            work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        tape: list = []
        before = [(tensor, tensor.detach().clone()) for tensor in self.state()]
        with capturable(tape):
            work()
        with torch.no_grad():
            for tensor, values in before:
                tensor.copy_(values)
        self.num_ops = len(tape)

        @torch.no_grad()
        def replay() -> None:
            self.num_replays += 1
            for func, args, kwargs, out in tape:
                returns = func._schema.returns
                is_view = returns and returns[0].alias_info is not None and not returns[0].alias_info.is_write
                if is_view:
                    continue  # it still looks at the storage that the replay has written
                again = func(*args, **kwargs)
                writes = any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments)
                if writes:
                    continue
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old is not new:
                        old.copy_(new)

        return replay


class DirectRecorder:
    """The work itself in place of a graph."""

    def fill(self, make: Callable[[], Batch], fixed: Batch | None) -> Batch:
        return copy_batch(make(), fixed)

    def warm_up(self, work: Callable[[], None]) -> None:
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        return work
