"""Configuration of CQL with cloned proposals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptr_fast.config import AugmentConfig, CriticHead, EncoderConfig, LearnerConfig
from ptr_fast.errors import require

__all__ = ["CqlProposalsConfig"]


@dataclass(frozen=True, kw_only=True)
class CqlProposalsConfig(LearnerConfig):
    """CQL's critic beside a clone of many modes, whose samples it is trained on and chooses among.

    Attributes:
        encoder: image encoder of critic and clone.
        actor_encoder: ``own``: the clone trains an encoder of its own; ``critic``: it looks through the critic's, which
            both losses then train.
        hidden_dims: hidden layers of the clone and of every Q head.
        critic_head: what is concatenated to every layer of a Q head; see :class:`ptr_fast.learners.cql.CqlConfig`. By
            default the critic sees the state.
        critic_layer_norm: a layer norm in every hidden layer of a Q head; computed by PyTorch instead of the kernel.
        num_critics: Q heads on one shared critic encoder; their minimum is used.
        discount: of the Bellman target, per step.
        tau: rate of the averaged (target) critic, per update.
        cql_alpha: weight of the conservative term.
        num_action_samples: proposals and, as many, uniform actions per state; also proposals per next state.
        num_components: Gaussians in the clone's mixture.
        min_std: least standard deviation of a Gaussian, of the action's half range.
        actor_lr: Adam learning rate of the clone.
        critic_lr: Adam learning rate of the critic and its encoder.
        ema_tau: rate of the averaged clone, which proposes in the backup and when acting.
        augment: random crop and colour jitter.
    """

    encoder: EncoderConfig = EncoderConfig()
    actor_encoder: Literal["own", "critic"] = "own"
    hidden_dims: tuple[int, ...] = (256, 256)
    critic_head: CriticHead = "reinject_action"
    critic_layer_norm: bool = True
    num_critics: int = 2
    discount: float = 0.98
    tau: float = 0.01
    cql_alpha: float = 1.0
    num_action_samples: int = 4
    num_components: int = 8
    min_std: float = 0.03
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    ema_tau: float = 0.01
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 < self.discount < 1.0, f"discount must lie in (0, 1), got {self.discount}")
        for name in ("tau", "ema_tau"):
            require(0.0 < getattr(self, name) <= 1.0, f"{name} must lie in (0, 1], got {getattr(self, name)}")
        require(self.cql_alpha >= 0.0, f"cql_alpha must not be negative, got {self.cql_alpha}")
        for name in ("num_critics", "num_action_samples", "num_components"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(self.min_std > 0.0, f"min_std must be positive, got {self.min_std}")
        require(len(self.hidden_dims) >= 1, "hidden_dims must name at least one layer")
        require(min(self.hidden_dims) >= 1, f"hidden_dims must be at least 1 each, got {list(self.hidden_dims)}")
        require(
            self.encoder.sees_images or self.critic_head != "reinject_all",
            "encoder 'none' needs critic_head 'reinject_action' or 'plain': in the form 'reinject_all' no Q head sees "
            "the state",
        )
