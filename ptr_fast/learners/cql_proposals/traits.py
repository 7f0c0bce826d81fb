"""What CQL with cloned proposals says about itself."""

from __future__ import annotations

from dataclasses import replace

from ptr_fast.learners.cql.traits import CRITIC_PANELS
from ptr_fast.learners.cql_proposals.config import CqlProposalsConfig
from ptr_fast.learners.traits import Panel, Traits, critic_traits

__all__ = ["traits"]

PANELS = (
    *CRITIC_PANELS,
    Panel(heading="Cloning loss", unit="nats", series={"train/clone_loss": "negative log-likelihood"}),
    Panel(heading="Spread of the clone", unit="scaled", series={"actor/std": "standard deviation"}),
)


def traits(config: CqlProposalsConfig) -> Traits:
    """Of one configuration."""
    said = critic_traits(
        config,
        name="CQL with cloned proposals",
        networks=("actor", "ema_actor", "critic", "target_critic"),
        made_of=(
            *("encoder", "actor_encoder", "hidden_dims", "critic_head", "num_critics"),
            *("critic_layer_norm", "num_components", "min_std"),
        ),
        beside=("critic", "target_critic"),
        modes=("search", "sample", "mean", "ema_mean"),
        num_value_samples=config.num_action_samples,
        num_proposals=config.num_action_samples,
        progress={
            "train/critic_loss": "critic",
            "train/clone_loss": "clone",
            "q/data": "Q(data)",
            "q/policy": "Q(proposals)",
        },
        panels=PANELS,
    )
    if config.actor_encoder == "critic":  # weights in the critic's loss would change the clone as well
        return said
    return replace(said, optional_columns=said.optional_columns | {"critic_weight"})
