"""Acting by the mode of a policy: what most learners' networks do."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ptr_fast.nets.policy import Actor

__all__ = ["ModeActing", "SampleActing"]


class ModeActing(nn.Module):
    """The mode of an actor's law of the present action; see :class:`ptr_fast.learners.capabilities.Acts`."""

    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self.actor = actor

    def forward(
        self,
        images: Mapping[str, torch.Tensor],
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scaled actions ``[B, 1, A]``."""
        return self.actor.mean_action(images, state_BTS[:, -1], task_id_B)[:, None]


class SampleActing(nn.Module):
    """One sample of an actor's law of the present action; see :class:`ptr_fast.learners.capabilities.Acts`."""

    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self.actor = actor

    def forward(
        self,
        images: Mapping[str, torch.Tensor],
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
        noise_BN: torch.Tensor,
    ) -> torch.Tensor:
        """Scaled actions ``[B, 1, A]`` for noise ``[B, noise_dim]`` of the law."""
        return self.actor(images, state_BTS[:, -1], task_id_B).sample(noise_BN)[:, None]

    def propose(
        self,
        images: Mapping[str, torch.Tensor],
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
        noise_BKN: torch.Tensor,
    ) -> torch.Tensor:
        """See :class:`ptr_fast.learners.capabilities.Proposes`."""
        return self.actor(images, state_BTS[:, -1], task_id_B).sample(noise_BKN)[:, :, None]
