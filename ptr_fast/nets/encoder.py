"""Image encoders: from the frames of one or several cameras to one embedding per row.

An encoder embeds the frames of one camera by trunk, pooling and bottleneck. Several cameras share one encoder or have
one each (``EncoderConfig.cameras``); their embeddings are concatenated in the order of the policy's cameras.

Note "Precision". Weights are kept, and their gradients summed, in float32. The trunk computes in the dtype of the
images it is given: bfloat16 images make every convolution run on bfloat16 copies of its weights, with float32
statistics in every norm. Pooling reads the last feature map as it is; what it computes and all that follows
(bottleneck, heads, losses) is float32.

Source: PTR, ``jaxrl2/networks/encoders/networks.py:PixelMultiplexerEncoder`` (Dense, LayerNorm, tanh).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ptr_fast.config import EncoderConfig
from ptr_fast.nets.init import xavier_normal_
from ptr_fast.nets.layers import Conv2d, Dense
from ptr_fast.nets.pooling import SpatialEmbedding, make_pooling
from ptr_fast.nets.resnet import Conv3, ResNet

__all__ = ["Encoder", "ImageEncoder", "NoEncoder", "OwnEncoders"]


class Encoder(nn.Module):
    """What every encoder is: images of each camera in, one embedding per row out.

    A subclass says how the frames of one camera are embedded. Frames of several cameras go through it together.

    Attributes:
        cameras: names of the cameras that are looked at, in the order of their embeddings.
        embedding_dim: width of the embedding of one camera.
    """

    embedding_dim: int

    def __init__(self, cameras: Sequence[str]) -> None:
        super().__init__()
        self.cameras = tuple(cameras)

    @property
    def num_outputs(self) -> int:
        """Width of the embedding of a row."""
        return self.embedding_dim * len(self.cameras)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every weight."""
        raise NotImplementedError

    def embed(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Frames ``[N, 3, H, W]`` of one camera, in [0, 1], to ``[N, embedding_dim]``."""
        raise NotImplementedError

    def forward(self, images: Mapping[str, torch.Tensor], num_rows: int) -> torch.Tensor:
        """Embed rows of images.

        Args:
            images: by camera name, ``[num_rows, 3, H, W]`` in [0, 1], channels_last in memory for speed.
            num_rows: N.

        Returns:
            ``[N, num_outputs]``.

        Raises:
            ValueError: a camera is missing, or its images have another number of rows or another size.
        """
        frames = self._frames(images, num_rows)
        if len(frames) == 1:
            return self.embed(frames[0])
        embedding_VND = self.embed(torch.cat(frames)).view(len(frames), num_rows, self.embedding_dim)
        return embedding_VND.transpose(0, 1).flatten(1)

    def _frames(self, images: Mapping[str, torch.Tensor], num_rows: int) -> list[torch.Tensor]:
        missing = [name for name in self.cameras if name not in images]
        if missing:
            raise ValueError(f"encoder: expected images of the cameras {list(self.cameras)}, got {list(images)}")
        for name in self.cameras:
            if images[name].shape[0] != num_rows:
                raise ValueError(f"encoder: camera {name!r}: expected {num_rows} rows, got {images[name].shape[0]}")
        return [images[name] for name in self.cameras]


class OwnEncoders(Encoder):
    """One encoder for each camera; their embeddings side by side."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        super().__init__([name for encoder in encoders for name in encoder.cameras])
        self.encoders = nn.ModuleList(encoders)
        self.embedding_dim = encoders[0].embedding_dim

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights of one camera after the other."""
        for encoder in self.encoders:
            assert isinstance(encoder, Encoder)
            encoder.initialise(generator)

    def forward(self, images: Mapping[str, torch.Tensor], num_rows: int) -> torch.Tensor:
        """As :meth:`Encoder.forward`."""
        return torch.cat([encoder(images, num_rows) for encoder in self.encoders], dim=1)


class ImageEncoder(Encoder):
    """Images to embeddings in [-1, 1].

    Args:
        config: trunk, pooling and width.
        height, width: size of the images, pixels; the learned spatial embedding is made for this size alone.
        cameras: names of the cameras; all have that size.
    """

    def __init__(self, config: EncoderConfig, height: int, width: int, cameras: Sequence[str]) -> None:
        super().__init__(cameras)
        self.height, self.width = height, width
        if config.name == "conv3":
            self.trunk: Conv3 | ResNet = Conv3(config.num_filters, config.num_groups)
        else:
            self.trunk = ResNet(config.name, config.num_filters, config.num_groups)
        size = self.trunk.map_size(height), self.trunk.map_size(width)
        self.pooling = make_pooling(config, self.trunk.num_channels, *size)
        self.embedding_dim = config.embedding_dim
        self.dense = Dense(self.pooling.num_outputs, config.embedding_dim)
        self.norm = nn.LayerNorm(config.embedding_dim, eps=1e-6)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every weight, in the order of the modules, and lay convolution weights out channels_last."""
        for module in self.modules():
            if isinstance(module, Conv2d | SpatialEmbedding):
                module.initialise(generator)
        xavier_normal_(self.dense.weight, generator)
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


class NoEncoder(Encoder):
    """Embeddings of width 0, for learning from the state alone: images are not looked at."""

    embedding_dim = 0

    def __init__(self) -> None:
        super().__init__(())
        self.nothing: torch.Tensor
        self.register_buffer("nothing", torch.empty(0), persistent=False)  # lies where the weights of others lie

    def initialise(self, generator: torch.Generator) -> None:
        """There is nothing to draw."""

    def forward(self, images: Mapping[str, torch.Tensor], num_rows: int) -> torch.Tensor:
        """``[N, 0]``."""
        return self.nothing.new_empty((num_rows, 0))
