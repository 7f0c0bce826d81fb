"""Every registered learner, small: its default configuration with small nets, whatever learner it is."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path

import torch
from learner_cases import make_batch, make_spec

from ptr_fast.checkpoint import read_checkpoint, save_checkpoint, weights_digest
from ptr_fast.config import ActConfig, CqlConfig, EncoderConfig, LearnerConfig, PolicySpec, RunReference
from ptr_fast.learners import make_learner
from ptr_fast.learners.registry import kinds, traits_of
from ptr_fast.types import Batch

__all__ = ["KINDS", "asked_for", "small"]

KINDS = sorted(kinds())
ENCODER = EncoderConfig(name="conv3", num_filters=4, pooling="spatial_softmax", embedding_dim=8)
VIT = EncoderConfig(
    name="vit", pooling="mean", embedding_dim=8, options={"patch": 4, "width": 16, "depth": 1, "heads": 2}
)


FOLDER = tempfile.TemporaryDirectory()  # of the runs that learners refer to; removed when the process ends


@functools.cache
def other_run(spec: PolicySpec) -> RunReference:
    """A checkpoint of CQL with small nets for these surroundings, for learners that need another run."""
    run = Path(tempfile.mkdtemp(dir=FOLDER.name)).resolve()
    learner = make_learner(CqlConfig(encoder=ENCODER, hidden_dims=(16, 16)), spec)
    info = read_checkpoint(save_checkpoint(run, 1, learner, spec, ActConfig(), {}))
    return RunReference(path=info.path, weights=weights_digest(info))


def small(tag: str, spec: PolicySpec | None = None) -> LearnerConfig:
    """The default configuration of a learner, its encoder and hidden layers small.

    Args:
        spec: of the policy, for learners that need another run; None: that of :func:`learner_cases.make_spec`.
    """
    config = kinds()[tag].config_class()
    takes_vit = hasattr(config, "encoder") and config.encoder.name == "vit"
    changes = {"encoder": VIT if takes_vit else ENCODER, "hidden_dims": (16, 16)}
    changes |= {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    changes |= {"width": 16, "num_layers": 1, "num_bins": 8}
    for field in dataclasses.fields(config):
        if isinstance(getattr(config, field.name), RunReference):
            changes[field.name] = other_run(spec or make_spec())
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
