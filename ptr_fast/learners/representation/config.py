"""What the configurations of learners of an image encoder alone share."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.config import AugmentConfig, EncoderConfig, LearnerConfig
from ptr_fast.errors import require

__all__ = ["RepresentationConfig"]


@dataclass(frozen=True, kw_only=True)
class RepresentationConfig(LearnerConfig):
    """An image encoder that is learned from frames alone, for others to take over.

    Attributes:
        encoder: the image encoder.
        lr: Adam learning rate.
        weight_decay: decoupled from the gradient (AdamW), per unit of learning rate; 0: off.
        augment: random crop and colour jitter.
    """

    encoder: EncoderConfig = EncoderConfig()
    lr: float = 1e-4
    weight_decay: float = 0.0
    augment: AugmentConfig = AugmentConfig(jitter_probability=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.weight_decay >= 0.0, f"weight_decay must not be negative, got {self.weight_decay}")
        require(self.encoder.sees_images, "encoder.name 'none': this learner learns an image encoder; name one")
        is_frozen = self.encoder.frozen or self.encoder.frozen_trunk
        require(not is_frozen, "encoder.frozen: this learner learns the encoder itself; leave it off")
