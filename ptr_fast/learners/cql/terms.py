"""The per-element terms of an update, and the numbers that it reports of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ptr_fast import losses
from ptr_fast.nets import EnsembleHead, Hoisted, TanhGaussian
from ptr_fast.types import Batch

__all__ = ["CqlTerms", "CriticTerms", "cql_info", "critic_info", "critic_terms", "data_info"]


@dataclass(frozen=True, kw_only=True)
class CriticTerms:
    """The losses of a conservative critic and what they are made of.

    Attributes:
        q_data_EB, q_policy_EBK, q_random_EBK: Q of recorded, of the policy's and of uniform actions.
        log_sum_exp_EB: see :func:`ptr_fast.losses.cql_log_weight`.
        critic_loss, bellman_loss, cql_loss: 0-d; the first is the sum of the others by their weights.
    """

    q_data_EB: torch.Tensor
    q_policy_EBK: torch.Tensor
    q_random_EBK: torch.Tensor
    log_sum_exp_EB: torch.Tensor
    critic_loss: torch.Tensor
    bellman_loss: torch.Tensor
    cql_loss: torch.Tensor

    def detached(self) -> dict[str, Any]:
        """The fields by name, as constants."""
        return {name: value.detach() for name, value in vars(self).items()}


def critic_terms(
    head: EnsembleHead,
    hoisted: Hoisted,
    data_actions_BA: torch.Tensor,
    policy_actions_BKA: torch.Tensor,
    policy_log_prob_BK: torch.Tensor,
    random_actions_BKA: torch.Tensor,
    target_B: torch.Tensor,
    cql_alpha: float,
    policy_bound_B: torch.Tensor | None = None,
    weight_B: torch.Tensor | None = None,
) -> CriticTerms:
    """The conservative Bellman loss of a critic's heads; all 1 + 2 K actions of a state in one call of ``cql_head``.

    Args:
        head, hoisted: of the states; gradients reach both.
        policy_actions_BKA, policy_log_prob_BK: samples of a policy and their log densities, constants.
        random_actions_BKA: uniform in the action range.
        target_B: Bellman target, a constant.
        cql_alpha: weight of the conservative term.
        policy_bound_B: the log-sum-exp takes Q of the policy's actions to be at least this (Cal-QL), -inf where nothing
            is known; None: no bound, and Q and log-sum-exp are one fused pass.
        weight_B: how much each state counts in both losses; None: all alike.
    """
    num_policy, num_random = policy_actions_BKA.shape[1], random_actions_BKA.shape[1]
    with torch.no_grad():
        actions = torch.cat([data_actions_BA[:, None], policy_actions_BKA, random_actions_BKA], dim=1)
        log_weight = losses.cql_log_weight(policy_log_prob_BK, num_random, data_actions_BA.shape[1])
    if policy_bound_B is None:
        q, log_sum_exp = head.q_and_log_sum_exp(hoisted, actions, log_weight)
    else:
        q = head.q(hoisted, actions)
        log_sum_exp = losses.bounded_log_sum_exp(q[..., 1:], log_weight[:, 1:], num_policy, policy_bound_B)
    q_data, q_policy, q_random = q.split([1, num_policy, num_random], dim=2)
    q_data = q_data.squeeze(2)
    errors, gaps = losses.bellman_errors(q_data, target_B), log_sum_exp - q_data
    if weight_B is not None:
        errors, gaps = errors * weight_B, gaps * weight_B
    bellman_loss, cql_loss = errors.mean(), gaps.mean()
    return CriticTerms(
        q_data_EB=q_data,
        q_policy_EBK=q_policy,
        q_random_EBK=q_random,
        log_sum_exp_EB=log_sum_exp,
        critic_loss=bellman_loss + cql_alpha * cql_loss,
        bellman_loss=bellman_loss,
        cql_loss=cql_loss,
    )


@dataclass(frozen=True, kw_only=True)
class CqlTerms(CriticTerms):
    """Per-element quantities of one update, detached.

    Attributes:
        next_policy, policy: law of the action at s' and at s.
        next_actions_BKA, policy_actions_BKA, actor_actions_BA: sampled actions.
        next_log_prob_BK, policy_log_prob_BK, actor_log_prob_B: their log densities.
        embedding_BD, next_target_embedding_BD: online critic at s, target critic at s'.
        next_q_EBK, target_B: target critic at s', Bellman target.
        those of CriticTerms: online critic before its update.
        new_embedding_BD, actor_q_EB: critic after its update, at the actor's actions.
        actor_loss, entropy, temperature, temperature_loss, new_temperature: 0-d.
    """

    next_policy: TanhGaussian
    policy: TanhGaussian
    next_actions_BKA: torch.Tensor
    policy_actions_BKA: torch.Tensor
    actor_actions_BA: torch.Tensor
    next_log_prob_BK: torch.Tensor
    policy_log_prob_BK: torch.Tensor
    actor_log_prob_B: torch.Tensor
    embedding_BD: torch.Tensor
    next_target_embedding_BD: torch.Tensor
    next_q_EBK: torch.Tensor
    target_B: torch.Tensor
    new_embedding_BD: torch.Tensor
    actor_q_EB: torch.Tensor
    actor_loss: torch.Tensor
    entropy: torch.Tensor
    temperature: torch.Tensor
    temperature_loss: torch.Tensor
    new_temperature: torch.Tensor


@torch.no_grad()
def critic_info(terms: CriticTerms, target_B: torch.Tensor, embedding_BD: torch.Tensor) -> dict[str, torch.Tensor]:
    """What an update reports of a conservative critic: 0-d tensors by name; the terms are detached."""
    q_data, q_policy, q_random = terms.q_data_EB, terms.q_policy_EBK, terms.q_random_EBK
    gap = terms.log_sum_exp_EB - q_data
    q_data_mean, q_policy_mean, q_random_mean = q_data.mean(), q_policy.mean(), q_random.mean()
    return {
        "train/critic_loss": terms.critic_loss,
        "train/bellman_loss": terms.bellman_loss,
        "train/cql_loss": terms.cql_loss,
        "train/cql_loss_max": gap.max(),
        "train/cql_loss_min": gap.min(),
        "train/cql_loss_std": gap.std(correction=0),
        "q/lse": terms.log_sum_exp_EB.mean(),
        "q/policy": q_policy_mean,
        "q/policy_max": q_policy.max(),
        "q/policy_min": q_policy.min(),
        "q/random": q_random_mean,
        "q/data": q_data_mean,
        "q/data_max": q_data.max(),
        "q/data_min": q_data.min(),
        "q/data_std": q_data.std(correction=0),
        "q/policy_minus_data": q_policy_mean - q_data_mean,
        "q/random_minus_data": q_random_mean - q_data_mean,
        "q/target": target_B.mean(),
        "critic/embedding_norm": embedding_BD.norm(dim=1).mean(),
    }


@torch.no_grad()
def data_info(batch: Batch) -> dict[str, torch.Tensor]:
    """What an update reports of its batch: 0-d tensors by name."""
    actions_BA = batch.actions[:, 0]
    return {
        "data/reward": batch.rewards.mean(),
        "data/mask": batch.masks.mean(),
        "data/action": actions_BA.mean(),
        "data/action_max": actions_BA.max(),
        "data/action_min": actions_BA.min(),
    }


@torch.no_grad()
def cql_info(batch: Batch, terms: CqlTerms) -> dict[str, torch.Tensor]:
    """Detached 0-d tensors by name; standard deviations divide by the number of elements."""
    data_log_prob = terms.policy.log_prob(batch.actions[:, 0])
    mean, std = terms.policy.mean_BA, terms.policy.std_BA
    return {
        **critic_info(terms, terms.target_B, terms.embedding_BD),
        "actor/loss": terms.actor_loss,
        "actor/entropy": terms.entropy,
        "actor/next_entropy": -terms.next_log_prob_BK.mean(),
        "actor/q": terms.actor_q_EB.amin(dim=0).mean(),
        "actor/sample_log_prob": terms.policy_log_prob_BK.mean(),
        "actor/sample_log_prob_max": terms.policy_log_prob_BK.max(),
        "actor/sample_log_prob_min": terms.policy_log_prob_BK.min(),
        "actor/mean": mean.mean(),
        "actor/mean_max": mean.max(),
        "actor/mean_min": mean.min(),
        "actor/mean_norm": mean.norm(dim=1).mean(),
        "actor/std": std.mean(),
        "actor/std_max": std.max(),
        "actor/std_min": std.min(),
        "actor/std_norm": std.norm(dim=1).mean(),
        "actor/log_prob_data": data_log_prob.mean(),
        "actor/log_prob_data_max": data_log_prob.max(),
        "actor/log_prob_data_min": data_log_prob.min(),
        "actor/log_prob_data_std": data_log_prob.std(correction=0),
        "temperature/value": terms.temperature,
        "temperature/loss": terms.temperature_loss,
        "temperature/next_value": terms.new_temperature,
        **data_info(batch),
    }
