"""Losses of conservative Q-learning and behaviour cloning, as pure functions.

Shapes: E ensemble, B batch, K sampled actions per state, A action. Source: PTR, ``cql_encodersep_parallel``
(``critic_updater.py``, ``actor_updater.py``, ``temperature_updater.py``) and ``pixel_bc``.
"""

from __future__ import annotations

import math

import torch

__all__ = [
    "actor_loss",
    "advantage_weights",
    "bellman_errors",
    "bounded_log_sum_exp",
    "cloned_actor_loss",
    "cloning_loss",
    "cql_log_weight",
    "expectile_loss",
    "td_target",
    "temperature_loss",
]


def td_target(
    next_q_EBK: torch.Tensor,
    rewards_B: torch.Tensor,
    masks_B: torch.Tensor,
    discount: float,
    returns_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """Bellman target ``[B]``: reward + discount * mask * (max over actions of the min over heads).

    Rewards and masks may stand for several steps (:func:`ptr_fast.data.rewards.look_ahead`). With ``returns_B`` the
    target is at least that; -inf where nothing is known.
    """
    target_B = rewards_B + discount * masks_B * next_q_EBK.amin(dim=0).amax(dim=1)
    return target_B if returns_B is None else torch.maximum(target_B, returns_B)


def bellman_errors(q_EB: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
    """Squared errors ``[E, B]``; their mean over heads and batch is the Bellman loss."""
    return (q_EB - target_B).square()


def cql_log_weight(log_prob_BK: torch.Tensor, num_random: int, action_dim: int) -> torch.Tensor:
    """What is added to Q of data, policy and uniform actions, ``[B, 1 + K + num_random]``, before the log-sum-exp.

    Policy actions weigh 1 / pi(a|s), uniform actions on [-1, 1]^A weigh 2^A, the data's action takes no part; no
    division by the number of samples.
    """
    data = log_prob_BK.new_full((log_prob_BK.shape[0], 1), -math.inf)
    random = log_prob_BK.new_full((log_prob_BK.shape[0], num_random), action_dim * math.log(2.0))
    return torch.cat([data, -log_prob_BK, random], dim=1)


def bounded_log_sum_exp(
    q_EBK: torch.Tensor, log_weight_BK: torch.Tensor, num_policy: int, bound_B: torch.Tensor
) -> torch.Tensor:
    """``[E, B]``: the log-sum-exp over actions of Q + log weight, Q of the first ``num_policy`` being at least a bound.

    No gradient reaches a Q below its bound. Source: Cal-QL (arXiv 2303.05479), equation 5.1.
    """
    policy_EBK, random_EBK = q_EBK.split([num_policy, q_EBK.shape[2] - num_policy], dim=2)
    bounded_EBK = torch.where(policy_EBK < bound_B[:, None], bound_B[:, None], policy_EBK)
    return (torch.cat([bounded_EBK, random_EBK], dim=2) + log_weight_BK).logsumexp(dim=2)


def actor_loss(log_prob_B: torch.Tensor, q_EB: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """``mean(temperature * log_prob - min over heads of Q)``; the temperature is a constant."""
    return (temperature.detach() * log_prob_B - q_EB.amin(dim=0)).mean()


def cloned_actor_loss(
    q_EB: torch.Tensor, scale: torch.Tensor, log_prob_data_B: torch.Tensor, cloning_weight: float
) -> torch.Tensor:
    """``mean(-min over heads of Q / scale - cloning_weight * log pi(recorded action))``.

    The scale, the batch's mean of that minimum's size, is a constant: the weight then means the same at any reward.
    Source: the deterministic policy gradient with behaviour cloning of Fujimoto and Gu 2021 (TD3+BC), with the log
    density of Park et al. 2024 (arXiv 2406.09329).
    """
    return -(q_EB.amin(dim=0) / scale.detach()).mean() + cloning_weight * cloning_loss(log_prob_data_B)


def temperature_loss(temperature: torch.Tensor, entropy: torch.Tensor, target_entropy: float) -> torch.Tensor:
    """``temperature * (entropy - target_entropy)``; the entropy is a constant."""
    return temperature * (entropy.detach() - target_entropy)


def cloning_loss(log_prob_B: torch.Tensor, weight_B: torch.Tensor | None = None) -> torch.Tensor:
    """Mean negative log density of the data's actions, nats; with weights, constants, of the weighted log densities."""
    return -(log_prob_B if weight_B is None else weight_B.detach() * log_prob_B).mean()


def expectile_loss(residual_B: torch.Tensor, expectile: float) -> torch.Tensor:
    """Mean of ``|expectile - 1(residual < 0)| * residual^2``, of residuals target - value, ``[B]``.

    Its minimum over the value is the expectile of the targets: at 0.5 their mean, near 1 the largest.

    Source: IQL (arXiv 2110.06169), equation 5.
    """
    weight_B = torch.where(residual_B < 0, 1.0 - expectile, expectile)
    return (weight_B * residual_B.square()).mean()


def advantage_weights(advantage_B: torch.Tensor, temperature: float, max_weight: float) -> torch.Tensor:
    """``min(exp(advantage / temperature), max_weight)``, ``[B]``; never infinite.

    Source: advantage-weighted regression (Peng et al. 2019) as IQL (arXiv 2110.06169), equation 7, cuts it.
    """
    return (advantage_B / temperature).clamp(max=math.log(max_weight)).exp()
