"""One learner trained by several processes, each on its share of every batch.

Note "Ranks". Rank r of W holds the samples r, r + W, r + 2 W, ... of every batch, W equal shares. All losses are means
over samples, so the mean over ranks of a gradient or of a reported mean is that of the whole batch; and the random
numbers of a sample follow from its number in the whole batch. A run of W ranks is therefore the run of one process, up
to the order of sums of floats, and its checkpoints know nothing of W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["Ranks"]


class Ranks:
    """This process among those that train one learner together (note "Ranks").

    Every method but :meth:`samples` is collective: all ranks call it, in the same order. Alone, none does anything.

    Args:
        rank, world_size: of this process in the default process group, which stands already if ``world_size`` is
            above 1; default: alone.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, {world_size}), got {rank}")
        self.rank, self.world_size = rank, world_size
        self._vote: tuple[torch.Tensor, Any] | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def samples(self, num_mine: int) -> range:
        """Numbers in the whole batch of this rank's ``num_mine`` samples."""
        return range(self.rank, num_mine * self.world_size, self.world_size)

    def backward_of(self, parameters: Sequence[nn.Parameter]) -> Callable[[torch.Tensor], None]:
        """The backward pass of a loss on these parameters: leaves the mean of the gradients over all ranks in them.

        The reduction is DistributedDataParallel's: in buckets, while the backward pass still computes the others. Every
        parameter must take part in the loss.
        """
        if self.world_size == 1:
            return torch.Tensor.backward
        engine = nn.parallel.DistributedDataParallel(
            _Parameters(parameters), gradient_as_bucket_view=True, init_sync=False
        )

        def backward(loss: torch.Tensor) -> None:
            engine()  # expects the gradients of all parameters from now on; where the loss came from is all the same
            loss.backward()

        return backward

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Mean over ranks of a tensor without gradient, of the same shape on every rank."""
        if self.world_size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.world_size

    def gather(self, value_BD: torch.Tensor) -> torch.Tensor:
        """Rows of all ranks, in the order of the samples of the whole batch; gradients flow back to every rank's own.

        Args:
            value_BD: of this rank's samples, as many as every other rank has.
        """
        return value_BD if self.world_size == 1 else _Gather.apply(value_BD, self.rank, self.world_size)

    def whole_batch(self, info: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What an update reports, of the whole batch instead of this rank's share.

        ``x_max`` and ``x_min`` are extremes, ``x_std`` the standard deviation about the mean ``x``; all others are
        means. What is not finite on one rank is not finite in the result.
        """
        if self.world_size == 1:
            return info
        mine = torch.stack([value.detach().to(torch.float64) for value in info.values()])
        gathered = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(gathered, mine)
        by_name = dict(zip(info, torch.stack(gathered, dim=1), strict=True))
        whole = {}
        for name, values_W in by_name.items():
            if name.endswith("_max"):
                whole[name] = values_W.amax()
            elif name.endswith("_min"):
                whole[name] = values_W.amin()
            elif name.endswith("_std"):
                means_W = by_name[name.removesuffix("_std")]
                whole[name] = (values_W.square().mean() + means_W.var(correction=0)).sqrt()
            else:
                whole[name] = values_W.mean()
        return whole

    def check_equal(self, networks: dict[str, nn.Module]) -> None:
        """Compares the weights of all ranks, bit by bit.

        Raises:
            RuntimeError: naming a network that differs; on every rank.
        """
        if self.world_size == 1:
            return
        sums = torch.stack([_checksum(network) for network in networks.values()])
        gathered = [torch.empty_like(sums) for _ in range(self.world_size)]
        dist.all_gather(gathered, sums)
        table = torch.stack(gathered).cpu()
        for column, name in enumerate(networks):
            differing = (table[:, column] != table[0, column]).nonzero().flatten().tolist()
            if differing:
                raise RuntimeError(
                    f"the weights of {name} on rank {', '.join(map(str, differing))} differ from those on rank 0: "
                    "every process needs the same stores, checkpoint, configuration and versions"
                )

    def broadcast(self, networks: dict[str, nn.Module]) -> None:
        """Gives the first rank's parameters and buffers to all."""
        if self.world_size == 1:
            return
        for network in networks.values():
            for value in network.state_dict().values():
                dist.broadcast(value, 0)

    def largest(self, number: float) -> float:
        """The largest of one number of every rank."""
        if self.world_size == 1:
            return number
        value = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return float(value)

    def largest_until_now(self, number: int) -> int:
        """The largest number that any rank gave, one call late: what was given in this call counts in the next one.

        So nobody waits: the exchange goes on behind the step, on the host alone.
        """
        if self.world_size == 1:
            return number
        seen = 0
        if self._vote is not None:
            ballot, work = self._vote
            work.wait()
            seen = int(ballot)
        ballot = torch.tensor(number)
        self._vote = ballot, dist.all_reduce(ballot, dist.ReduceOp.MAX, async_op=True)
        return seen

    def on_first(self, action: Callable[[], Any]) -> None:
        """Runs an action on rank 0 while the others wait for it.

        Raises:
            SystemExit: 2, on the other ranks, where it failed on rank 0 (which raises what the action raised).
        """
        if self.world_size == 1:
            action()
            return
        done = torch.zeros(())
        try:
            if self.is_first:
                action()
                done += 1
        finally:
            dist.broadcast(done, 0)
        if not done:
            raise SystemExit(2)


class _Gather(torch.autograd.Function):
    """All ranks' rows, interleaved as note "Ranks" says; the gradient of a row is the sum of all ranks'."""

    @staticmethod
    def forward(ctx: Any, value_BD: torch.Tensor, rank: int, world_size: int) -> torch.Tensor:
        ctx.rank, ctx.world_size = rank, world_size
        gathered = [torch.empty_like(value_BD) for _ in range(world_size)]
        dist.all_gather(gathered, value_BD.contiguous())
        return torch.stack(gathered, dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        total = grad.clone()
        dist.all_reduce(total)
        return total[ctx.rank :: ctx.world_size], None, None


class _Parameters(nn.Module):
    """What DistributedDataParallel is told of a learner: parameters; its forward pass is elsewhere."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.parameters_of_loss = nn.ParameterList(parameters)

    def forward(self) -> None:
        return None


def _checksum(network: nn.Module) -> torch.Tensor:
    """int64, 0-d: the sum of all bit patterns, each tensor's weighed by its place."""
    words = {8: torch.int64, 4: torch.int32, 2: torch.int16}
    values = [value.detach() for value in network.state_dict().values() if value.element_size() in words]
    sums = [value.contiguous().view(words[value.element_size()]).sum() for value in values]
    return torch.stack([place * part for place, part in enumerate(sums, start=1)]).sum()
