"""Conservative Q-learning as PTR runs it, with nothing computed twice.

One update: Bellman target, critic, target average, actor (with the new critic and the old temperature), temperature.

Note "Encode once". The reference tiles images before its ResNets and spends 19 encoder forwards of the batch (a
backward counts two). The same numbers need 9: target critic at s' (1), actor at s' (1), critic at s (3), actor at s (3,
shared by the conservative term and the actor loss, whose parameters are the same), updated critic at s (1). An actor
that looks through the critic's encoder makes it 6: the actor's four become one, the critic's encoder at s'.

Shapes: E ensemble, B batch, K sampled actions per state, A action, D embedding.
Source: PTR, ``jaxrl2/agents/cql_encodersep_parallel/``. Deviation: the DR3 term, whose published weight is 0, is left
out; it only changes anything where it is not finite.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ptr_fast import losses
from ptr_fast.config import PolicySpec
from ptr_fast.learners import base
from ptr_fast.learners.cql.config import CqlConfig
from ptr_fast.learners.cql.networks import make_actor, make_critic
from ptr_fast.learners.cql.terms import CqlTerms, cql_info, critic_terms
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.draws import Draws, draw_cql
from ptr_fast.learners.optimizer import AdamPolyak
from ptr_fast.nets import TanhGaussian, Temperature
from ptr_fast.side_stream import SideStream
from ptr_fast.types import Batch

__all__ = ["CqlLearner"]


class CqlLearner(base.BaseLearner):
    """Actor, critic, target critic, temperature and their optimisers; the configuration's defaults are the paper's.

    Args:
        config, spec, seed, device, encoder_dtype, ranks: as in :class:`ptr_fast.learners.base.BaseLearner`.
    """

    config: CqlConfig

    def __init__(
        self,
        config: CqlConfig,
        spec: PolicySpec,
        seed: int = 0,
        device: torch.device | str = "cpu",
        encoder_dtype: torch.dtype | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(config, spec, seed, device, encoder_dtype, ranks)
        self.target_entropy = -float(spec.action.dim) if config.target_entropy is None else config.target_entropy
        self.actor = make_actor(config, spec, seed).to(self.device)
        self.critic = make_critic(config, spec, seed).to(self.device)
        self.temperature = Temperature(config.init_temperature).to(self.device)
        self.ema_actor = base.averaged_copy(self.actor)
        self.target_critic = base.averaged_copy(self.critic)
        if self._shares_encoder:
            self.actor.encoder, self.ema_actor.encoder = self.critic.encoder, self.target_critic.encoder
        learned = (lambda actor: actor.policy) if self._shares_encoder else (lambda actor: actor)
        actor, ema_actor = base.trained(learned(self.actor), learned(self.ema_actor))
        critic, target_critic = base.trained(self.critic, self.target_critic)
        # The reference keeps separate states for critic encoder and heads, of one rate: the same as one Adam.
        self._actor_adam = AdamPolyak(actor, config.actor_lr, ema_actor, config.ema_tau)
        self._critic_adam = AdamPolyak(critic, config.critic_lr, target_critic, config.tau)
        self._temperature_adam = AdamPolyak(list(self.temperature.parameters()), config.temperature_lr)
        self._beside = SideStream()
        self._critic_backward = self.ranks.backward_of(critic)
        self._actor_backward = self.ranks.backward_of(actor)

    @property
    def _shares_encoder(self) -> bool:
        return self.config.actor_encoder == "critic"

    def networks(self) -> dict[str, nn.Module]:
        """Every net by name; ``ema_actor`` is the averaged actor."""
        return {
            "actor": self.actor,
            "ema_actor": self.ema_actor,
            "critic": self.critic,
            "target_critic": self.target_critic,
            "temperature": self.temperature,
        }

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Every optimiser by name."""
        return {"actor": self._actor_adam, "critic": self._critic_adam, "temperature": self._temperature_adam}

    def draw(self, samples: torch.Tensor | range, step: int | torch.Tensor) -> Draws:
        """The random numbers of update ``step``, on the device; ``samples`` as in :func:`draw_cql`."""
        return draw_cql(self.config, self._cameras, samples, self.spec.action.dim, self.seed, step, self.device)

    def update(self, batch: Batch, step: int, draws: Draws | None = None) -> dict[str, torch.Tensor]:
        """One gradient step of critic, actor and temperature.

        Args:
            batch: this rank's share, on the learner's device.
            step: number of the update, for the draws and the learning rates.
            draws: random numbers to use instead of those of seed, step and position in the whole batch.

        Returns:
            Detached 0-d tensors on the device, keys as in :mod:`ptr_fast.learners.cql.terms`; of this rank's share.

        Raises:
            ValueError: a batch that does not fit the spec.
        """
        return cql_info(batch, self.update_with_terms(batch, step, draws))

    def update_with_terms(self, batch: Batch, step: int, draws: Draws | None = None) -> CqlTerms:
        """:meth:`update`, returning the per-element quantities instead of their summary."""
        self.begin(batch, step)
        draws = self.draw(self.ranks.samples(len(batch)), step) if draws is None else draws
        dtype = self.temperature.log_temperature.dtype
        images, next_images = self.augmented_pair(batch, draws.augment, draws.next_augment, dtype)
        critic_terms, policy = self._critic_step(batch, images, next_images, draws)
        actor_terms = self._actor_step(batch, images, policy, draws)
        temperature_terms = self._temperature_step(actor_terms["entropy"])
        return CqlTerms(policy=policy.detach(), **critic_terms, **actor_terms, **temperature_terms)

    def lower_bounds(self, batch: Batch) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Of the Bellman target, and of Q of the policy's actions in the conservative term, ``[B]``; None: no bound."""
        return batch.returns, None

    def _critic_step(
        self, batch: Batch, images: base.Images, next_images: base.Images, draws: Draws
    ) -> tuple[dict, TanhGaussian]:
        """Update critic and target; return the terms and the policy at s, whose graph the actor step goes on with."""
        config, head = self.config, self.critic.head
        target_bound, policy_bound = self.lower_bounds(batch)
        # What is known at s' and what is seen at s do not need each other.
        with self._beside.fork(self.device), torch.no_grad():
            next_policy = self.actor(next_images, batch.next_state[:, -1], batch.task_id)
            next_actions, next_log_prob = next_policy.sample_with_log_prob(draws.next_eps)
            next_embedding = self.target_critic.encoder(next_images, len(batch))
            next_hoisted = self.target_critic.head.hoist(next_embedding, batch.next_state[:, -1], batch.task_id)
            next_q = self.target_critic.head.q(next_hoisted, next_actions)
            target = losses.td_target(next_q, batch.rewards, batch.masks, config.discount, target_bound)
        embedding = self.critic.encoder(images, len(batch))
        seen = embedding.detach() if self._shares_encoder else self.actor.encoder(images, len(batch))
        policy = self.actor.policy(seen, batch.state[:, -1], batch.task_id)
        with torch.no_grad():
            policy_actions, policy_log_prob = policy.sample_with_log_prob(draws.policy_eps)
        hoisted = head.hoist(embedding, batch.state[:, -1], batch.task_id)
        self._beside.join(self.device)
        sampled = (policy_actions, policy_log_prob, draws.random_actions)
        terms = critic_terms(head, hoisted, batch.actions[:, 0], *sampled, target, config.cql_alpha, policy_bound)
        _step(self._critic_adam, terms.critic_loss, self._critic_backward)
        return {
            "next_policy": next_policy,
            "next_actions_BKA": next_actions,
            "next_log_prob_BK": next_log_prob,
            "policy_actions_BKA": policy_actions,
            "policy_log_prob_BK": policy_log_prob,
            "embedding_BD": embedding.detach(),
            "next_target_embedding_BD": next_embedding,
            "next_q_EBK": next_q,
            "target_B": target,
            **terms.detached(),
        }, policy

    def _actor_step(self, batch: Batch, images: base.Images, policy: TanhGaussian, draws: Draws) -> dict:
        """Update actor and average, the updated critic being a constant: gradients reach Q's action input alone.

        ``policy`` is that of the critic step; an actor that shares the encoder looks again through the updated one.
        """
        with torch.no_grad():
            embedding = self.critic.encoder(images, len(batch))
            hoisted = self.critic.head.hoist(embedding, batch.state[:, -1], batch.task_id)
        if self._shares_encoder:
            policy = self.actor.policy(embedding, batch.state[:, -1], batch.task_id)
        actions, log_prob = policy.sample_with_log_prob(draws.actor_eps)
        q = self.critic.head.q(hoisted, actions[:, None]).squeeze(2)
        if self.config.cloning_weight > 0.0:
            scale = self.ranks.mean(q.detach().amin(dim=0).abs().mean())
            data_log_prob = policy.log_prob(batch.actions[:, 0])
            loss = losses.cloned_actor_loss(q, scale, data_log_prob, self.config.cloning_weight)
        else:
            loss = losses.actor_loss(log_prob, q, self.temperature())
        _step(self._actor_adam, loss, self._actor_backward)
        return {
            "actor_actions_BA": actions.detach(),
            "actor_log_prob_B": log_prob.detach(),
            "new_embedding_BD": embedding,
            "actor_q_EB": q.detach(),
            "actor_loss": loss.detach(),
            "entropy": self.ranks.mean(-log_prob.detach().mean()),
        }

    def _temperature_step(self, entropy: torch.Tensor) -> dict:
        temperature = self.temperature()
        loss = losses.temperature_loss(temperature, entropy, self.target_entropy)
        if self.config.cloning_weight == 0.0:  # else nothing reads it
            _step(self._temperature_adam, loss, torch.Tensor.backward)  # of the whole batch's entropy: it is the mean
        return {
            "temperature": temperature.detach(),
            "temperature_loss": loss.detach(),
            "new_temperature": self.temperature().detach(),
        }


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, backward: Callable[[torch.Tensor], None]) -> None:
    optimizer.zero_grad(set_to_none=True)
    backward(loss)
    optimizer.step()
