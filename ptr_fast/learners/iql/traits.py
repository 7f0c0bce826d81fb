"""What implicit Q-learning says about itself."""

from __future__ import annotations

from ptr_fast.learners.iql.config import IqlConfig
from ptr_fast.learners.traits import Capability, Panel, Traits

__all__ = ["traits"]

COLUMNS = frozenset({"state", "next_state", "task_id", "actions", "rewards", "masks"})
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
    sees_images = config.encoder.sees_images
    capabilities: set[Capability] = {"acts", "values"}
    return Traits(
        name="IQL",
        columns=COLUMNS | ({"images", "next_images"} if sees_images else set()),
        optional_columns=frozenset({"returns"}),
        networks=("actor", "ema_actor", "critic", "target_critic", "value"),
        made_of=("encoder", "hidden_dims", "critic_head", "num_critics"),
        beside=("critic", "target_critic", "value"),
        capabilities=frozenset(capabilities | ({"encodes"} if sees_images else set())),
        modes=("mean", "ema_mean", "search"),
        discount=config.discount,
        target_rate=config.tau,
        ranking=("score", "max"),
        value_of_data="q/data",
        rate="critic_lr",
        progress={
            "train/critic_loss": "critic",
            "train/value_loss": "value",
            "actor/loss": "actor",
            "q/data": "Q(data)",
            "q/value": "V",
        },
        panels=PANELS,
        exports=sees_images,
        bfloat16=True,
    )
