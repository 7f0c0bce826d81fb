"""From the last feature map ``[B, C, H, W]``, bfloat16 or wider, to one vector per image, float32 or wider."""

from __future__ import annotations

import torch
from torch import nn

from ptr_fast.config import EncoderConfig
from ptr_fast.kernels.spatial_embedding import spatial_embedding
from ptr_fast.nets.init import lecun_normal_

__all__ = ["MeanPool", "SpatialEmbedding", "SpatialSoftmax", "make_pooling"]


class SpatialEmbedding(nn.Module):
    """Learned spatial embedding; output index ``c * F + f``.

    Args:
        num_channels, height, width: of the feature map.
        num_features: F, features per channel.
    """

    def __init__(self, num_channels: int, height: int, width: int, num_features: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(num_channels, height * width, num_features))
        self.num_outputs = num_channels * num_features

    def initialise(self, generator: torch.Generator) -> None:
        """LeCun normal with the reference's fan-in, which counts pixels and channels."""
        lecun_normal_(self.kernel, self.kernel.shape[0] * self.kernel.shape[1], generator)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return spatial_embedding(x_BCHW, self.kernel)


class SpatialSoftmax(nn.Module):
    """Expected coordinates of every channel under the softmax of its map; output ``[B, 2 * C]``, x first, in [-1, 1].

    Source: Levine et al. 2016, "End-to-end training of deep visuomotor policies"; temperature 1.
    """

    def __init__(self, num_channels: int, height: int, width: int) -> None:
        super().__init__()
        self.positions: torch.Tensor
        y, x = torch.meshgrid(torch.linspace(-1.0, 1.0, height), torch.linspace(-1.0, 1.0, width), indexing="ij")
        self.register_buffer("positions", torch.stack([x.flatten(), y.flatten()], dim=1), persistent=False)
        self.num_outputs = 2 * num_channels

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        expected_BC2 = x_BCHW.flatten(2).to(self.positions.dtype).softmax(dim=2) @ self.positions
        return expected_BC2.transpose(1, 2).flatten(1)


class MeanPool(nn.Module):
    """Mean over the map; output ``[B, C]``."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_outputs = num_channels

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW.to(torch.promote_types(x_BCHW.dtype, torch.float32)).mean(dim=(2, 3))


def make_pooling(
    config: EncoderConfig, num_channels: int, height: int, width: int
) -> SpatialEmbedding | SpatialSoftmax | MeanPool:
    """The pooling that ``config.pooling`` names, for a map of that size."""
    if config.pooling == "spatial_embedding":
        return SpatialEmbedding(num_channels, height, width, config.num_spatial_blocks)
    if config.pooling == "spatial_softmax":
        return SpatialSoftmax(num_channels, height, width)
    return MeanPool(num_channels)
