"""The published update step, ported to PyTorch word for word: the baseline of step-time and FLOP comparisons.

It computes what :class:`ptr_fast.learners.CqlLearner` computes (the golden update passes for both) the way the
published code does: images are tiled by the number of sampled actions before every actor ResNet, the actor runs on s'
once more for the unused basis-projection sample (XLA removes that pass, eager PyTorch cannot), the DR3 term runs the
critic encoder on s' forward and backward with coefficient 0, the actor runs on s again for its own loss, embeddings are
tiled, and heads concatenate one-hot tasks, actions and embeddings at every layer.

Parameters are those of a ``CqlLearner``, trained in place by PyTorch's fused Adam; nothing goes through our kernels:
``F.group_norm``, ``einsum`` for the spatial embedding, whole-batch operations for the augmentation.
Source: PTR, ``jaxrl2/agents/cql_encodersep_parallel/``.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from benchmarks.cases import parameters_by_name
from benchmarks.peers import plain_augment
from benchmarks.peers.plain_batch import only, plain
from benchmarks.peers.plain_draws import draw
from benchmarks.peers.plain_nets import PlainNets
from ptr_fast.learners import CqlLearner, CqlTerms, Draws
from ptr_fast.learners.cql.terms import cql_info
from ptr_fast.nets import TanhGaussian
from ptr_fast.types import Batch

__all__ = ["DR3_COEFFICIENT", "LiteralPort"]

DR3_COEFFICIENT = 0.0


class LiteralPort:
    """The published step on a learner's nets.

    Args:
        learner: whose nets are trained; ``reinject_all`` heads only.
        dtype: of the encoder's activations.
    """

    def __init__(self, learner: CqlLearner, dtype: torch.dtype = torch.float32) -> None:
        if learner.config.critic_head != "reinject_all":
            raise ValueError(f"literal port: expected reinject_all heads, got {learner.config.critic_head!r}")
        self.learner, self.nets = learner, PlainNets(learner.config, dtype)
        self.weights = parameters_by_name(learner)
        config, nets = learner.config, learner.networks()
        rates = {"actor": config.actor_lr, "critic": config.critic_lr, "temperature": config.temperature_lr}
        self._adam = {
            name: torch.optim.Adam(list(nets[name].parameters()), lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
            for name, lr in rates.items()
        }

    def update(self, batch: Batch, step: int, draws: Draws | None = None) -> dict[str, torch.Tensor]:
        """One gradient step, reporting what :meth:`CqlLearner.update` reports."""
        return cql_info(batch, self.update_with_terms(batch, step, draws))

    def update_with_terms(self, batch: Batch, step: int, draws: Draws | None = None) -> CqlTerms:
        """One gradient step of critic, actor and temperature, as :meth:`CqlLearner.update_with_terms`."""
        learner, config = self.learner, self.learner.config
        weights, nets = self.weights, self.nets
        draws = draw(config, len(batch), learner.spec.action.dim, learner.device) if draws is None else draws
        batch = plain(batch)
        images = plain_augment.augment(batch.images, only(draws.augment), nets.dtype)
        next_images = plain_augment.augment(batch.next_images, only(draws.next_augment), nets.dtype)
        num_samples, num_slots = config.num_action_samples, learner.spec.tasks.num_slots
        task = F.one_hot(batch.task_id, num_slots).float()

        # Critic: target.
        with torch.no_grad():
            next_embedding = nets.encode(weights, "target_critic", next_images)
            law_next = self._policy(*_tiled(num_samples, next_images, batch.next_state, task))
            law_unused = self._policy(next_images, batch.next_state, task)
            law_unused.sample(draws.actor_eps)
            next_actions, next_log_prob = law_next.sample_with_log_prob(draws.next_eps.flatten(0, 1))
            tiled_embedding, tiled_task = _tiled(num_samples, next_embedding, task)
            next_q = self._heads("target_critic", tiled_embedding, tiled_task, next_actions)
            next_q_max = next_q.amin(dim=0).view(-1, num_samples).amax(dim=1)
            target = batch.rewards + config.discount * batch.masks * next_q_max
            # Critic: actions of the conservative term.
            law_tiled = self._policy(*_tiled(num_samples, images, batch.state, task))
            policy_actions, policy_log_prob = law_tiled.sample_with_log_prob(draws.policy_eps.flatten(0, 1))
        random_actions = draws.random_actions.flatten(0, 1)

        embedding, next_online = nets.encode(weights, "critic", images), nets.encode(weights, "critic", next_images)
        tiled_embedding, tiled_task = _tiled(num_samples, embedding, task)
        q_data = self._heads("critic", embedding, task, batch.actions)
        q_policy = self._heads("critic", tiled_embedding, tiled_task, policy_actions)
        q_random = self._heads("critic", tiled_embedding, tiled_task, random_actions)
        bellman_loss = (q_data - target).square().mean()
        log_density = -math.log(2.0) * random_actions.shape[1]
        weighted = torch.cat(
            [
                (q_policy - policy_log_prob).view(config.num_critics, -1, num_samples),
                (q_random - log_density).view(config.num_critics, -1, num_samples),
            ],
            dim=2,
        )
        log_sum_exp = weighted.logsumexp(dim=2)
        cql_loss = (log_sum_exp - q_data).mean()
        dr3 = (batch.masks * (embedding * next_online).sum(dim=1)).mean()
        critic_loss = bellman_loss + config.cql_alpha * cql_loss + DR3_COEFFICIENT * dr3
        _step(self._adam["critic"], critic_loss)
        _average(learner.target_critic, learner.critic, config.tau)

        # Actor, with the new critic and the old temperature.
        law = self._policy(images, batch.state, task)
        actions, log_prob = law.sample_with_log_prob(draws.actor_eps)
        new_embedding = nets.encode(weights, "critic", images).detach()
        learner.critic.requires_grad_(False)
        actor_q = self._heads("critic", new_embedding, task, actions)
        actor_loss = (log_prob * learner.temperature().detach() - actor_q.amin(dim=0)).mean()
        _step(self._adam["actor"], actor_loss)
        learner.critic.requires_grad_(True)
        _average(learner.ema_actor, learner.actor, config.ema_tau)

        # Temperature.
        entropy = -log_prob.detach().mean()
        temperature = learner.temperature()
        temperature_loss = temperature * (entropy - learner.target_entropy)
        _step(self._adam["temperature"], temperature_loss)

        def per_state(rows: torch.Tensor) -> torch.Tensor:
            return rows.detach().unflatten(-1, (-1, num_samples))

        return CqlTerms(
            next_policy=TanhGaussian(law_next.mean_BA[::num_samples], law_next.log_std_BA[::num_samples]),
            policy=law.detach(),
            next_actions_BKA=next_actions.unflatten(0, (-1, num_samples)),
            policy_actions_BKA=policy_actions.unflatten(0, (-1, num_samples)),
            actor_actions_BA=actions.detach(),
            next_log_prob_BK=per_state(next_log_prob),
            policy_log_prob_BK=per_state(policy_log_prob),
            actor_log_prob_B=log_prob.detach(),
            embedding_BD=embedding.detach(),
            next_target_embedding_BD=next_embedding,
            next_q_EBK=per_state(next_q),
            target_B=target,
            q_data_EB=q_data.detach(),
            q_policy_EBK=per_state(q_policy),
            q_random_EBK=per_state(q_random),
            log_sum_exp_EB=log_sum_exp.detach(),
            new_embedding_BD=new_embedding,
            actor_q_EB=actor_q.detach(),
            critic_loss=critic_loss.detach(),
            bellman_loss=bellman_loss.detach(),
            cql_loss=cql_loss.detach(),
            actor_loss=actor_loss.detach(),
            entropy=entropy,
            temperature=temperature.detach(),
            temperature_loss=temperature_loss.detach(),
            new_temperature=learner.temperature().detach(),
        )

    def _policy(self, images: torch.Tensor, state: torch.Tensor, task: torch.Tensor) -> TanhGaussian:
        return TanhGaussian(
            *self.nets.policy(self.weights, self.nets.encode(self.weights, "actor", images), state, task)
        )

    def _heads(self, net: str, embedding: torch.Tensor, task: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Q ``[E, rows]`` with everything concatenated at every layer."""
        num_critics, num_layers = self.learner.config.num_critics, len(self.learner.config.hidden_dims) + 1
        hidden = task.expand(num_critics, *task.shape)
        extra = torch.cat([actions, embedding], dim=1).expand(num_critics, -1, -1)
        for i in range(num_layers):
            kernel, bias = self.weights[f"{net}.head.kernels.{i}"], self.weights[f"{net}.head.biases.{i}"]
            hidden = torch.bmm(torch.cat([hidden, extra], dim=2), kernel) + bias[:, None]
            hidden = F.relu(hidden) if i < num_layers - 1 else hidden
        return hidden.squeeze(2)


def _tiled(count: int, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """Every row ``count`` times, rows of one state next to each other."""
    return [tensor.repeat_interleave(count, dim=0) for tensor in tensors]


@torch.no_grad()
def _average(average: torch.nn.Module, current: torch.nn.Module, tau: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in current.parameters()], tau)


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
