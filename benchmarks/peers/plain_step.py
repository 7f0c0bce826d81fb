"""Our algebra in plain PyTorch, eager or under ``torch.compile``: what a good engineer gets without our kernels.

Nine encoder forwards: target critic at s' (1), actor at s' (1), critic at s (3), actor at s (3, shared by the
conservative term and the actor loss), updated critic at s (1). PyTorch's own fused Adam and a foreach average.
The three loss computations and the augmentation are what is compiled, each with its backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.cases import parameters_by_name
from benchmarks.peers import plain_augment
from benchmarks.peers.plain_batch import PlainBatch, only, plain
from benchmarks.peers.plain_draws import draw
from benchmarks.peers.plain_nets import PlainNets, tanh_sample
from ptr_fast.learners import CqlLearner, Draws
from ptr_fast.types import Batch

__all__ = ["PlainStep"]


class PlainStep:
    """One update after another on a copy of a learner's weights.

    Args:
        learner: whose weights and configuration are taken; it is left alone.
        dtype: of the encoder's activations.
        compile_options: of ``torch.compile``, e.g. ``{"mode": "max-autotune"}``; None runs eagerly.
    """

    def __init__(
        self,
        learner: CqlLearner,
        dtype: torch.dtype = torch.float32,
        compile_options: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.spec = learner.config, learner.spec
        self.target_entropy, self.device = learner.target_entropy, learner.device
        self.nets = PlainNets(self.config, dtype)
        self.compiled = compile_options is not None
        self.weights = {}
        for name, value in parameters_by_name(learner).items():
            copy = value.detach().clone(memory_format=torch.preserve_format)
            self.weights[name] = copy.requires_grad_(not name.startswith("target_critic."))
            if self.compiled:  # as a module's parameters are: a graph of reduce-overhead would copy others every time
                torch._dynamo.mark_static_address(copy, guard=False)
        self._actor = [value for name, value in self.weights.items() if name.startswith("actor.")]
        self._critic = [value for name, value in self.weights.items() if name.startswith("critic.")]
        self._target = [value for name, value in self.weights.items() if name.startswith("target_critic.")]
        self._ema_actor = [value.detach().clone(memory_format=torch.preserve_format) for value in self._actor]
        self._log_temperature = self.weights["temperature.log_temperature"]
        rates = self.config.actor_lr, self.config.critic_lr, self.config.temperature_lr
        parameters = self._actor, self._critic, [self._log_temperature]
        self._adam = [
            torch.optim.Adam(group, lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=True, capturable=group[0].is_cuda)
            for group, lr in zip(parameters, rates, strict=True)
        ]

        def prepared(function: Callable[..., Any]) -> Callable[..., Any]:
            return (
                torch.compile(function, dynamic=False, **compile_options) if compile_options is not None else function
            )

        self._policy_at_s, self._critic_loss = prepared(self._policy_at_s), prepared(self._critic_loss)
        self._actor_loss, self._augment = prepared(self._actor_loss), prepared(plain_augment.augment)

    def update(self, batch: Batch, draws: Draws | None = None) -> dict[str, torch.Tensor]:
        """One gradient step of critic, actor and temperature; the losses as 0-d tensors."""
        config = self.config
        draws = draw(config, len(batch), self.spec.action.dim, self.device) if draws is None else draws
        batch = plain(batch)
        if self.compiled and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            images = self._augment(batch.images, only(draws.augment), self.nets.dtype)
            next_images = self._augment(batch.next_images, only(draws.next_augment), self.nets.dtype)
            task = F.one_hot(batch.task_id, self.spec.tasks.num_slots).float()
        mean, log_std = self._policy_at_s(images, batch.state, task)
        critic_loss, bellman_loss, cql_loss = self._critic_loss(
            images, next_images, batch, task, draws, mean.detach(), log_std.detach()
        )
        _minimise(self._adam[1], critic_loss)
        with torch.no_grad():
            torch._foreach_lerp_(self._target, self._critic, config.tau)
        for parameter in self._critic:
            parameter.requires_grad_(False)
        actor_loss, entropy = self._actor_loss(mean, log_std, images, task, draws)
        _minimise(self._adam[0], actor_loss)
        for parameter in self._critic:
            parameter.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(self._ema_actor, [value.detach() for value in self._actor], config.ema_tau)
        temperature_loss = self._log_temperature.exp() * (entropy.detach() - self.target_entropy)
        _minimise(self._adam[2], temperature_loss)
        return {
            "critic_loss": critic_loss.detach(),
            "bellman_loss": bellman_loss.detach(),
            "cql_loss": cql_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "temperature_loss": temperature_loss.detach(),
        }

    def _policy_at_s(self, images: torch.Tensor, state: torch.Tensor, task: torch.Tensor) -> Any:
        return self.nets.policy(self.weights, self.nets.encode(self.weights, "actor", images), state, task)

    def _critic_loss(
        self,
        images: torch.Tensor,
        next_images: torch.Tensor,
        batch: PlainBatch,
        task: torch.Tensor,
        draws: Draws,
        mean: torch.Tensor,
        log_std: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        nets, weights, config = self.nets, self.weights, self.config
        with torch.no_grad():
            law = nets.policy(weights, nets.encode(weights, "actor", next_images), batch.next_state, task)
            next_actions, _ = tanh_sample(*law, draws.next_eps)
            next_embedding = nets.encode(weights, "target_critic", next_images)
            next_q = nets.heads(weights, "target_critic", next_embedding, task, next_actions)
            target = batch.rewards + config.discount * batch.masks * next_q.amin(dim=0).amax(dim=1)
            policy_actions, log_prob = tanh_sample(mean, log_std, draws.policy_eps)
            actions = torch.cat([batch.actions[:, None], policy_actions, draws.random_actions], dim=1)
        q = nets.heads(weights, "critic", nets.encode(weights, "critic", images), task, actions)
        q_data, q_policy, q_random = q.split([1, config.num_action_samples, config.num_action_samples], dim=2)
        weighted = torch.cat([q_policy - log_prob, q_random + actions.shape[2] * math.log(2.0)], dim=2)
        log_sum_exp = weighted.logsumexp(dim=2)
        bellman_loss = (q_data.squeeze(2) - target).square().mean()
        cql_loss = (log_sum_exp - q_data.squeeze(2)).mean()
        return bellman_loss + config.cql_alpha * cql_loss, bellman_loss, cql_loss

    def _actor_loss(
        self, mean: torch.Tensor, log_std: torch.Tensor, images: torch.Tensor, task: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        nets, weights = self.nets, self.weights
        with torch.no_grad():
            embedding = nets.encode(weights, "critic", images)
        actions, log_prob = tanh_sample(mean, log_std, draws.actor_eps)
        q = nets.heads(weights, "critic", embedding, task, actions[:, None]).squeeze(2)
        temperature = self._log_temperature.exp().detach()
        return (temperature * log_prob - q.amin(dim=0)).mean(), -log_prob.detach().mean()


def _minimise(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
