"""Three convolutions for small machines."""

from __future__ import annotations

import torch
from torch import nn

from ptr_fast.nets.encoders.image import Trunk
from ptr_fast.nets.layers import Conv2d, GroupNormAct

__all__ = ["Conv3"]


class Conv3(Trunk):
    """Three 3x3 convolutions of strides 2, 2, 1 with norm and ReLU (symmetric padding of 1: nothing is copied).

    Not from the reference: the encoder of the recipes that train on a CPU in minutes.
    """

    def __init__(self, num_filters: int, num_groups: int) -> None:
        super().__init__()
        widths = (3, num_filters, 2 * num_filters, 2 * num_filters)
        self.convs = nn.ModuleList(Conv2d(a, b, 3, s) for a, b, s in zip(widths, widths[1:], (2, 2, 1), strict=False))
        self.norms = nn.ModuleList(GroupNormAct(width, num_groups) for width in widths[1:])
        self.num_channels = widths[-1]

    def map_size(self, size: int) -> int:
        """Height or width of the feature map for images of that height or width."""
        return -(-size // 4)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        x = images_BCHW
        for conv, norm in zip(self.convs, self.norms, strict=True):
            assert isinstance(conv, Conv2d)
            x = norm(conv.convolve(x, 1))
        return x
