"""Names of the numbers that an update reports, and how they follow from its per-element terms.

``REFERENCE_NAMES`` maps the reference's logged names to ours. Two of its numbers, ``dr3_loss`` and ``pixel_norm_next``,
need the online encoder at s', which costs one more encoder forward and has no influence on training: they are not part
of an update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ptr_fast.types import Batch

if TYPE_CHECKING:
    from ptr_fast.learners.cql import CqlTerms

__all__ = ["REFERENCE_NAMES", "cql_info"]

REFERENCE_NAMES = {
    "critic_loss": "train/critic_loss",
    "bellman_loss": "train/bellman_loss",
    "cql_loss_mean": "train/cql_loss",
    "cql_loss_max": "train/cql_loss_max",
    "cql_loss_min": "train/cql_loss_min",
    "cql_loss_std": "train/cql_loss_std",
    "lse_q": "q/lse",
    "q_pi_avg": "q/policy",
    "q_pi_max": "q/policy_max",
    "q_pi_min": "q/policy_min",
    "q_random": "q/random",
    "q_data_avg": "q/data",
    "q_data_max": "q/data_max",
    "q_data_min": "q/data_min",
    "q_data_std": "q/data_std",
    "diff_pi_data_mean": "q/policy_minus_data",
    "diff_rand_data_mean": "q/random_minus_data",
    "target_actor_entropy": "actor/next_entropy",
    "log_pis_mean": "actor/sample_log_prob",
    "log_pis_max": "actor/sample_log_prob_max",
    "log_pis_min": "actor/sample_log_prob_min",
    "pixel_norm_current": "critic/embedding_norm",
    "actor_loss": "actor/loss",
    "entropy": "actor/entropy",
    "q_pi_in_actor": "actor/q",
    "mean_pi_norm": "actor/mean_norm",
    "std_pi_norm": "actor/std_norm",
    "mean_pi_avg": "actor/mean",
    "std_pi_avg": "actor/std",
    "dataset_actions_log_prob_mean": "actor/log_prob_data",
    "temperature": "temperature/value",
    "temperature_loss": "temperature/loss",
    "new_temperature": "temperature/next_value",
}


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
