"""What conservative Q-learning says about itself."""

from __future__ import annotations

from ptr_fast.learners.cql.config import CqlConfig
from ptr_fast.learners.traits import Panel, Traits, critic_traits

__all__ = ["CRITIC_PANELS", "traits"]

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
    return critic_traits(
        config,
        name="CQL",
        networks=("actor", "ema_actor", "critic", "target_critic", "temperature"),
        made_of=("encoder", "actor_encoder", "hidden_dims", "critic_head", "num_critics", "init_temperature"),
        beside=("critic", "target_critic", "temperature"),
        modes=("mean", "ema_mean", "search"),
        num_value_samples=config.num_action_samples,
        temperature="temperature/value",
        progress={
            "train/critic_loss": "critic",
            "actor/loss": "actor",
            "q/data": "Q(data)",
            "q/policy": "Q(pi)",
            "temperature/value": "temp",
        },
        panels=PANELS,
    )
