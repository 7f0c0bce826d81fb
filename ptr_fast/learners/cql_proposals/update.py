"""CQL with cloned proposals: a clone of many modes proposes actions, a conservative critic values and chooses them.

The clone is trained by maximum likelihood, the critic beside it on the same batch. Where CQL samples an actor that is
trained on Q, the clone's samples stand, so neither the target nor the conservative term ever asks about actions far
from the data, and no actor's failure pulls the critic down:

- target: r + discount^n * mask * max over proposals a' of the averaged clone of min over the averaged critics Q(s', a')
- critic: mean of (Q - target)^2 + cql_alpha * (log-sum-exp - Q of the data), the log-sum-exp over K proposals with
  -log pi(a|s), clipped to 10 nats either way, and K uniform actions with A log 2
- acting: the best of the averaged clone's samples by the minimum of the averaged critics.

Relatives: BCQ (Fujimoto et al. 2019) and EMaQ (Ghasemipour et al. 2021) take the maximum over a clone's samples in the
backup; IDQL (Hansen-Estruch et al. 2023) and V-GPS (Nakamoto et al. 2024) choose among a clone's samples when acting.

Note "Encode once". Each image meets each encoder once: the critic's and the clone's at s (forward and backward), their
averages at s' (forward): 8 encoder forwards of the batch, or 4 where the two share one encoder.

Shapes: E ensemble, B batch, K sampled actions per state, A action, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ptr_fast import losses
from ptr_fast.config import PolicySpec
from ptr_fast.learners import base
from ptr_fast.learners.cql.terms import CriticTerms, critic_info, critic_terms, data_info
from ptr_fast.learners.cql_proposals.config import CqlProposalsConfig
from ptr_fast.learners.cql_proposals.draws import ProposalDraws, draw_proposals
from ptr_fast.learners.cql_proposals.networks import make_clone, make_critic_of
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.optimizer import AdamPolyak
from ptr_fast.nets import Mixture
from ptr_fast.types import Batch

__all__ = ["CqlProposalsLearner", "ProposalTerms"]

LARGEST_LOG_PROB = 10.0
"""Nats, either way: so far a proposal's log density counts in the log-sum-exp."""


@dataclass(frozen=True, kw_only=True)
class ProposalTerms(CriticTerms):
    """Per-element quantities of one update, detached; those of CriticTerms: online critic before its update.

    Attributes:
        law: the clone at s.
        next_q_EBK, target_B: averaged critic of the averaged clone's proposals at s', Bellman target.
        proposals_BKA, proposal_log_prob_BK: the clone's samples at s.
        embedding_BD: of the critic at s.
        log_prob_data_B: the clone's log density of the recorded actions.
    """

    law: Mixture
    next_q_EBK: torch.Tensor
    target_B: torch.Tensor
    proposals_BKA: torch.Tensor
    proposal_log_prob_BK: torch.Tensor
    embedding_BD: torch.Tensor
    log_prob_data_B: torch.Tensor


class CqlProposalsLearner(base.BaseLearner):
    """Clone, critic, their averages and optimisers.

    Args:
        config, spec, seed, device, encoder_dtype, ranks: as in :class:`ptr_fast.learners.base.BaseLearner`.
    """

    config: CqlProposalsConfig

    def __init__(
        self,
        config: CqlProposalsConfig,
        spec: PolicySpec,
        seed: int = 0,
        device: torch.device | str = "cpu",
        encoder_dtype: torch.dtype | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(config, spec, seed, device, encoder_dtype, ranks)
        self.actor = make_clone(config, spec, seed).to(self.device)
        self.critic = make_critic_of(config, spec, seed).to(self.device)
        self.ema_actor, self.target_critic = base.averaged_copy(self.actor), base.averaged_copy(self.critic)
        self._shares_encoder = config.actor_encoder == "critic"
        if self._shares_encoder:
            self.actor.encoder, self.ema_actor.encoder = self.critic.encoder, self.target_critic.encoder
            actor, ema_actor = base.trained(self.actor.policy, self.ema_actor.policy)
        else:
            actor, ema_actor = base.trained(self.actor, self.ema_actor)
        critic, target_critic = base.trained(self.critic, self.target_critic)
        self._actor_adam = AdamPolyak(actor, config.actor_lr, ema_actor, config.ema_tau)
        self._critic_adam = AdamPolyak(critic, config.critic_lr, target_critic, config.tau)
        self._backward = self.ranks.backward_of(actor + critic)

    def networks(self) -> dict[str, nn.Module]:
        """Every net by name; ``actor`` is the clone."""
        return {
            "actor": self.actor,
            "ema_actor": self.ema_actor,
            "critic": self.critic,
            "target_critic": self.target_critic,
        }

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Every optimiser by name."""
        return {"actor": self._actor_adam, "critic": self._critic_adam}

    def draw(self, samples: torch.Tensor | range, step: int | torch.Tensor) -> ProposalDraws:
        """The random numbers of update ``step``, on the device; ``samples`` as in :func:`draw_proposals`."""
        return draw_proposals(self.config, self._cameras, samples, self.spec.action.dim, self.seed, step, self.device)

    def update(self, batch: Batch, step: int, draws: ProposalDraws | None = None) -> dict[str, torch.Tensor]:
        """One gradient step of clone and critic.

        Args:
            batch: this rank's share, on the learner's device.
            step: number of the update, for the draws and the learning rates.
            draws: random numbers to use instead of those of seed, step and position in the whole batch.

        Returns:
            Detached 0-d tensors on the device, of this rank's share.

        Raises:
            ValueError: a batch that does not fit the spec.
        """
        return _info(batch, self.update_with_terms(batch, step, draws))

    def update_with_terms(self, batch: Batch, step: int, draws: ProposalDraws | None = None) -> ProposalTerms:
        """:meth:`update`, returning the per-element quantities instead of their summary."""
        self.begin(batch, step)
        draws = self.draw(self.ranks.samples(len(batch)), step) if draws is None else draws
        dtype = self.critic.head.biases[0].dtype
        images, next_images = self.augmented_pair(batch, draws.augment, draws.next_augment, dtype)
        with torch.no_grad():
            next_q_EBK, target_B = self._target(batch, next_images, draws.next_noise)
        terms = self._terms(batch, images, draws, next_q_EBK, target_B)
        for optimizer in self.optimizers().values():
            optimizer.zero_grad(set_to_none=True)
        self._backward(terms.critic_loss + losses.cloning_loss(terms.log_prob_data_B))
        for optimizer in self.optimizers().values():
            optimizer.step()
        return ProposalTerms(**terms.detached())

    def _target(
        self, batch: Batch, next_images: base.Images, noise_BKN: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Q ``[E, B, K]`` of the averaged critic at the averaged clone's proposals, and the target ``[B]``."""
        critic, seen = self.target_critic, (batch.next_state[:, -1], batch.task_id)
        embedding = critic.encoder(next_images, len(batch))
        own = embedding if self._shares_encoder else self.ema_actor.encoder(next_images, len(batch))
        proposals = self.ema_actor.policy(own, *seen).sample(noise_BKN)
        next_q = critic.head.q(critic.head.hoist(embedding, *seen), proposals)
        target = losses.td_target(next_q, batch.rewards, batch.masks, self.config.discount, batch.returns)
        return next_q, target

    def _terms(
        self, batch: Batch, images: base.Images, draws: ProposalDraws, next_q_EBK: torch.Tensor, target_B: torch.Tensor
    ) -> ProposalTerms:
        """Losses of critic and clone at s, with gradients."""
        head, seen, data = self.critic.head, (batch.state[:, -1], batch.task_id), batch.actions[:, 0]
        embedding = self.critic.encoder(images, len(batch))
        own = embedding if self._shares_encoder else self.actor.encoder(images, len(batch))
        law = self.actor.policy(own, *seen)
        with torch.no_grad():
            proposals, log_prob = law.sample_with_log_prob(draws.proposal_noise)
            bounded = log_prob.clamp(-LARGEST_LOG_PROB, LARGEST_LOG_PROB)
        sampled = (proposals, bounded, draws.random_actions)
        values, weight = (head, head.hoist(embedding, *seen)), batch.critic_weight
        critic = critic_terms(*values, data, *sampled, target_B, self.config.cql_alpha, weight_B=weight)
        return ProposalTerms(
            **vars(critic),
            law=law,
            next_q_EBK=next_q_EBK,
            target_B=target_B,
            proposals_BKA=proposals,
            proposal_log_prob_BK=log_prob,
            embedding_BD=embedding,
            log_prob_data_B=law.log_prob(data),
        )


@torch.no_grad()
def _info(batch: Batch, terms: ProposalTerms) -> dict[str, torch.Tensor]:
    """What an update reports: detached 0-d tensors by name."""
    law, log_prob = terms.law, terms.log_prob_data_B
    weight = law.log_weight_BC.exp()
    return {
        **critic_info(terms, terms.target_B, terms.embedding_BD),
        "train/clone_loss": losses.cloning_loss(log_prob),
        "actor/mse": (law.mode() - batch.actions[:, 0]).square().mean(),
        "actor/log_prob_data": log_prob.mean(),
        "actor/log_prob_data_min": log_prob.min(),
        "actor/sample_log_prob": terms.proposal_log_prob_BK.mean(),
        "actor/std": (weight[..., None] * law.std_BCA).sum(dim=1).mean(),
        "actor/components": weight.square().sum(dim=1).reciprocal().mean(),
        **data_info(batch),
    }
