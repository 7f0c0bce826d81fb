"""Work of one update in encoder forwards of its batch: nine for the learner, about twenty for the published step."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from learner_cases import make_batch, make_spec
from torch.utils.flop_counter import FlopCounterMode

from ptr_fast.config import AugmentConfig, CqlConfig, EncoderConfig
from ptr_fast.kernels.augment import augment
from ptr_fast.learners import CqlLearner

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.peers.literal_port import LiteralPort


def count(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_an_update_costs_nine_encoder_forwards_and_the_published_one_twenty(name):
    # A quarter of every width of the paper's configuration, so that the heads' share stays as small as it is there.
    config = CqlConfig(
        encoder=EncoderConfig(name=name, num_filters=16, embedding_dim=64),
        hidden_dims=(64, 64, 64),
        augment=AugmentConfig(jitter_probability=0.0),
    )
    spec = make_spec(size=64)
    learner, batch = CqlLearner(config, spec), make_batch(spec, num_batch=2)
    images = augment(batch.images["camera"][:, 0], None)
    with torch.no_grad():
        forward = count(lambda: learner.critic.encoder({"camera": images}, 2))
    ours = count(lambda: learner.update(batch, 0)) / forward
    sharing = CqlLearner(dataclasses.replace(config, actor_encoder="critic"), spec)
    assert 5.8 < count(lambda: sharing.update(batch, 0)) / forward <= 6.05
    theirs = count(lambda: LiteralPort(learner).update_with_terms(batch, 1)) / forward
    assert 8.8 < ours <= 9.05
    assert 19.0 <= theirs <= 20.5
