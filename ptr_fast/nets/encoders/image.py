"""The image encoder that most are: trunk, pooling, bottleneck.

Note "Precision". Weights are kept, and their gradients summed, in float32. The trunk computes in the dtype of the
images it is given: bfloat16 images make every convolution and dense layer run on bfloat16 copies of its weights, with
float32 statistics in every norm. Pooling reads the last feature map as it is; what it computes and all that follows
(bottleneck, heads, losses) is float32.

Source: PTR, ``jaxrl2/networks/encoders/networks.py:PixelMultiplexerEncoder`` (Dense, LayerNorm, tanh).
"""

from __future__ import annotations

import torch
from torch import nn

from ptr_fast.config import EncoderConfig
from ptr_fast.nets.encoders.base import Encoder
from ptr_fast.nets.encoders.pooling import make_pooling
from ptr_fast.nets.init import xavier_normal_
from ptr_fast.nets.layers import Dense, LayerNorm, initialise_layers

__all__ = ["ImageEncoder", "Trunk"]


class Trunk(nn.Module):
    """Images ``[N, 3, H, W]`` in [0, 1] to feature maps ``[N, num_channels, h, w]`` in the dtype of the images.

    Attributes:
        num_channels: of the feature map.
    """

    num_channels: int

    def map_size(self, size: int) -> int:
        """Height or width of the feature map for images of that height or width, pixels."""
        raise NotImplementedError

    def initialise(self, generator: torch.Generator) -> None:
        """Set every parameter, layer by layer."""
        initialise_layers((layer for layer in self.modules() if layer is not self), generator)


class ImageEncoder(Encoder):
    """Images to embeddings in [-1, 1].

    Args:
        trunk: images to feature maps.
        config: pooling and width.
        height, width: size of the images, pixels; the learned spatial embedding is made for this size alone.
    """

    def __init__(self, trunk: Trunk, config: EncoderConfig, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width, self.trunk = height, width, trunk
        size = trunk.map_size(height), trunk.map_size(width)
        self.pooling = make_pooling(config, self.trunk.num_channels, *size)
        self.embedding_dim = config.embedding_dim
        self.dense = Dense(self.pooling.num_outputs, config.embedding_dim)
        self.norm = LayerNorm(config.embedding_dim)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every weight, in the order of the modules, and lay convolution weights out channels_last."""
        self.trunk.initialise(generator)
        initialise_layers([self.pooling], generator)
        xavier_normal_(self.dense.weight, generator)
        nn.init.zeros_(self.dense.bias)
        self.norm.initialise(generator)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Embed the frames of one camera.

        Args:
            images_NCHW: ``[N, 3, H, W]`` in [0, 1]. Their dtype is that of the trunk's activations (note "Precision").

        Returns:
            ``[N, embedding_dim]`` in [-1, 1], in the dtype of the weights.

        Raises:
            ValueError: images of another size.
        """
        if images_NCHW.shape[1:] != (3, self.height, self.width):
            expected = f"[N, 3, {self.height}, {self.width}]"
            raise ValueError(f"encoder: expected images {expected}, got {tuple(images_NCHW.shape)}")
        pooled = self.pooling(self.trunk(images_NCHW)).to(self.dense.weight.dtype)
        return torch.tanh(self.norm(self.dense(pooled)))
