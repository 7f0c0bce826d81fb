"""The reference's ResNet with un-strided last stages.

Shapes: B batch, C channels, H height, W width. A trunk maps images ``[B, 3, H, W]`` in [0, 1] to a feature map.
Source: PTR, ``jaxrl2/networks/encoders/resnet_encoderv1.py``. Deviation: none in arithmetic; the division by 255 is
part of the augmentation, which hands floats over.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ptr_fast.nets.encoders.image import Trunk
from ptr_fast.nets.layers import Conv2d, GroupNormAct, GroupNormActPool

__all__ = ["STAGE_SIZES", "ResNet"]

STAGE_SIZES = {
    "resnet_small": (1, 1, 1, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
}
# Stages 2 and 3 keep their size (torchvision halves it): a 128 px image ends as 16x16.
STAGE_STRIDES = (1, 2, 1, 1)


class BasicBlock(nn.Module):
    """conv3x3 - norm - ReLU - conv3x3 - norm, plus the (projected) input, ReLU."""

    expansion = 1

    def __init__(self, num_in: int, num_filters: int, stride: int, num_groups: int) -> None:
        super().__init__()
        self.conv0 = Conv2d(num_in, num_filters, 3, stride)
        self.norm0 = GroupNormAct(num_filters, num_groups)
        self.conv1 = Conv2d(num_filters, num_filters, 3)
        self.norm1 = GroupNormAct(num_filters, num_groups)
        self.projection = _projection(num_in, num_filters, stride, num_groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(self.norm0(self.conv0(x)))
        return self.norm1(y, *_shortcut(self.projection, x))


class BottleneckBlock(nn.Module):
    """conv1x1 - conv3x3 - conv1x1 to four times the width, each with norm; the last norm scale starts at 0."""

    expansion = 4

    def __init__(self, num_in: int, num_filters: int, stride: int, num_groups: int) -> None:
        super().__init__()
        num_out = num_filters * self.expansion
        self.conv0 = Conv2d(num_in, num_filters, 1)
        self.norm0 = GroupNormAct(num_filters, num_groups)
        self.conv1 = Conv2d(num_filters, num_filters, 3, stride)
        self.norm1 = GroupNormAct(num_filters, num_groups)
        self.conv2 = Conv2d(num_filters, num_out, 1)
        self.norm2 = GroupNormAct(num_out, num_groups, initial_scale=0.0)
        self.projection = _projection(num_in, num_out, stride, num_groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(self.conv1(self.norm0(self.conv0(x))))
        return self.norm2(self.conv2(y), *_shortcut(self.projection, x))


def _projection(num_in: int, num_out: int, stride: int, num_groups: int) -> nn.Sequential | None:
    if stride == 1 and num_in == num_out:
        return None
    return nn.Sequential(
        Conv2d(num_in, num_out, 1, stride),
        GroupNormAct(num_out, num_groups, activation="none"),
    )


def _shortcut(projection: nn.Sequential | None, x: torch.Tensor) -> tuple[torch.Tensor, GroupNormAct | None]:
    """The residual branch up to its norm, and that norm: it runs inside the block's last one."""
    if projection is None:
        return x, None
    conv, norm = projection
    assert isinstance(norm, GroupNormAct)
    return conv(x), norm


class ResNet(Trunk):
    """ResNet trunk: 7x7 stem of stride 2, 3x3 max-pool of stride 2, four stages of strides 1, 2, 1, 1.

    Args:
        name: key of ``STAGE_SIZES``; ``resnet50`` uses bottleneck blocks.
        num_filters: width of the stem and of stage 0; every later stage doubles it.
        num_groups: groups of every norm.
    """

    def __init__(self, name: str, num_filters: int, num_groups: int) -> None:
        super().__init__()
        block = BottleneckBlock if name == "resnet50" else BasicBlock
        self.stem_conv = Conv2d(3, num_filters, 7, 2)
        self.stem_norm = GroupNormActPool(num_filters, num_groups)
        self.stages = nn.ModuleList()
        num_in = num_filters
        for i, num_blocks in enumerate(STAGE_SIZES[name]):
            width, blocks = num_filters * 2**i, []
            for j in range(num_blocks):
                blocks.append(block(num_in, width, STAGE_STRIDES[i] if j == 0 else 1, num_groups))
                num_in = width * block.expansion
            self.stages.append(nn.Sequential(*blocks))
        self.num_channels = num_in

    def map_size(self, size: int) -> int:
        """Height or width of the feature map for images of that height or width."""
        for _ in range(3):  # stem, pool, stage 1
            size = -(-size // 2)
        return size

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        x = self.stem_norm(self._stem(images_BCHW))
        for stage in self.stages:
            x = stage(x)
        return x

    def stage_outputs(self, images_BCHW: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Every named intermediate map in order: ``stem_conv``, ``stem_pool``, ``block0``, ``stage0`` .. ``stage3``."""
        x = self._stem(images_BCHW)
        yield "stem_conv", x
        x = self.stem_norm(x)
        yield "stem_pool", x
        yield "block0", next(self.stages[0].children())(x)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            yield f"stage{i}", x

    def _stem(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """The stem pads by 3 on every side, not SAME."""
        return self.stem_conv.convolve(images_BCHW, 3)
