"""Every registered learner, small: its default configuration with small nets, whatever learner it is."""

from __future__ import annotations

import dataclasses

import torch
from learner_cases import make_batch

from ptr_fast.config import EncoderConfig, LearnerConfig, PolicySpec
from ptr_fast.learners.registry import kinds, traits_of
from ptr_fast.types import Batch

__all__ = ["KINDS", "asked_for", "small"]

KINDS = sorted(kinds())
ENCODER = EncoderConfig(name="conv3", num_filters=4, pooling="spatial_softmax", embedding_dim=8)
VIT = EncoderConfig(
    name="vit", pooling="mean", embedding_dim=8, options={"patch": 4, "width": 16, "depth": 1, "heads": 2}
)


def small(tag: str) -> LearnerConfig:
    """The default configuration of a learner, its encoder and hidden layers small."""
    config = kinds()[tag].config_class()
    takes_vit = hasattr(config, "encoder") and config.encoder.name == "vit"
    changes = {"encoder": VIT if takes_vit else ENCODER, "hidden_dims": (16, 16)}
    changes |= {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    names = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{name: value for name, value in changes.items() if name in names})


def asked_for(config: LearnerConfig, spec: PolicySpec, num_batch: int = 6, seed: int = 0) -> Batch:
    """Random transitions in the window, and with the columns, that the learner's traits ask for; no others."""
    traits = traits_of(config)
    columns = make_batch(spec, num_batch, seed, traits.window).columns()
    missing = traits.columns - set(columns)
    assert not missing or missing == {"returns"}
    if missing:
        columns["returns"] = torch.linspace(-1.0, 1.0, num_batch)
    return Batch(**{name: columns[name] for name in traits.columns})
