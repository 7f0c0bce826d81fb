"""Implicit Q-learning. One update: value, actor (with the new value), critic (with the new value), target average.

Shapes: E ensemble, B batch, A action, D embedding.
Source: Kostrikov, Nair and Levine 2021 (arXiv 2110.06169), equations 5 to 7; the order of the steps and the cut of the
weights are those of its authors' program. Deviations: the actor's law is CQL's tanh-Gaussian with a spread that depends
on the state, where the paper's has one spread for all states, so that its samples can be searched among; and the target
may look several steps ahead and be bounded by the observed return, as the rewards of the run say.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from ptr_fast import losses
from ptr_fast.config import PolicySpec
from ptr_fast.kernels.counter_random import Stream
from ptr_fast.learners import base
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.draws import draw_images
from ptr_fast.learners.iql.config import IqlConfig
from ptr_fast.learners.iql.networks import IqlNetworks, StateValue
from ptr_fast.learners.optimizer import AdamPolyak
from ptr_fast.nets import Actor, Critic
from ptr_fast.types import Batch

__all__ = ["IqlLearner"]


class IqlLearner(base.BaseLearner):
    """Actor, critic, their averages, the value of states, and their optimisers.

    Args:
        config, spec, seed, device, encoder_dtype, ranks: as in :class:`ptr_fast.learners.base.BaseLearner`.
    """

    config: IqlConfig

    def __init__(
        self,
        config: IqlConfig,
        spec: PolicySpec,
        seed: int = 0,
        device: torch.device | str = "cpu",
        encoder_dtype: torch.dtype | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(config, spec, seed, device, encoder_dtype, ranks)
        made = IqlNetworks(config).make_networks(spec, ["actor", "critic", "value"], seed)
        self.actor = cast(Actor, made["actor"].to(self.device))
        self.critic = cast(Critic, made["critic"].to(self.device))
        self.value = cast(StateValue, made["value"].to(self.device))
        self.ema_actor, self.target_critic = base.averaged_copy(self.actor), base.averaged_copy(self.critic)
        actor, ema_actor = base.trained(self.actor, self.ema_actor)
        critic, target_critic = base.trained(self.critic, self.target_critic)
        value = list(self.value.parameters())
        self._adams = {
            "actor": AdamPolyak(actor, config.actor_lr, ema_actor, config.ema_tau),
            "critic": AdamPolyak(critic, config.critic_lr, target_critic, config.tau),
            "value": AdamPolyak(value, config.value_lr),
        }
        trained = {"actor": actor, "critic": critic, "value": value}
        self._backward = {name: self.ranks.backward_of(parameters) for name, parameters in trained.items()}

    def networks(self) -> dict[str, nn.Module]:
        """Every net by name; ``ema_actor`` is the averaged actor."""
        return {name: getattr(self, name) for name in self._traits.networks}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Every optimiser by name."""
        return dict(self._adams)

    def update(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """One gradient step of value, actor and critic.

        Args:
            batch: this rank's share, on the learner's device.
            step: number of the update, for the augmentation and the learning rates.

        Returns:
            Detached 0-d tensors on the device, of this rank's share.

        Raises:
            ValueError: a batch that does not fit the spec.
        """
        self.begin(batch, step)
        images, next_images = self._augmented(batch, step)
        state, actions = batch.state[:, -1], batch.actions[:, :1]
        embedding = self.critic.encoder(images, len(batch))
        with torch.no_grad():
            q_target_B = self.target_critic(images, state, batch.task_id, actions).squeeze(2).amin(dim=0)
            next_embedding = self.critic.encoder(next_images, len(batch))
        seen = embedding.detach()
        return {
            **self._value_step(batch, seen, q_target_B),
            **self._actor_step(batch, images, seen, q_target_B),
            **self._critic_step(batch, embedding, next_embedding),
            "data/reward": batch.rewards.mean(),
            "data/mask": batch.masks.mean(),
        }

    def _augmented(self, batch: Batch, step: int) -> tuple[base.Images, base.Images]:
        now = later = None
        if self.config.encoder.sees_images:
            samples, streams = self.ranks.samples(len(batch)), [Stream.AUGMENT, Stream.NEXT_AUGMENT]
            now, later = draw_images(self.config.augment, self._cameras, streams, samples, self.seed, step, self.device)
        return self.augmented_pair(batch, now, later, self.value.value.weight.dtype)

    def _value_step(
        self, batch: Batch, embedding_BD: torch.Tensor, q_target_B: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Update the value: an expectile of the averaged critics' Q of recorded actions."""
        value_B = self.value(embedding_BD, batch.state[:, -1], batch.task_id)
        loss = losses.expectile_loss(q_target_B - value_B, self.config.expectile)
        self._step("value", loss)
        return {"train/value_loss": loss.detach(), "q/value": value_B.detach().mean()}

    def _actor_step(
        self, batch: Batch, images: base.Images, embedding_BD: torch.Tensor, q_target_B: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Update the actor: recorded actions, weighted by their advantage over the updated value."""
        config, state, actions = self.config, batch.state[:, -1], batch.actions[:, 0]
        with torch.no_grad():
            advantage_B = q_target_B - self.value(embedding_BD, state, batch.task_id)
            weight_B = losses.advantage_weights(advantage_B, config.advantage_temperature, config.max_weight)
        law = self.actor(images, state, batch.task_id)
        log_prob_B = law.log_prob(actions)
        loss = losses.cloning_loss(log_prob_B, weight_B)
        self._step("actor", loss)
        with torch.no_grad():
            return {
                "actor/loss": loss.detach(),
                "actor/log_prob_data": log_prob_B.mean(),
                "actor/std": law.std_BA.mean(),
                "actor/mse": (law.mode() - actions).square().mean(),
                "weights/advantage": advantage_B.mean(),
                "weights/advantage_std": advantage_B.std(correction=0),
                "weights/mean": weight_B.mean(),
                "weights/weight_max": weight_B.max(),
                "weights/cut": (weight_B > 0.999 * config.max_weight).float().mean(),
            }

    def _critic_step(
        self, batch: Batch, embedding_BD: torch.Tensor, next_embedding_BD: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Update critic and target critic towards the reward and the updated value of the next state."""
        with torch.no_grad():
            next_value_B = self.value(next_embedding_BD, batch.next_state[:, -1], batch.task_id)
            next_q_EBK = next_value_B[None, :, None]  # one action of one head: neither is chosen among
            target_B = losses.td_target(next_q_EBK, batch.rewards, batch.masks, self.config.discount, batch.returns)
        head = self.critic.head
        q_EB = head.q(head.hoist(embedding_BD, batch.state[:, -1], batch.task_id), batch.actions[:, :1]).squeeze(2)
        loss = losses.bellman_errors(q_EB, target_B).mean()
        self._step("critic", loss)
        q_EB = q_EB.detach()
        return {
            "train/critic_loss": loss.detach(),
            "q/data": q_EB.mean(),
            "q/data_max": q_EB.max(),
            "q/data_min": q_EB.min(),
            "q/target": target_B.mean(),
        }

    def _step(self, name: str, loss: torch.Tensor) -> None:
        self._adams[name].zero_grad(set_to_none=True)
        self._backward[name](loss)
        self._adams[name].step()
