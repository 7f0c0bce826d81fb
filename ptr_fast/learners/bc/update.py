"""Behaviour cloning: the mean of a unit Gaussian on the scaled action.

Source: PTR, ``jaxrl2/agents/pixel_bc`` (encoder, bottleneck, MLP, mean head; negative log likelihood; Adam).
"""

from __future__ import annotations

import torch
from torch import nn

from ptr_fast import losses
from ptr_fast.config import PolicySpec
from ptr_fast.learners import base
from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.bc.networks import chunk_law, make_actor
from ptr_fast.learners.bc.traits import traits
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.draws import BcDraws, draw_bc
from ptr_fast.learners.optimizer import AdamPolyak
from ptr_fast.types import Batch

__all__ = ["BcLearner"]


class BcLearner:
    """Actor, its average, and one optimiser.

    Args:
        config, spec, seed, device, encoder_dtype, ranks: as in :class:`ptr_fast.learners.CqlLearner`.
    """

    def __init__(
        self,
        config: BcConfig,
        spec: PolicySpec,
        seed: int = 0,
        device: torch.device | str = "cpu",
        encoder_dtype: torch.dtype | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self.config, self.spec, self.seed, self.device = config, spec, seed, torch.device(device)
        self._traits = traits(config)
        self._cameras = [camera.name for camera in spec.cameras]
        self._encoder_dtype = base.check_encoder_dtype(encoder_dtype)
        self.actor = make_actor(config, spec, seed).to(self.device)
        self.ema_actor = base.averaged_copy(self.actor)
        self._parameters, averages = base.trained(self.actor, self.ema_actor)
        self._adam = AdamPolyak(
            self._parameters, config.lr, averages, config.ema_tau, config.weight_decay, config.max_grad_norm
        )
        self._backward = self.ranks.backward_of(self._parameters)

    def networks(self) -> dict[str, nn.Module]:
        """Every net by name; ``ema_actor`` is the averaged actor."""
        return {"actor": self.actor, "ema_actor": self.ema_actor}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Every optimiser by name."""
        return {"actor": self._adam}

    def learning_rates(self, step: int | torch.Tensor) -> dict[str, float | torch.Tensor]:
        """The rate of every optimiser at an update; ``step`` as in :func:`ptr_fast.learners.base.scheduled_lr`."""
        config = self.config
        return {"actor": base.scheduled_lr(config.lr, config.lr_schedule, config.lr_schedule_steps, step)}

    def draw(self, samples: torch.Tensor | range, step: int | torch.Tensor) -> BcDraws:
        """The random numbers of update ``step``, on the device; ``samples`` as in :func:`draw_bc`."""
        return draw_bc(self.config, self._cameras, samples, self.seed, step, self.device)

    def update(self, batch: Batch, step: int, draws: BcDraws | None = None) -> dict[str, torch.Tensor]:
        """One gradient step.

        Args:
            batch: this rank's share, on the learner's device; rewards, masks and next frames are not looked at.
            step: number of the update, for the draws and the learning rate.
            draws: random numbers to use instead of those of seed, step and position in the whole batch.

        Returns:
            Detached 0-d tensors on the device, of this rank's share.

        Raises:
            ValueError: a batch that does not fit the spec.
        """
        base.check_batch(batch, self.spec, self._traits.columns, self._traits.window)
        draws = self.draw(self.ranks.samples(len(batch)), step) if draws is None else draws
        config = self.config
        base.set_lr(self._adam, self.learning_rates(step)["actor"])
        images = {}
        if config.encoder.sees_images:
            dtype = self._encoder_dtype or self._parameters[0].dtype
            images = base.augmented(batch.images, draws.augment, dtype)
        law = chunk_law(self.actor, Inputs(images, batch.state, batch.task_id), config.num_actions)
        log_prob_BH = law.log_prob(batch.actions)
        if config.num_actions > 1:  # what lies behind the end of an episode counts for nothing
            log_prob_BH = log_prob_BH * batch.action_mask
        loss = losses.cloning_loss(log_prob_BH)
        self._adam.zero_grad(set_to_none=True)
        self._backward(loss)
        self._adam.step()
        with torch.no_grad():
            mean = law.mean_BA.detach()
            error = (mean - batch.actions).square()
            if config.num_actions > 1:
                error = error * batch.action_mask[..., None]
        return {
            "train/bc_loss": loss.detach(),
            "actor/mse": error.mean(),
            "actor/mse_max": error.max(),
            "actor/mean": mean.mean(),
            "data/action_abs": batch.actions.abs().mean(),
        }
