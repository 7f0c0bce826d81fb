"""An image encoder that one learner has trained, in the networks of another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ptr_fast.checkpoint import CheckpointInfo, load_networks
from ptr_fast.learners.registry import encodes_of, make_networks, traits_of
from ptr_fast.nets.encoders import Encoder

__all__ = ["encoders_in", "take_encoder"]


def encoders_in(network: nn.Module) -> Iterator[tuple[str, Encoder]]:
    """The whole image encoders of a network, by their place in it."""
    for name, child in network.named_children():
        if isinstance(child, Encoder):
            yield name, child
        else:
            yield from ((f"{name}.{place}", encoder) for place, encoder in encoders_in(child))


def take_encoder(info: CheckpointInfo, learner: Any) -> None:
    """Copies a checkpoint's image encoder into every one of a learner's networks that has one, averages included.

    Where the checkpoint's learner has trained the trunk alone (``encoder_part`` of its traits), only that is copied.

    Raises:
        ValueError: the checkpoint has none, the learner has none, or they differ in shape; both are named.
    """
    encodes, traits = encodes_of(info.config), traits_of(info.config)
    theirs = traits.name
    network = encodes.encoder_network()
    made = make_networks(info.config, info.spec, [network])
    load_networks(info, made)
    given = _part(encodes.encoder_of(made), traits.encoder_part)
    mine, num_taken = traits_of(learner.config).name, 0
    for name, own in learner.networks().items():
        for place, encoder in encoders_in(own):
            wanted = _part(encoder, traits.encoder_part)
            for key in sorted({*given, *wanted}):
                sizes = [tuple(state[key].shape) if key in state else "no such weight" for state in (given, wanted)]
                if sizes[0] != sizes[1]:
                    raise ValueError(
                        f"the encoder of {theirs} in {info.path} does not fit {mine}, {name}.{place}: {key}: expected "
                        f"{sizes[1]}, got {sizes[0]}; give the learner the same encoder (--learner.encoder...)"
                    )
            encoder.load_state_dict({**encoder.state_dict(), **given})
            num_taken += 1
    if not num_taken:
        raise ValueError(f"{mine} has no image encoder that could take over that of {info.path}")


def _part(encoder: nn.Module, part: str) -> dict[str, torch.Tensor]:
    """Weights of an encoder by name: all of them, or those of its trunks."""
    state = encoder.state_dict()
    return {key: value for key, value in state.items() if part == "whole" or "trunk" in key.split(".")}
