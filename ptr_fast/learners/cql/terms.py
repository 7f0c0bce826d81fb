"""The per-element terms of an update, and the numbers that it reports of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ptr_fast.nets import TanhGaussian
from ptr_fast.types import Batch

__all__ = ["CqlTerms", "cql_info"]


@dataclass(frozen=True, kw_only=True)
class CqlTerms:
    """Per-element quantities of one update, detached.

    Attributes:
        next_policy, policy: law of the action at s' and at s.
        next_actions_BKA, policy_actions_BKA, actor_actions_BA: sampled actions.
        next_log_prob_BK, policy_log_prob_BK, actor_log_prob_B: their log densities.
        embedding_BD, next_target_embedding_BD: online critic at s, target critic at s'.
        next_q_EBK, target_B: target critic at s', Bellman target.
        q_data_EB, q_policy_EBK, q_random_EBK, log_sum_exp_EB: online critic before its update.
        new_embedding_BD, actor_q_EB: critic after its update, at the actor's actions.
        critic_loss, bellman_loss, cql_loss, actor_loss, entropy, temperature, temperature_loss, new_temperature: 0-d.
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
    q_data_EB: torch.Tensor
    q_policy_EBK: torch.Tensor
    q_random_EBK: torch.Tensor
    log_sum_exp_EB: torch.Tensor
    new_embedding_BD: torch.Tensor
    actor_q_EB: torch.Tensor
    critic_loss: torch.Tensor
    bellman_loss: torch.Tensor
    cql_loss: torch.Tensor
    actor_loss: torch.Tensor
    entropy: torch.Tensor
    temperature: torch.Tensor
    temperature_loss: torch.Tensor
    new_temperature: torch.Tensor


@torch.no_grad()
def cql_info(batch: Batch, terms: CqlTerms) -> dict[str, torch.Tensor]:
    """Detached 0-d tensors by name; standard deviations divide by the number of elements."""
    q_data, q_policy, q_random = terms.q_data_EB, terms.q_policy_EBK, terms.q_random_EBK
    actions_BA = batch.actions[:, 0]
    gap = terms.log_sum_exp_EB - q_data
    data_log_prob = terms.policy.log_prob(actions_BA)
    q_data_mean, q_policy_mean, q_random_mean = q_data.mean(), q_policy.mean(), q_random.mean()
    mean, std = terms.policy.mean_BA, terms.policy.std_BA
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
        "q/target": terms.target_B.mean(),
        "critic/embedding_norm": terms.embedding_BD.norm(dim=1).mean(),
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
        "data/reward": batch.rewards.mean(),
        "data/mask": batch.masks.mean(),
        "data/action": actions_BA.mean(),
        "data/action_max": actions_BA.max(),
        "data/action_min": actions_BA.min(),
    }
