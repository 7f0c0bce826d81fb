"""One update of PTR in JAX: the reference's own graph of 19 encoder forwards, and the same numbers from nine.

Written from a description of ``jaxrl2/agents/cql_encodersep_parallel``. Shapes: E heads, B batch, K samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.peers import jax_augment
from benchmarks.peers.jax_nets import Encoder, Heads, Policy, tanh_sample

__all__ = ["JaxStep"]

Tree = dict[str, Any]


@dataclass(frozen=True)
class JaxStep:
    """Nets, optimisers and the update function of one configuration.

    Attributes:
        sizes: ``encoder``, ``num_filters``, ``num_groups``, ``num_features``, ``embedding_dim``, ``hidden_dims``,
            ``num_critics``, ``action_dim``, ``num_task_slots``, ``num_action_samples``, ``discount``, ``tau``,
            ``cql_alpha``, ``actor_lr``, ``critic_lr``, ``temperature_lr``, ``target_entropy``.
        shared_forwards: nine encoder forwards instead of the reference's 19.
        dtype: of the encoder.
    """

    sizes: Tree
    shared_forwards: bool
    dtype: Any = jnp.float32
    encoder: Encoder = field(init=False)
    policy: Policy = field(init=False)
    heads: Heads = field(init=False)

    def __post_init__(self) -> None:
        s = self.sizes
        encoder = Encoder(
            s["encoder"], s["num_filters"], s["num_groups"], s["num_features"], s["embedding_dim"], self.dtype
        )
        object.__setattr__(self, "encoder", encoder)
        object.__setattr__(self, "policy", Policy(tuple(s["hidden_dims"]), s["action_dim"]))
        object.__setattr__(self, "heads", Heads(s["num_critics"], tuple(s["hidden_dims"])))

    def optimizers(self) -> dict[str, optax.GradientTransformation]:
        """Adam (0.9, 0.999, 1e-8) per net."""
        return {name: optax.adam(self.sizes[f"{name}_lr"]) for name in ("actor", "critic", "temperature")}

    def initial_state(self, weights: Tree) -> Tree:
        """Weights and optimiser states."""
        return {"weights": weights, "adam": {n: tx.init(weights[n]) for n, tx in self.optimizers().items()}}

    def draw(self, key: jax.Array, num_batch: int) -> Tree:
        """Random numbers of one update."""
        s = self.sizes
        shape = (num_batch, s["num_action_samples"], s["action_dim"])
        keys = jax.random.split(key, 18)

        def images(keys: jax.Array) -> Tree:
            def symmetric(i: int, half: float) -> jax.Array:
                return jax.random.uniform(keys[i], (num_batch,), minval=-half, maxval=half)

            return {
                "crop_offsets": jax.random.randint(keys[0], (num_batch, 2), 0, 9),
                "apply": jax.random.uniform(keys[1], (num_batch,)) < 0.8,
                "order": jnp.argsort(jax.random.uniform(keys[2], (num_batch, 4)), axis=1),
                "brightness": symmetric(3, 0.2),
                "contrast": 1.0 + symmetric(4, 0.1),
                "saturation": 1.0 + symmetric(5, 0.1),
                "hue": symmetric(6, 0.03),
            }

        return {
            "next_eps": jax.random.normal(keys[0], shape),
            "policy_eps": jax.random.normal(keys[1], shape),
            "random_actions": jax.random.uniform(keys[2], shape, minval=-1.0, maxval=1.0),
            "actor_eps": jax.random.normal(keys[3], (num_batch, s["action_dim"])),
            "augment": images(keys[4:11]),
            "next_augment": images(keys[11:18]),
        }

    def update(self, state: Tree, batch: Tree, draws: Tree) -> tuple[Tree, Tree]:
        """The new state and the losses."""
        augment = jax_augment.whole_batch if self.shared_forwards else jax_augment.literal
        images = augment(batch["images"], draws["augment"])
        next_images = augment(batch["next_images"], draws["next_augment"])
        task = jax.nn.one_hot(batch["task_id"], self.sizes["num_task_slots"])
        critic_and_actor = self._shared if self.shared_forwards else self._literal
        return critic_and_actor(state, batch, draws, images, next_images, task)

    def _act(self, weights: Tree, images: jax.Array, state: jax.Array, task: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.policy.apply(weights["policy"], self._encode(weights, images), state, task)

    def _encode(self, weights: Tree, images: jax.Array) -> jax.Array:
        return self.encoder.apply(weights["encoder"], images)

    def _q(self, weights: Tree, embedding: jax.Array, task: jax.Array, actions: jax.Array) -> jax.Array:
        return self.heads.apply(weights["head"], embedding, task, actions)

    def _literal(
        self, state: Tree, batch: Tree, draws: Tree, images: jax.Array, next_images: jax.Array, task: jax.Array
    ) -> tuple[Tree, Tree]:
        """19 forwards: images tiled before the actor's encoder, DR3 with weight 0, the actor at s twice."""
        s, weights = self.sizes, state["weights"]
        num_samples = s["num_action_samples"]

        def tiled(x: jax.Array) -> jax.Array:
            return jnp.repeat(x, num_samples, axis=0)

        def flat(x: jax.Array) -> jax.Array:
            return x.reshape(-1, x.shape[-1])

        next_embedding = self._encode(weights["target_critic"], next_images)
        law = self._act(weights["actor"], tiled(next_images), tiled(batch["next_state"]), tiled(task))
        next_actions, _ = tanh_sample(*law, flat(draws["next_eps"]))
        next_q = self._q(weights["target_critic"], tiled(next_embedding), tiled(task), next_actions)
        best = next_q.min(0).reshape(-1, num_samples).max(1)
        target = batch["rewards"] + s["discount"] * batch["masks"] * best
        law = self._act(weights["actor"], tiled(images), tiled(batch["state"]), tiled(task))
        policy_actions, log_prob = tanh_sample(*law, flat(draws["policy_eps"]))

        def critic_loss(critic: Tree) -> tuple[jax.Array, Tree]:
            embedding, next_online = self._encode(critic, images), self._encode(critic, next_images)
            q_data = self._q(critic, embedding, task, batch["actions"])
            q_policy = self._q(critic, tiled(embedding), tiled(task), policy_actions)
            q_random = self._q(critic, tiled(embedding), tiled(task), flat(draws["random_actions"]))
            shape = (s["num_critics"], -1, num_samples)
            losses = self._critic_losses(
                q_data, target, q_policy.reshape(shape), log_prob.reshape(-1, num_samples), q_random.reshape(shape)
            )
            dr3 = (batch["masks"] * (embedding * next_online).sum(1)).mean()
            return losses["critic_loss"] + 0.0 * dr3, losses

        grad, critic_losses = jax.grad(critic_loss, has_aux=True)(weights["critic"])
        state, critic = self._apply(state, "critic", grad)

        def actor_loss(actor: Tree) -> tuple[jax.Array, jax.Array]:
            law = self._act(actor, images, batch["state"], task)
            embedding = self._encode(critic, images)
            return self._actor_loss(law, draws, critic, embedding, task, weights["temperature"])

        grad, (loss, entropy) = _grad_with_value(actor_loss)(weights["actor"])
        return self._finish(state, grad, loss, entropy, critic_losses)

    def _shared(
        self, state: Tree, batch: Tree, draws: Tree, images: jax.Array, next_images: jax.Array, task: jax.Array
    ) -> tuple[Tree, Tree]:
        """Nine forwards: each image once per net and set of weights."""
        s, weights = self.sizes, state["weights"]
        num_batch, num_samples = images.shape[0], s["num_action_samples"]

        def q(critic: Tree, embedding: jax.Array, actions: jax.Array) -> jax.Array:
            rows = (num_batch, actions.shape[1])
            wide = jnp.broadcast_to(embedding[:, None], (*rows, embedding.shape[1]))
            return self._q(critic, wide, jnp.broadcast_to(task[:, None], (*rows, task.shape[1])), actions)

        mean, log_std = self._act(weights["actor"], next_images, batch["next_state"], task)
        next_actions, _ = tanh_sample(mean[:, None], log_std[:, None], draws["next_eps"])
        next_q = q(weights["target_critic"], self._encode(weights["target_critic"], next_images), next_actions)
        target = batch["rewards"] + s["discount"] * batch["masks"] * next_q.min(0).max(1)
        law, pull_back = jax.vjp(lambda actor: self._act(actor, images, batch["state"], task), weights["actor"])
        policy_actions, log_prob = tanh_sample(law[0][:, None], law[1][:, None], draws["policy_eps"])
        actions = jnp.concatenate([batch["actions"][:, None], policy_actions, draws["random_actions"]], axis=1)

        def critic_loss(critic: Tree) -> tuple[jax.Array, Tree]:
            q_all = q(critic, self._encode(critic, images), actions)
            q_data, q_policy, q_random = jnp.split(q_all, [1, 1 + num_samples], axis=2)
            losses = self._critic_losses(q_data[..., 0], target, q_policy, log_prob, q_random)
            return losses["critic_loss"], losses

        grad, critic_losses = jax.grad(critic_loss, has_aux=True)(weights["critic"])
        state, critic = self._apply(state, "critic", grad)
        embedding = self._encode(critic, images)

        def actor_loss(law: Any) -> tuple[jax.Array, jax.Array]:
            return self._actor_loss(law, draws, critic, embedding, task, weights["temperature"])

        grad_law, (loss, entropy) = _grad_with_value(actor_loss)(law)
        return self._finish(state, pull_back(grad_law)[0], loss, entropy, critic_losses)

    def _critic_losses(
        self, q_data: jax.Array, target: jax.Array, q_policy: jax.Array, log_prob: jax.Array, q_random: jax.Array
    ) -> Tree:
        weighted = jnp.concatenate(
            [q_policy - jax.lax.stop_gradient(log_prob), q_random + self.sizes["action_dim"] * math.log(2.0)], axis=2
        )
        cql_loss = (jax.nn.logsumexp(weighted, axis=2) - q_data).mean()
        bellman_loss = ((q_data - jax.lax.stop_gradient(target)) ** 2).mean()
        loss = bellman_loss + self.sizes["cql_alpha"] * cql_loss
        return {"critic_loss": loss, "bellman_loss": bellman_loss, "cql_loss": cql_loss}

    def _actor_loss(
        self, law: Any, draws: Tree, critic: Tree, embedding: jax.Array, task: jax.Array, log_temperature: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        actions, log_prob = tanh_sample(*law, draws["actor_eps"])
        q = self._q(critic, jax.lax.stop_gradient(embedding), task, actions).min(0)
        return (jnp.exp(log_temperature) * log_prob - q).mean(), -log_prob.mean()

    def _apply(self, state: Tree, name: str, grad: Tree) -> tuple[Tree, Tree]:
        """State with one net stepped (and, for the critic, its average), and the net's new weights."""
        weights = state["weights"]
        change, adam = self.optimizers()[name].update(grad, state["adam"][name], weights[name])
        new = optax.apply_updates(weights[name], change)
        weights = {**weights, name: new}
        if name == "critic":
            tau = self.sizes["tau"]
            average = jax.tree.map(lambda a, b: tau * a + (1 - tau) * b, new, weights["target_critic"])
            weights["target_critic"] = average
        return {"weights": weights, "adam": {**state["adam"], name: adam}}, new

    def _finish(
        self, state: Tree, actor_grad: Tree, actor_loss: jax.Array, entropy: jax.Array, losses: Tree
    ) -> tuple[Tree, Tree]:
        state, _ = self._apply(state, "actor", actor_grad)

        def temperature_loss(log_temperature: jax.Array) -> jax.Array:
            return jnp.exp(log_temperature) * (entropy - self.sizes["target_entropy"])

        loss, grad = jax.value_and_grad(temperature_loss)(state["weights"]["temperature"])
        state, _ = self._apply(state, "temperature", grad)
        return state, {**losses, "actor_loss": actor_loss, "temperature_loss": loss}


def _grad_with_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gradient, and (value, auxiliary)."""

    def run(argument: Any) -> Any:
        (value, extra), grad = jax.value_and_grad(function, has_aux=True)(argument)
        return grad, (value, extra)

    return run
