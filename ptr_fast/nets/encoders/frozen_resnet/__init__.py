"""``frozen_resnet18``, ``frozen_resnet34``, ``frozen_resnet50``: torchvision's ResNets with weights that stay as given.

Option ``weights`` names a file that the user has: of ImageNet as torchvision saves it, or R3M's published ``model.pt``
(note "Files of weights" in :mod:`ptr_fast.nets.encoders.frozen_resnet.weights`). Pooling and bottleneck are trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptr_fast.config import EncoderConfig
from ptr_fast.encoder_registry import EncoderKind, register
from ptr_fast.nets.encoders.frozen_resnet.trunk import FrozenResNet
from ptr_fast.nets.encoders.image import ImageEncoder

__all__ = ["FrozenResNet", "FrozenResNetOptions"]

DEPTHS = {"frozen_resnet18": 18, "frozen_resnet34": 34, "frozen_resnet50": 50}


@dataclass(frozen=True, kw_only=True)
class FrozenResNetOptions:
    """What a frozen ResNet begins as.

    Attributes:
        weights: file of weights, ``.pt``, ``.pth`` or ``.safetensors``. It is read when a run begins; a checkpoint
            holds the weights themselves and acts and is trained on where there is no such file.
        sha256: of that file; a training program records it, so that a run cannot go on with another file.
        input_size: height and width that frames are enlarged or reduced to, pixels (224 is what R3M and ImageNet were
            trained on); 0: frames are taken as they are, which costs less.
    """

    weights: Path
    sha256: str = ""
    input_size: int = 0

    def __post_init__(self) -> None:
        if self.input_size < 0:
            raise ValueError(f"input_size must not be negative, got {self.input_size}")


def make(config: EncoderConfig, options: FrozenResNetOptions, height: int, width: int) -> ImageEncoder:
    """``pooling`` (R3M's is ``mean``) and ``embedding_dim`` count; ``num_filters`` and ``num_groups`` do not."""
    trunk = FrozenResNet(DEPTHS[config.name], options.weights, options.sha256, options.input_size)
    return ImageEncoder(trunk, config, height, width)


for name in DEPTHS:
    register(EncoderKind(name, make, FrozenResNetOptions))
