"""Image encoders, one folder each; :mod:`ptr_fast.encoder_registry` knows them by name."""

from __future__ import annotations

from collections.abc import Sequence

from ptr_fast import encoder_registry
from ptr_fast.config import EncoderConfig
from ptr_fast.nets.encoders.base import Encoder, OwnEncoders
from ptr_fast.nets.encoders.image import ImageEncoder, Trunk
from ptr_fast.types import CameraSpec

__all__ = ["Encoder", "ImageEncoder", "OwnEncoders", "Trunk", "make_encoder"]


def make_encoder(config: EncoderConfig, cameras: Sequence[CameraSpec]) -> Encoder:
    """An encoder of these cameras; its weights are not drawn yet.

    Raises:
        ValueError: an encoder or an option that is not known, cameras of several sizes are to share one encoder, or
            there is no camera and the encoder looks at frames, or its trunk is to be frozen and it has none.
    """
    if not cameras and config.sees_images:
        raise ValueError(f"encoder.name: {config.name!r} looks at frames, and the data have none; take 'none'")
    if config.cameras == "own" and len(cameras) > 1 and config.sees_images:
        return OwnEncoders([make_encoder(config, [camera]) for camera in cameras])
    sizes = {(camera.height, camera.width) for camera in cameras}
    if len(sizes) != 1 and config.sees_images:
        told = ", ".join(f"{camera.name} {camera.height}x{camera.width}" for camera in cameras)
        raise ValueError(f"encoder: cameras that share one encoder must have one size, got {told}; take cameras='own'")
    height, width = min(sizes, default=(0, 0))
    encoder: Encoder = encoder_registry.find(config.name).make(config, config.typed_options(), height, width)
    encoder.cameras = tuple(camera.name for camera in cameras) if config.sees_images else ()
    if config.frozen:
        encoder.requires_grad_(False)
    elif config.frozen_trunk:
        if not isinstance(encoder, ImageEncoder):
            raise ValueError(f"encoder.frozen_trunk: {config.name!r} has no trunk; freeze the whole of it (frozen)")
        encoder.trunk.requires_grad_(False)
    return encoder
