"""The random numbers of one augmentation, drawn on the CPU so that they depend on (seed, step) alone.

Shapes: B images.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from ptr_fast.config import AugmentConfig

__all__ = [
    "BRIGHTNESS",
    "CONTRAST",
    "HUE",
    "SATURATION",
    "AugmentParams",
    "JitterParams",
    "concatenate",
    "draw_augment",
]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@dataclass(frozen=True, kw_only=True)
class JitterParams:
    """Colour jitter of B images.

    Attributes:
        apply: bool ``[B]``; False leaves the image as it is.
        order: int64 ``[B, 4]``, a permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue.
        brightness: float32 ``[B]``, added shift, full range = 1.
        contrast: float32 ``[B]``, factor about the image's channel mean.
        saturation: float32 ``[B]``, factor on the HSV saturation.
        hue: float32 ``[B]``, shift in turns.
    """

    apply: torch.Tensor
    order: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor
    saturation: torch.Tensor
    hue: torch.Tensor

    def to(self, device: torch.device | str) -> JitterParams:
        """The same numbers on ``device``."""
        return JitterParams(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class AugmentParams:
    """Crop and jitter of B images; None switches either off.

    Attributes:
        crop_offsets: int64 ``[B, 2]``, (row, column) of the window in the image padded by ``crop_padding``.
        crop_padding: edge pixels repeated on every side.
        jitter: colour jitter.
    """

    crop_offsets: torch.Tensor | None = None
    crop_padding: int = 0
    jitter: JitterParams | None = None

    def to(self, device: torch.device | str) -> AugmentParams:
        """The same numbers on ``device``."""
        return AugmentParams(
            crop_offsets=None if self.crop_offsets is None else self.crop_offsets.to(device, non_blocking=True),
            crop_padding=self.crop_padding,
            jitter=None if self.jitter is None else self.jitter.to(device),
        )


def concatenate(first: AugmentParams, second: AugmentParams) -> AugmentParams:
    """Parameters of the images of ``first`` followed by those of ``second``; both come from one configuration."""
    kind = (first.crop_padding, first.crop_offsets is None, first.jitter is None)
    if kind != (second.crop_padding, second.crop_offsets is None, second.jitter is None):
        raise ValueError("augment: expected parameters of one configuration to concatenate")
    offsets = jitter = None
    if first.crop_offsets is not None and second.crop_offsets is not None:
        offsets = torch.cat([first.crop_offsets, second.crop_offsets])
    if first.jitter is not None and second.jitter is not None:
        names = [f.name for f in fields(JitterParams)]
        jitter = JitterParams(**{n: torch.cat([getattr(first.jitter, n), getattr(second.jitter, n)]) for n in names})
    return AugmentParams(crop_offsets=offsets, crop_padding=first.crop_padding, jitter=jitter)


def draw_augment(config: AugmentConfig, num_images: int, generator: torch.Generator) -> AugmentParams:
    """Draw the parameters of ``num_images`` images from a CPU generator."""
    offsets = jitter = None
    if config.crop_padding > 0:
        offsets = torch.randint(0, 2 * config.crop_padding + 1, (num_images, 2), generator=generator)
    if config.jitter_probability > 0.0:
        uniform = torch.rand(5, num_images, generator=generator)

        def symmetric(row: int, half_width: float) -> torch.Tensor:
            return (2.0 * uniform[row] - 1.0) * half_width

        jitter = JitterParams(
            apply=uniform[4] < config.jitter_probability,
            order=torch.rand(num_images, 4, generator=generator).argsort(dim=1),
            brightness=symmetric(0, config.brightness),
            contrast=1.0 + symmetric(1, config.contrast),
            saturation=1.0 + symmetric(2, config.saturation),
            hue=symmetric(3, config.hue),
        )
    return AugmentParams(crop_offsets=offsets, crop_padding=config.crop_padding, jitter=jitter)
