"""Configuration of conservative Q-learning; the defaults are the published ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptr_fast.config import AugmentConfig, CriticHead, EncoderConfig, LearnerConfig
from ptr_fast.errors import require

__all__ = ["CqlConfig"]


@dataclass(frozen=True, kw_only=True)
class CqlConfig(LearnerConfig):
    """Conservative Q-learning as PTR uses it.

    Attributes:
        encoder: image encoder of actor and critic.
        actor_encoder: ``own``: the actor trains an encoder of its own (the paper's); ``critic``: it looks through the
            critic's, which the actor loss leaves alone (``share_encoders`` of the reference).
        hidden_dims: hidden layers of the policy and of every Q head.
        critic_head: what is concatenated to every layer of a Q head: ``reinject_all`` (action and pixels; the first
            layer also sees the task; no proprioceptive state: the paper's), ``reinject_action`` (action; the first
            layer sees pixels, state and task), ``plain`` (nothing after the first layer).
        num_critics: Q heads on one shared critic encoder; their minimum is used.
        discount: of the Bellman target, per step.
        tau: rate of the averaged (target) critic, per update.
        cql_alpha: weight of the conservative term.
        num_action_samples: policy actions and, as many, uniform actions per state; also target actions per next state.
        actor_lr: Adam learning rate of the actor and its encoder.
        critic_lr: Adam learning rate of the critic and its encoder.
        temperature_lr: Adam learning rate of the entropy weight.
        init_temperature: initial entropy weight.
        target_entropy: nats; None means minus the number of action dimensions.
        cloning_weight: of a cloning term in the actor's loss, which is then -Q / mean |Q| - weight * log pi(recorded
            action); that term keeps the actor's spread, and the temperature takes no part. 0: the published loss.
        ema_tau: rate of the averaged actor kept for acting (it has no influence on training).
        augment: random crop and colour jitter.
    """

    encoder: EncoderConfig = EncoderConfig()
    actor_encoder: Literal["own", "critic"] = "own"
    hidden_dims: tuple[int, ...] = (256, 256, 256)
    critic_head: CriticHead = "reinject_all"
    num_critics: int = 2
    discount: float = 0.96
    tau: float = 0.005
    cql_alpha: float = 10.0
    num_action_samples: int = 4
    actor_lr: float = 1e-4
    critic_lr: float = 3e-4
    temperature_lr: float = 3e-4
    init_temperature: float = 1.0
    target_entropy: float | None = None
    cloning_weight: float = 0.0
    ema_tau: float = 0.005
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 < self.discount < 1.0, f"discount must lie in (0, 1), got {self.discount}")
        require(0.0 < self.tau <= 1.0, f"tau must lie in (0, 1], got {self.tau}")
        require(0.0 < self.ema_tau <= 1.0, f"ema_tau must lie in (0, 1], got {self.ema_tau}")
        require(self.cql_alpha >= 0.0, f"cql_alpha must not be negative, got {self.cql_alpha}")
        require(self.cloning_weight >= 0.0, f"cloning_weight must not be negative, got {self.cloning_weight}")
        require(self.num_critics >= 1, f"num_critics must be at least 1, got {self.num_critics}")
        require(self.num_action_samples >= 1, f"num_action_samples must be at least 1, got {self.num_action_samples}")
        require(self.init_temperature > 0.0, f"init_temperature must be positive, got {self.init_temperature}")
        require(len(self.hidden_dims) >= 1, "hidden_dims must name at least one layer")
        require(min(self.hidden_dims) >= 1, f"hidden_dims must be at least 1 each, got {list(self.hidden_dims)}")
        require(
            self.encoder.sees_images or self.critic_head != "reinject_all",
            "encoder 'none' needs critic_head 'reinject_action' or 'plain': in the form 'reinject_all' no Q head sees "
            "the state",
        )
