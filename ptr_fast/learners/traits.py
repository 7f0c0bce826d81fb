"""What a learner says about itself, so that no program has to know which learner it works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ptr_fast.config import ActMode, RewardConfig
from ptr_fast.types import Window

__all__ = ["Capability", "Panel", "Traits", "critic_traits"]

Capability = Literal["acts", "values", "encodes"]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart of a report.

    Attributes:
        heading: above the chart.
        unit: of its axis; may be empty.
        series: the key of a number that an update reports -> its name in the legend.
    """

    heading: str
    unit: str
    series: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """A learner's description of itself, for one configuration.

    Attributes:
        name: what people read, e.g. ``CQL``.
        columns: fields of :class:`ptr_fast.types.Batch` that an update reads; no other is gathered.
        optional_columns: fields that an update uses where the batch has them; the rewards of a run ask for ``returns``,
            as a bound of the target, and fine-tuning for ``critic_weight``, where the critic has a mix of its own.
        window: past observations and future actions of a sample.
        networks: names of all networks that a checkpoint holds.
        made_of: fields of the configuration that the networks' shapes follow from: a branch of a run keeps them.
        beside: those of them that lie in ``critic.safetensors``, beside ``model.safetensors``.
        capabilities: which of :class:`~ptr_fast.learners.capabilities.Acts`, ``Values`` and ``Encodes`` its networks
            offer.
        modes: acting modes, the default first; empty where it does not act.
        discount: per step, of the Q values; None where there are none.
        target_rate: share of the online critic that its average takes over in an update, where it has one.
        num_value_samples: policy actions, and as many uniform ones, that evaluation asks the critic about.
        num_proposals: samples of a clone that the critic's targets take the best of; 0: there are none.
        ranking: metric of an evaluation that ranks its checkpoints, and whether the largest or the smallest wins; None:
            no metric is known to tell which one succeeds more often, the newest counts.
        temperature: key of the number of an update that is the weight of the policy's entropy; empty: it has none.
        value_of_data: key of the number of an update that is the mean Q of recorded actions; empty: there is none.
        rate: the learning rate that is told and set; the others keep their ratio to it.
        progress: key of a number of an update -> its short name in the progress line.
        panels: charts of its numbers in a report.
        encoder_part: what it trains of its image encoder. ``trunk``: not the pooling and the bottleneck behind that, so
            whoever takes the encoder over takes the trunk alone.
        exports: its policy can be written as an ONNX file.
        bfloat16: its image encoders train in bfloat16.
    """

    name: str
    columns: frozenset[str]
    networks: tuple[str, ...]
    optional_columns: frozenset[str] = frozenset()
    window: Window = Window()
    made_of: tuple[str, ...] = ("encoder",)
    beside: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = frozenset()
    modes: tuple[ActMode, ...] = ()
    discount: float | None = None
    target_rate: float | None = None
    num_value_samples: int = 4
    num_proposals: int = 0
    ranking: tuple[str, Literal["max", "min"]] | None = None
    temperature: str = ""
    value_of_data: str = ""
    rate: str = "lr"
    progress: Mapping[str, str] = field(default_factory=dict)
    panels: tuple[Panel, ...] = ()
    encoder_part: Literal["whole", "trunk"] = "whole"
    exports: bool = False
    bfloat16: bool = False

    def __post_init__(self) -> None:
        if bool(self.modes) != ("acts" in self.capabilities):
            raise ValueError(f"traits of {self.name}: a learner has acting modes if it acts, got modes {self.modes}")
        if (self.discount is not None) != ("values" in self.capabilities):
            raise ValueError(f"traits of {self.name}: a learner has a discount if it values, got {self.discount}")
        if unknown := set(self.beside) - set(self.networks):
            raise ValueError(f"traits of {self.name}: beside names no networks: {sorted(unknown)}")

    def check_critic_mix(self) -> None:
        """Refuses a share of old data of the critic's own.

        Raises:
            ValueError: this learner has no critic that is trained beside a policy that neither follows it nor looks
                through its encoder.
        """
        if "critic_weight" not in self.optional_columns:
            raise ValueError(
                f"critic_mix: {self.name} has no critic with a loss and an encoder of its own beside a clone; leave "
                "it out"
            )

    def check_rewards(self, rewards: RewardConfig) -> None:
        """Refuses rewards whose targets this learner cannot make.

        Raises:
            ValueError: targets look ahead and it has no discount, or they have a bound that it does not use.
        """
        if rewards.num_steps > 1 and self.discount is None:
            raise ValueError(
                f"rewards.num_steps {rewards.num_steps}: {self.name} has no discount, and so no target that looks "
                "ahead; leave it at 1"
            )
        if rewards.lower_bound_returns and "returns" not in self.optional_columns:
            raise ValueError(f"rewards.lower_bound_returns: {self.name} has no target for it to bound; leave it off")


def critic_traits(config: Any, **others: Any) -> Traits:
    """What learners with an actor and a critic say alike, of one configuration.

    Args:
        config: has ``encoder``, ``discount`` and ``tau``.
        others: fields of :class:`Traits`.
    """
    sees_images = config.encoder.sees_images
    columns = {"state", "next_state", "task_id", "actions", "rewards", "masks"}
    capabilities: set[Capability] = {"acts", "values"}
    return Traits(
        columns=frozenset(columns | ({"images", "next_images"} if sees_images else set())),
        optional_columns=frozenset({"returns"}),
        capabilities=frozenset(capabilities | ({"encodes"} if sees_images else set())),
        discount=config.discount,
        target_rate=config.tau,
        ranking=("score", "max"),
        value_of_data="q/data",
        rate="critic_lr",
        exports=sees_images,
        bfloat16=True,
        **others,
    )
