"""What behaviour cloning says about itself."""

from __future__ import annotations

from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.traits import Capability, Panel, Traits
from ptr_fast.types import Window

__all__ = ["traits"]

PANELS = (
    Panel(heading="Cloning loss", unit="nats", series={"train/bc_loss": "negative log-likelihood"}),
    Panel(heading="Cloning error", unit="scaled²", series={"actor/mse": "mean squared error"}),
)


def traits(config: BcConfig) -> Traits:
    """Of one configuration."""
    sees_images = config.encoder.sees_images
    columns = {"state", "task_id", "actions"} | ({"images"} if sees_images else set())
    columns |= {"action_mask"} if config.num_actions > 1 else set()
    capabilities: set[Capability] = {"acts"}
    return Traits(
        name="behaviour cloning",
        columns=frozenset(columns),
        window=Window(num_observations=config.num_observations, num_actions=config.num_actions),
        networks=("actor", "ema_actor"),
        made_of=("encoder", "hidden_dims", "num_actions", "num_observations"),
        capabilities=frozenset(capabilities | ({"encodes"} if sees_images else set())),
        modes=("mean", "ema_mean"),
        ranking=("action_error", "min"),
        progress={"train/bc_loss": "bc"},
        panels=PANELS,
        exports=sees_images,
        bfloat16=True,
    )
