"""Gradients of weights and state terms from those of every row, for kernels that write each row's: triton and cuda.

A block of states has at most ``BLOCK_ROWS`` rows of 8 * sum(hidden widths) bytes: 200 MB for three layers of 256. The
products are PyTorch's, added up over the blocks in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

__all__ = ["BLOCK_ROWS", "add_sums", "blocks_of_states"]

BLOCK_ROWS = 32_768


def blocks_of_states(num_heads: int, num_states: int, num_samples: int) -> Iterator[slice]:
    """The states, a block after the other."""
    block = max(1, BLOCK_ROWS // (num_heads * num_samples))
    for first in range(0, num_states, block):
        yield slice(first, min(num_states, first + block))


def add_sums(
    num_layers: int,
    sums: list[torch.Tensor | None],
    actions_RA: torch.Tensor,
    g_ER1: torch.Tensor,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    states: slice,
) -> None:
    """Adds a block's share of the gradients, in place.

    Args:
        sums: gradients of state terms, action weights and hidden weights, each a layer after the other; None where one
            is not wanted.
        actions_RA: of the rows of the block.
        g_ER1: gradient of Q.
        rows: of each hidden layer ``h`` and its gradient before the ReLU ``[E, R, H]``.
        states: of the block.
    """
    E = g_ER1.shape[0]
    before: torch.Tensor | None = None
    for i in range(num_layers):
        h_ERH, d_ERH = rows[i] if i < len(rows) else (None, g_ER1)
        dterm, daction = sums[i], sums[num_layers + i]
        if dterm is not None:
            if dterm.shape[1] == 1:
                dterm += d_ERH.sum(dim=1, keepdim=True)
            else:
                dterm[:, states] = d_ERH.view(E, states.stop - states.start, -1, d_ERH.shape[2]).sum(dim=2)
        if daction is not None:
            daction += torch.bmm(actions_RA.t().expand(E, -1, -1), d_ERH)
        if i > 0:
            dhidden = sums[2 * num_layers + i - 1]
            if dhidden is not None and before is not None:
                dhidden += torch.bmm(before.transpose(1, 2), d_ERH)
        before = h_ERH
