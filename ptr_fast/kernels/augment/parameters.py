"""The random numbers of one augmentation, made of eight random words of each image on whatever device they are.

Shapes: B images.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, fields

import torch

from ptr_fast.config import AugmentConfig

__all__ = [
    "BRIGHTNESS",
    "CONTRAST",
    "HUE",
    "NUM_WORDS",
    "SATURATION",
    "AugmentParams",
    "JitterParams",
    "draw_augment",
]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# Of one image: one word for each operation's strength, for whether to jitter, the order, and the crop's row and column.
NUM_WORDS = 8


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

    def dense(self) -> tuple[torch.Tensor, ...]:
        """The six tensors in order, contiguous and in the dtypes above (copied only where they are not)."""
        dtypes = (torch.bool, torch.int64, *(torch.float32,) * 4)
        return tuple(getattr(self, f.name).to(d).contiguous() for f, d in zip(fields(self), dtypes, strict=True))

    def repeated(self, count: int) -> JitterParams:
        """The numbers of every image for ``count`` images that follow each other."""
        return JitterParams(**{f.name: getattr(self, f.name).repeat_interleave(count, 0) for f in fields(self)})

    def __getitem__(self, images: slice) -> JitterParams:
        """Those of some of the images, without copying."""
        return JitterParams(**{f.name: getattr(self, f.name)[images] for f in fields(self)})


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

    def repeated(self, count: int) -> AugmentParams:
        """The numbers of every image for ``count`` images that follow each other."""
        return AugmentParams(
            crop_offsets=None if self.crop_offsets is None else self.crop_offsets.repeat_interleave(count, 0),
            crop_padding=self.crop_padding,
            jitter=None if self.jitter is None else self.jitter.repeated(count),
        )

    def __getitem__(self, images: slice) -> AugmentParams:
        """Those of some of the images, without copying."""
        return AugmentParams(
            crop_offsets=None if self.crop_offsets is None else self.crop_offsets[images],
            crop_padding=self.crop_padding,
            jitter=None if self.jitter is None else self.jitter[images],
        )


def draw_augment(config: AugmentConfig, words_BW: torch.Tensor) -> AugmentParams:
    """The parameters of B images from :data:`NUM_WORDS` random words of each.

    Args:
        config: ranges of the parameters.
        words_BW: int64 ``[B, 8]`` in [0, 2**32), as of :func:`ptr_fast.kernels.counter_random.uniform_bits`.

    Returns:
        The parameters on the device of the words; nothing is read back. (The first call of a configuration on a
        device copies constants to it.)
    """
    words_WB = words_BW.t().contiguous()
    offsets = jitter = None
    if config.crop_padding > 0:
        offsets = ((words_WB[6:8] * (2 * config.crop_padding + 1)) >> 32).t().contiguous()
    if config.jitter_probability > 0.0:
        uniform = (words_WB[:5] >> 8).to(torch.float32).mul_(2.0**-24)
        lowest, width, orders = _constants(config, words_BW.device)
        brightness, contrast, saturation, hue = torch.addcmul(lowest, width, uniform[:4]).unbind(0)
        jitter = JitterParams(
            apply=uniform[4] < config.jitter_probability,
            order=orders[(words_WB[5] * len(orders)) >> 32],
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
        )
    return AugmentParams(crop_offsets=offsets, crop_padding=config.crop_padding, jitter=jitter)


@functools.cache
def _constants(config: AugmentConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lowest value and width of the four ranges, ``[4, 1]``, and the 24 orders of the operations, int64 ``[24, 4]``."""
    halves = torch.tensor([config.brightness, config.contrast, config.saturation, config.hue])[:, None]
    middles = torch.tensor([0.0, 1.0, 1.0, 0.0])[:, None]
    orders = torch.tensor(list(itertools.permutations(range(4))))
    return (middles - halves).to(device), (2.0 * halves).to(device), orders.to(device)
