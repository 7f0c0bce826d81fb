"""The choice of three frames and the loss of time contrast, as pure functions.

Shapes: B samples of this rank, W of all ranks, T frames of a window, D embedding.
Source: Nair et al. 2022, "R3M: A universal visual representation for robot manipulation", and its ``trainer.py``.
"""

from __future__ import annotations

import torch

__all__ = ["distance", "three_frames", "time_loss"]


def three_frames(mask_BT: torch.Tensor, uniform_B3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of three frames in a window, earlier to later.

    The middle one is drawn evenly among those that have a neighbour on either side, the earlier one among all before
    it, the later one among all after it.

    Args:
        mask_BT: bool, False in front, where the first frame of the episode is repeated.
        uniform_B3: uniform in [0, 1).

    Returns:
        int64 ``[B, 3]``, and bool ``[B]``: there were three. Where there were not, the places are the window's last.
    """
    num_B, num_places = mask_BT.sum(dim=1), mask_BT.shape[1]
    enough_B = num_B >= 3
    num_B = num_B.clamp(min=3)
    first_B = num_places - num_B

    def drawn(column: int, count_B: torch.Tensor) -> torch.Tensor:
        return (uniform_B3[:, column].double() * count_B).long()

    middle_B = 1 + drawn(1, num_B - 2)
    earlier_B = drawn(0, middle_B)
    later_B = middle_B + 1 + drawn(2, num_B - 1 - middle_B)
    return first_B[:, None] + torch.stack([earlier_B, middle_B, later_B], dim=1), enough_B


def distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Euclidean distance along the last axis; its gradient at zero is zero."""
    square = (one - other).square().sum(dim=-1)
    apart = square > 0
    return torch.where(apart, square.where(apart, torch.ones_like(square)).sqrt(), torch.zeros_like(square))


def time_loss(embedding_B3D: torch.Tensor, all_W3D: torch.Tensor, mine: slice, num_negatives: int) -> torch.Tensor:
    """Loss ``[B]``, nats, with similarity S = minus the distance, of embeddings z0, z1, z2 in the order of time.

    The mean of -log e^S(z1, z2) / (e^S(z0, z2) + e^S(z1, z2) + sum_n e^S(z2, n2)) and its mirror image
    -log e^S(z0, z1) / (e^S(z0, z2) + e^S(z0, z1) + sum_n e^S(z0, n0)), where n0 and n2 are the earlier and the later
    frames of the samples that follow in the batch. Deviation: R3M permutes the batch at random, so that a sample may
    meet itself.

    Args:
        embedding_B3D: of this rank's samples.
        all_W3D: of all ranks' samples.
        mine: which of all samples are this rank's.
        num_negatives: at most so many samples that follow.
    """
    num_others = min(num_negatives, len(all_W3D) - 1)
    others = [all_W3D.roll(-step, 0)[mine] for step in range(1, 1 + num_others)]
    earlier, middle, later = (embedding_B3D[:, i] for i in range(3))
    across_B = -distance(earlier, later)

    def one_sided(near_B: torch.Tensor, end: int) -> torch.Tensor:
        others_BN = [-distance(embedding_B3D[:, end], other_B3D[:, end]) for other_B3D in others]
        return torch.stack([across_B, near_B, *others_BN], dim=1).logsumexp(dim=1) - near_B

    return 0.5 * (one_sided(-distance(middle, later), 2) + one_sided(-distance(earlier, middle), 0))
