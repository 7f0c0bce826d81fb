"""What all learners that imitate say about themselves."""

from __future__ import annotations

from typing import Any

from ptr_fast.learners.imitation.config import ImitationConfig
from ptr_fast.learners.traits import Capability, Panel, Traits
from ptr_fast.types import Window

__all__ = ["LIKELIHOOD", "imitation_traits"]


def imitation_traits(
    config: ImitationConfig, *, num_actions: int = 1, made_of: tuple[str, ...], exports: bool = True, **others: Any
) -> Traits:
    """Of one configuration.

    Checkpoints are not ranked, the newest counts: held-out error and likelihood get worse while success still grows
    (robomimic, arXiv 2108.03298, and ``compare`` here).

    Args:
        num_actions: of a chunk.
        made_of: fields of the configuration that the shapes of the policy follow from, besides the encoder and the
            number of observations.
        exports: its policy can be written as an ONNX file where it sees images.
        others: fields of :class:`~ptr_fast.learners.traits.Traits`.
    """
    sees_images = config.encoder.sees_images
    columns = {"state", "task_id", "actions"} | ({"images"} if sees_images else set())
    columns |= {"action_mask"} if num_actions > 1 else set()
    capabilities: set[Capability] = {"acts"}
    return Traits(
        columns=frozenset(columns),
        window=Window(num_observations=config.num_observations, num_actions=num_actions),
        networks=("actor", "ema_actor"),
        made_of=("encoder", "num_observations", *made_of),
        capabilities=frozenset(capabilities | ({"encodes"} if sees_images else set())),
        exports=exports and sees_images,
        bfloat16=True,
        **others,
    )


LIKELIHOOD: dict[str, Any] = {
    "modes": ("sample", "mean", "ema_mean"),
    "progress": {"train/bc_loss": "bc"},
    "panels": (
        Panel(heading="Cloning loss", unit="nats", series={"train/bc_loss": "negative log-likelihood"}),
        Panel(heading="Error of the mode", unit="scaled²", series={"actor/mse": "mean squared error"}),
    ),
}
"""Of learners whose law of the present action has a density (:mod:`ptr_fast.learners.imitation.likelihood`)."""
