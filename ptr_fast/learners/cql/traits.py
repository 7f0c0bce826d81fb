"""What conservative Q-learning says about itself."""

from __future__ import annotations

from ptr_fast.learners.cql.config import CqlConfig
from ptr_fast.learners.traits import Capability, Panel, Traits

__all__ = ["COLUMNS", "CRITIC_PANELS", "traits"]

COLUMNS = frozenset({"state", "next_state", "task_id", "actions", "rewards", "masks"})
CRITIC_PANELS = (
    Panel(heading="Critic: Bellman loss", unit="reward²", series={"train/bellman_loss": "Bellman"}),
    Panel(heading="Critic: conservative term", unit="reward", series={"train/cql_loss": "CQL"}),
    Panel(
        heading="Q of recorded and policy actions",
        unit="reward",
        series={"q/data": "recorded", "q/policy": "policy"},
    ),
    Panel(heading="Q of random actions", unit="reward", series={"q/random": "random"}),
)
PANELS = (
    *CRITIC_PANELS,
    Panel(heading="Actor loss", unit="", series={"actor/loss": "actor"}),
    Panel(heading="Policy entropy", unit="nats", series={"actor/entropy": "entropy"}),
    Panel(heading="Temperature", unit="", series={"temperature/value": "temperature"}),
    Panel(
        heading="Log-probability of recorded actions",
        unit="nats",
        series={"actor/log_prob_data": "log-probability"},
    ),
)


def traits(config: CqlConfig) -> Traits:
    """Of one configuration."""
    sees_images = config.encoder.sees_images
    capabilities: set[Capability] = {"acts", "values"}
    return Traits(
        name="CQL",
        columns=COLUMNS | ({"images", "next_images"} if sees_images else set()),
        optional_columns=frozenset({"returns"}),
        networks=("actor", "ema_actor", "critic", "target_critic", "temperature"),
        made_of=("encoder", "actor_encoder", "hidden_dims", "critic_head", "num_critics", "init_temperature"),
        beside=("critic", "target_critic", "temperature"),
        capabilities=frozenset(capabilities | ({"encodes"} if sees_images else set())),
        modes=("mean", "ema_mean", "search"),
        discount=config.discount,
        target_rate=config.tau,
        num_value_samples=config.num_action_samples,
        ranking=("score", "max"),
        temperature="temperature/value",
        value_of_data="q/data",
        rate="critic_lr",
        progress={
            "train/critic_loss": "critic",
            "actor/loss": "actor",
            "q/data": "Q(data)",
            "q/policy": "Q(pi)",
            "temperature/value": "temp",
        },
        panels=PANELS,
        exports=sees_images,
        bfloat16=True,
    )
