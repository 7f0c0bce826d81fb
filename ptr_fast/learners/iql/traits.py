"""What implicit Q-learning says about itself."""

from __future__ import annotations

from ptr_fast.learners.iql.config import IqlConfig
from ptr_fast.learners.traits import Panel, Traits, critic_traits

__all__ = ["traits"]

PANELS = (
    Panel(heading="Critic: Bellman loss", unit="reward²", series={"train/critic_loss": "Bellman"}),
    Panel(heading="Value: expectile loss", unit="reward²", series={"train/value_loss": "expectile"}),
    Panel(
        heading="Q of recorded actions and value of their states",
        unit="reward",
        series={"q/data": "Q", "q/value": "value"},
    ),
    Panel(heading="Actor: weighted cloning loss", unit="nats", series={"actor/loss": "actor"}),
    Panel(
        heading="Weights of recorded actions",
        unit="",
        series={"weights/mean": "mean", "weights/cut": "share that is cut"},
    ),
    Panel(
        heading="Log-probability of recorded actions",
        unit="nats",
        series={"actor/log_prob_data": "log-probability"},
    ),
)


def traits(config: IqlConfig) -> Traits:
    """Of one configuration."""
    return critic_traits(
        config,
        name="IQL",
        networks=("actor", "ema_actor", "critic", "target_critic", "value"),
        made_of=("encoder", "hidden_dims", "critic_head", "num_critics"),
        beside=("critic", "target_critic", "value"),
        modes=("mean", "ema_mean", "search"),
        progress={
            "train/critic_loss": "critic",
            "train/value_loss": "value",
            "actor/loss": "actor",
            "q/data": "Q(data)",
            "q/value": "V",
        },
        panels=PANELS,
    )
