"""What CQL with cloned proposals says about itself."""

from __future__ import annotations

from ptr_fast.learners.cql.traits import COLUMNS, CRITIC_PANELS
from ptr_fast.learners.cql_proposals.config import CqlProposalsConfig
from ptr_fast.learners.traits import Capability, Panel, Traits

__all__ = ["traits"]

PANELS = (
    *CRITIC_PANELS,
    Panel(heading="Cloning loss", unit="nats", series={"train/clone_loss": "negative log-likelihood"}),
    Panel(heading="Spread of the clone", unit="scaled", series={"actor/std": "standard deviation"}),
)


def traits(config: CqlProposalsConfig) -> Traits:
    """Of one configuration."""
    sees_images = config.encoder.sees_images
    capabilities: set[Capability] = {"acts", "values"}
    return Traits(
        name="CQL with cloned proposals",
        columns=COLUMNS | ({"images", "next_images"} if sees_images else set()),
        optional_columns=frozenset({"returns"}),
        networks=("actor", "ema_actor", "critic", "target_critic"),
        made_of=(
            *("encoder", "actor_encoder", "hidden_dims", "critic_head", "num_critics"),
            *("critic_layer_norm", "num_components", "min_std"),
        ),
        beside=("critic", "target_critic"),
        capabilities=frozenset(capabilities | ({"encodes"} if sees_images else set())),
        modes=("search", "sample", "mean", "ema_mean"),
        discount=config.discount,
        target_rate=config.tau,
        num_value_samples=config.num_action_samples,
        ranking=("score", "max"),
        value_of_data="q/data",
        rate="critic_lr",
        progress={
            "train/critic_loss": "critic",
            "train/clone_loss": "clone",
            "q/data": "Q(data)",
            "q/policy": "Q(proposals)",
        },
        panels=PANELS,
        exports=sees_images,
        bfloat16=True,
    )
