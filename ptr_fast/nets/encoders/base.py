"""What every image encoder is: the frames of one or several cameras in, one embedding per row out.

Several cameras share one encoder or have one each (``EncoderConfig.cameras``); their embeddings are concatenated in the
order of the policy's cameras.

Shapes: N rows, V cameras, D embedding of one camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

__all__ = ["Encoder", "OwnEncoders"]


class Encoder(nn.Module):
    """What every encoder is: images of each camera in, one embedding per row out.

    A subclass says how the frames of one camera are embedded. Frames of several cameras go through it together.

    Attributes:
        embedding_dim: width of the embedding of one camera; the subclass sets it.
        cameras: names of the cameras that are looked at, in the order of their embeddings; set where it is made.
    """

    embedding_dim: int
    cameras: tuple[str, ...] = ()

    @property
    def num_outputs(self) -> int:
        """Width of the embedding of a row."""
        return self.embedding_dim * len(self.cameras)

    def initialise(self, generator: torch.Generator) -> None:
        """Set every parameter: draw it from this generator, or fill it with a constant.

        Whoever makes a net sees to it that none was left out (:func:`ptr_fast.nets.init.draw_weights`).
        """
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
        super().__init__()
        self.cameras = tuple(name for encoder in encoders for name in encoder.cameras)
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
