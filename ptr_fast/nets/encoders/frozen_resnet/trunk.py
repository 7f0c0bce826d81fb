"""torchvision's ResNet without its classifier, every BatchNorm folded into the convolution before it; never trained.

Source: He et al. 2016, "Deep residual learning for image recognition", as ``torchvision.models.resnet`` (in ResNet-50
the 3x3 convolution has the stride). Its BatchNorms act as in ``eval()``: on the statistics of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ptr_fast.errors import DataError
from ptr_fast.nets.encoders.frozen_resnet.weights import read_resnet
from ptr_fast.nets.encoders.image import Trunk

__all__ = ["FrozenResNet"]

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
# Mean and standard deviation of ImageNet's pixels in [0, 1]: what the files expect to be taken off.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrozenConv(nn.Module):
    """A convolution with bias that pads by half its kernel and computes in the dtype of its input."""

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.padding = stride, kernel // 2
        self.weight = nn.Parameter(torch.empty(num_out, num_in, kernel, kernel), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(num_out), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), self.stride, self.padding)


class FrozenBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 to four times the width, plus the (projected) input."""

    def __init__(self, num_in: int, width: int, stride: int, is_bottleneck: bool) -> None:
        super().__init__()
        num_out = 4 * width if is_bottleneck else width
        if is_bottleneck:
            convs = [FrozenConv(num_in, width, 1), FrozenConv(width, width, 3, stride), FrozenConv(width, num_out, 1)]
        else:
            convs = [FrozenConv(num_in, width, 3, stride), FrozenConv(width, width, 3)]
        for i, conv in enumerate(convs, start=1):
            self.add_module(f"conv{i}", conv)
        self.num_convs = len(convs)
        self.downsample = None if stride == 1 and num_in == num_out else FrozenConv(num_in, num_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.num_convs + 1):
            y = self.get_submodule(f"conv{i}")(y)
            y = y.relu() if i < self.num_convs else y
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class FrozenResNet(Trunk):
    """Images to feature maps, without a gradient.

    Args:
        depth: 18, 34 or 50.
        weights, sha256, input_size: see :class:`ptr_fast.nets.encoders.frozen_resnet.FrozenResNetOptions`.

    Attributes:
        awaits: why there are no weights yet; a checkpoint's, once loaded, set it to None.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, depth: int, weights: Path, sha256: str = "", input_size: int = 0) -> None:
        super().__init__()
        self.depth, self.weights, self.sha256, self.input_size = depth, weights, sha256, input_size
        self.awaits: str | None = f"{weights}: not read yet"
        self.conv1 = FrozenConv(3, 64, 7, 2)
        num_in, is_bottleneck = 64, depth == 50
        for i, num_blocks in enumerate(STAGES[depth]):
            width, blocks = 64 * 2**i, []
            for j in range(num_blocks):
                blocks.append(FrozenBlock(num_in, width, 2 if i > 0 and j == 0 else 1, is_bottleneck))
                num_in = 4 * width if is_bottleneck else width
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.num_channels = num_in
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def map_size(self, size: int) -> int:
        """A 32nd of the side, rounded up."""
        return -(-(self.input_size or size) // 32)

    def initialise(self, generator: torch.Generator) -> None:
        """Reads the file; nothing is drawn.

        Where the file is gone, or is another one than was recorded, the weights have to come from a checkpoint: the net
        waits for them, and refuses to compute before.

        Raises:
            DataError: the file does not hold this net; it is named, and what is wrong.
        """
        state, self.awaits = read_resnet(self.weights, self.sha256)
        if state is not None:
            self._check(state)
            self.load_state_dict(state)

    def _check(self, state: dict[str, torch.Tensor]) -> None:
        own = self.state_dict()
        for name in sorted(own.keys() ^ state.keys()):
            told = "has no" if name in own else "has a"
            raise DataError(f"{self.weights}: not a ResNet-{self.depth}: it {told} {name.removesuffix('.weight')}")
        for name, value in own.items():
            if value.shape != state[name].shape:
                raise DataError(
                    f"{self.weights}: not a ResNet-{self.depth}: expected {name} {list(value.shape)}, got "
                    f"{list(state[name].shape)}"
                )

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self.awaits = None

    @torch.no_grad()
    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        if self.awaits is not None:
            raise RuntimeError(f"encoder: weights are missing: {self.awaits}")
        x = images_NCHW
        if self.input_size:
            x = F.interpolate(x, (self.input_size, self.input_size), mode="bilinear", antialias=False)
        x = (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
        x = F.max_pool2d(self.conv1(x).relu(), 3, 2, 1)
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
        return x
