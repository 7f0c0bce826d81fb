"""A checkpoint that acts: frame, state and task in, an action in the robot's own units out.

Shapes: N frames, K candidate actions, S state, A action, E critics. Training and acting share the resize kernel
(:mod:`ptr_fast.resize`) and the scaling to [0, 1]; acting neither crops nor jitters.
"""

from __future__ import annotations

import typing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ptr_fast.checkpoint import ACTOR_NETWORKS, CheckpointInfo, load_networks, read_checkpoint
from ptr_fast.config import ActConfig, ActMode, CqlConfig, PolicySpec
from ptr_fast.kernels.augment import augment
from ptr_fast.nets.build import make_actor, make_critic
from ptr_fast.nets.critic import Critic
from ptr_fast.resize import resize

__all__ = ["Policy"]


class Policy:
    """The actor of a checkpoint, with the critic where there is one and the mode or the caller needs it.

    Args:
        info: the checkpoint.
        device: where the nets run.
        act: acting mode and number of candidates; None takes the checkpoint's own.

    Raises:
        ValueError: search was asked of a checkpoint without a critic.
        DataError: the weights are missing, broken, or do not match the configuration.
    """

    def __init__(self, info: CheckpointInfo, device: torch.device | str = "cpu", act: ActConfig | None = None) -> None:
        self.info = info
        self.act_config = act or info.act
        self.device = torch.device(device)
        config, spec = info.config, info.spec
        if self.mode == "search" and not isinstance(config, CqlConfig):
            raise ValueError(f"{info.path}: acting mode 'search' needs a critic; {type(info.config).__name__} has none")
        self._actors = {name: make_actor(config, spec) for name in ACTOR_NETWORKS}
        self._critics: dict[str, Critic] = {}
        if isinstance(config, CqlConfig):
            self._critics = {name: make_critic(config, spec) for name in ("critic", "target_critic")}
        load_networks(info, self.networks)
        for module in self.networks.values():
            module.to(self.device).requires_grad_(False).eval()

    @staticmethod
    def load(
        checkpoint: Path | str,
        device: torch.device | str = "cpu",
        mode: str | None = None,
        num_candidates: int | None = None,
    ) -> Policy:
        """Reads a checkpoint (a run, a step's folder, or its ``pretrained_model``) and overrides its acting mode."""
        info = read_checkpoint(checkpoint)
        if mode is not None and mode not in typing.get_args(ActMode):
            raise ValueError(f"mode: expected one of {typing.get_args(ActMode)}, got {mode!r}")
        act = replace(
            info.act,
            mode=typing.cast(ActMode, mode or info.act.mode),
            num_candidates=num_candidates or info.act.num_candidates,
            num_elites=min(info.act.num_elites, num_candidates or info.act.num_candidates),
        )
        return Policy(info, device, act)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """``actor`` and ``ema_actor``; where the checkpoint has critics, ``critic`` and ``target_critic`` too."""
        return {**self._actors, **self._critics}

    @property
    def spec(self) -> PolicySpec:
        return self.info.spec

    @property
    def mode(self) -> str:
        return self.act_config.mode

    def act(self, image: np.ndarray, state: np.ndarray, task: str, seed: int = 0) -> np.ndarray:
        """One action.

        Args:
            image: uint8 ``[H, W, 3]`` RGB of any size; resized as the training frames were.
            state: float32 ``[S]``, in the units of ``spec.state``.
            task: a name in ``spec.tasks``.
            seed: determines the candidates of ``search``; unused by the other modes.

        Returns:
            float32 ``[A]`` in the units of ``spec.action``.

        Raises:
            ValueError: unknown task, or a frame or state of the wrong shape or type.
        """
        camera = self.spec.camera
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image: expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
        if image.shape[:2] != (camera.height, camera.width):
            image = resize(image, camera.height, camera.width)
        inputs = self._inputs(image[None], np.asarray(state, np.float32)[None], task)
        with torch.inference_mode():
            if self.mode == "search":
                scaled = self._search(*inputs, seed=seed)
            else:
                scaled = self._actors["ema_actor" if self.mode == "ema_mean" else "actor"].mean_action(*inputs)
        return self.spec.action.unscale(scaled[0].cpu().numpy())

    def _search(self, images: torch.Tensor, state: torch.Tensor, task_id: torch.Tensor, seed: int) -> torch.Tensor:
        """The mean of the best of the averaged actor's samples by the minimum over the averaged critics, ``[1, A]``."""
        generator = torch.Generator().manual_seed(seed)
        eps = torch.randn(1, self.act_config.num_candidates, self.spec.action.dim, generator=generator)
        candidates_NKA = self._actors["ema_actor"](images, state, task_id).sample(eps.to(self.device))
        critic = self._critics["target_critic"]
        q_ENK = critic.head.q(critic.hoist(images, state, task_id), candidates_NKA)
        best_NK = q_ENK.amin(dim=0).topk(self.act_config.num_elites, dim=1).indices
        return candidates_NKA.take_along_dim(best_NK[..., None], dim=1).mean(dim=1)

    def actions(self, images: np.ndarray, states: np.ndarray, task: str, averaged: bool = False) -> np.ndarray:
        """Mean actions on many frames: uint8 ``[N, H, W, 3]`` and float32 ``[N, S]`` to raw float32 ``[N, A]``."""
        with torch.inference_mode():
            inputs = self._inputs(images, states, task)
            scaled = self._actors["ema_actor" if averaged else "actor"].mean_action(*inputs)
        return self.spec.action.unscale(scaled.cpu().numpy())

    def log_prob(self, images: np.ndarray, states: np.ndarray, task: str, actions: np.ndarray) -> np.ndarray:
        """Log density float32 ``[N]`` (nats, in scaled action space) of raw actions ``[N, A]``."""
        with torch.inference_mode():
            distribution = self._actors["actor"](*self._inputs(images, states, task))
            return distribution.log_prob(self._scaled(actions)).cpu().numpy()

    def predict_value(
        self, images: np.ndarray, states: np.ndarray, task: str, actions: np.ndarray, averaged: bool = False
    ) -> np.ndarray:
        """Q float32 ``[E, N]`` of raw actions ``[N, A]``, by the online critics or their averages.

        Raises:
            ValueError: the checkpoint has no critic.
        """
        if not self._critics:
            raise ValueError(f"{self.info.path}: {type(self.info.config).__name__} has no critic")
        critic = self._critics["target_critic" if averaged else "critic"]
        with torch.inference_mode():
            hoisted = critic.hoist(*self._inputs(images, states, task))
            return critic.head.q(hoisted, self._scaled(actions)[:, None, :])[..., 0].cpu().numpy()

    def _scaled(self, actions: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.spec.action.scale(actions)).to(self.device)

    def _inputs(
        self, images: np.ndarray, states: np.ndarray, task: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        camera, num_state = self.spec.camera, self.spec.state.dim
        states = np.asarray(states, np.float32)
        if images.dtype != np.uint8 or images.shape[1:] != (camera.height, camera.width, 3):
            expected = f"uint8 [N, {camera.height}, {camera.width}, 3]"
            raise ValueError(f"images: expected {expected}, got {images.dtype} {list(images.shape)}")
        if states.shape != (len(images), num_state):
            raise ValueError(f"state: expected [{num_state}] per frame, got {list(states.shape[1:])}")
        if not np.isfinite(states).all():
            raise ValueError("state: expected finite numbers, got NaN or infinity")
        slot = self.spec.tasks.slot(task)
        pixels = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self.device)
        task_id = torch.full((len(images),), slot, dtype=torch.int64, device=self.device)
        return augment(pixels, None), torch.from_numpy(states).to(self.device), task_id
