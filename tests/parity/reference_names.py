"""What the published code logs, by our names; and what it computes beside its update.

Two of its numbers, ``dr3_loss`` and ``pixel_norm_next``, need the online encoder at s'. The published configuration
gives the first the weight 0 and still runs the encoder on s' forward and backward for it; no update of ours computes
either.
"""

import torch

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


def dr3_loss(embedding_BD: torch.Tensor, next_embedding_BD: torch.Tensor, masks_B: torch.Tensor) -> torch.Tensor:
    """Mean masked inner product of the critic's embeddings at s and s'."""
    return (masks_B * (embedding_BD * next_embedding_BD).sum(dim=1)).mean()
