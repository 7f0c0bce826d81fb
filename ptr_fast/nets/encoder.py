"""The image encoder: trunk, pooling, bottleneck.

Note "Precision". Weights are kept, and their gradients summed, in float32. The trunk computes in the dtype of the
images it is given: bfloat16 images make every convolution run on bfloat16 copies of its weights, with float32
statistics in every norm. Pooling reads the last feature map as it is; what it computes and all that follows
(bottleneck, heads, losses) is float32.

Source: PTR, ``jaxrl2/networks/encoders/networks.py:PixelMultiplexerEncoder`` (Dense, LayerNorm, tanh).
"""

from __future__ import annotations

import torch
from torch import nn

from ptr_fast.config import EncoderConfig
from ptr_fast.nets.init import xavier_normal_
from ptr_fast.nets.layers import Conv2d, Dense
from ptr_fast.nets.pooling import SpatialEmbedding, make_pooling
from ptr_fast.nets.resnet import Conv3, ResNet

__all__ = ["Encoder", "ImageEncoder", "NoEncoder"]


class ImageEncoder(nn.Module):
    """Images to embeddings in [-1, 1].

    Args:
        config: trunk, pooling and width.
        height, width: size of the images, pixels; the learned spatial embedding is made for this size alone.
    """

    def __init__(self, config: EncoderConfig, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        if config.name == "conv3":
            self.trunk: Conv3 | ResNet = Conv3(config.num_filters, config.num_groups)
        else:
            self.trunk = ResNet(config.name, config.num_filters, config.num_groups)
        size = self.trunk.map_size(height), self.trunk.map_size(width)
        self.pooling = make_pooling(config, self.trunk.num_channels, *size)
        self.dense = Dense(self.pooling.num_outputs, config.embedding_dim)
        self.norm = nn.LayerNorm(config.embedding_dim, eps=1e-6)

    @property
    def embedding_dim(self) -> int:
        return self.dense.out_features

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every weight, in the order of the modules, and lay convolution weights out channels_last."""
        for module in self.modules():
            if isinstance(module, Conv2d | SpatialEmbedding):
                module.initialise(generator)
        xavier_normal_(self.dense.weight, generator)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Embed images.

        Args:
            images_BCHW: ``[B, 3, H, W]`` in [0, 1], channels_last in memory for speed. Their dtype is that of the
                trunk's activations (note "Precision").

        Returns:
            ``[B, embedding_dim]`` in [-1, 1], in the dtype of the weights.

        Raises:
            ValueError: images of another size.
        """
        if images_BCHW.shape[1:] != (3, self.height, self.width):
            expected = f"[B, 3, {self.height}, {self.width}]"
            raise ValueError(f"encoder: expected images {expected}, got {tuple(images_BCHW.shape)}")
        pooled = self.pooling(self.trunk(images_BCHW)).to(self.dense.weight.dtype)
        return torch.tanh(self.norm(self.dense(pooled)))


class NoEncoder(nn.Module):
    """Embeddings of width 0, for learning from the state alone: whatever stands for the images is not looked at."""

    embedding_dim = 0

    def initialise(self, generator: torch.Generator) -> None:
        """There is nothing to draw."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float32 ``[B, 0]`` for a tensor of B rows."""
        return torch.empty((images.shape[0], 0), dtype=torch.float32, device=images.device)


Encoder = ImageEncoder | NoEncoder
