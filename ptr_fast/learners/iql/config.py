"""Configuration of implicit Q-learning."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.config import AugmentConfig, CriticHead, EncoderConfig, LearnerConfig
from ptr_fast.errors import require

__all__ = ["IqlConfig"]


@dataclass(frozen=True, kw_only=True)
class IqlConfig(LearnerConfig):
    """Implicit Q-learning: it asks the critic about recorded actions alone.

    The state's value is an expectile of Q over the recorded actions, near the best of them; Q bootstraps from it; and
    the actor clones the recorded actions, each weighted by the exponential of its advantage.

    Attributes:
        encoder: image encoder of critic and actor; the value looks through the critic's, which its loss leaves alone.
        hidden_dims: hidden layers of the policy, of the value and of every Q head.
        critic_head: as of :class:`~ptr_fast.learners.cql.config.CqlConfig`; ``reinject_all`` does not see the state.
        num_critics: Q heads on one shared critic encoder; their minimum is used.
        discount: of the Bellman target, per step.
        tau: rate of the averaged (target) critic, per update.
        expectile: of Q over the recorded actions, which the value learns: 0.5 is their mean, near 1 their best.
        advantage_temperature: the weight of an action is ``exp(advantage / advantage_temperature)``: the inverse of the
            paper's beta, which is 3 for locomotion and 10 for mazes.
        max_weight: larger weights are cut to this.
        actor_lr: Adam learning rate of the actor and its encoder.
        critic_lr: Adam learning rate of the critic and its encoder.
        value_lr: Adam learning rate of the value.
        ema_tau: rate of the averaged actor kept for acting (it has no influence on training).
        augment: random crop and colour jitter.
    """

    encoder: EncoderConfig = EncoderConfig()
    hidden_dims: tuple[int, ...] = (256, 256)
    critic_head: CriticHead = "reinject_action"
    num_critics: int = 2
    discount: float = 0.99
    tau: float = 0.005
    expectile: float = 0.7
    advantage_temperature: float = 1.0 / 3.0
    max_weight: float = 100.0
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    value_lr: float = 3e-4
    ema_tau: float = 0.005
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("discount", "expectile"):
            require(0.0 < getattr(self, name) < 1.0, f"{name} must lie in (0, 1), got {getattr(self, name)}")
        for name in ("tau", "ema_tau"):
            require(0.0 < getattr(self, name) <= 1.0, f"{name} must lie in (0, 1], got {getattr(self, name)}")
        for name in ("advantage_temperature", "max_weight"):
            require(getattr(self, name) > 0.0, f"{name} must be positive, got {getattr(self, name)}")
        require(self.num_critics >= 1, f"num_critics must be at least 1, got {self.num_critics}")
        require(len(self.hidden_dims) >= 1, "hidden_dims must name at least one layer")
        require(min(self.hidden_dims) >= 1, f"hidden_dims must be at least 1 each, got {list(self.hidden_dims)}")
        require(
            self.encoder.sees_images or self.critic_head != "reinject_all",
            "encoder 'none' needs critic_head 'reinject_action' or 'plain': in the form 'reinject_all' no Q head sees "
            "the state",
        )
