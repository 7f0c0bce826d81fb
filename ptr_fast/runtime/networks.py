"""The networks of a checkpoint, read when they are first asked for, and what they say of actions.

Shapes: N states, T observations, S state, A action, E critics.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ptr_fast.checkpoint import CheckpointInfo, load_networks
from ptr_fast.config import PolicySpec
from ptr_fast.learners.capabilities import Distribution, Inputs
from ptr_fast.learners.registry import acts_of, make_networks, traits_of, values_of
from ptr_fast.learners.traits import Traits
from ptr_fast.runtime.preprocess import check_states, to_unit
from ptr_fast.types import Window

__all__ = ["CheckpointNetworks"]


class CheckpointNetworks:
    """The networks of a checkpoint on one device.

    Args:
        info: the checkpoint.
        device: where the networks run.

    Raises:
        DataError: the weights are missing, broken, or do not match the configuration; when they are read.
    """

    def __init__(self, info: CheckpointInfo, device: torch.device | str = "cpu") -> None:
        self.info, self.device = info, torch.device(device)
        self._networks: dict[str, nn.Module] = {}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that act in any mode, and those that value, where the checkpoint has any."""
        names = [name for mode in self.traits.modes for name in acts_of(self.info.config).networks_for(mode)]
        if self.has_critic:
            values = values_of(self.info.config)
            names += [*values.value_networks(), *values.value_networks(averaged=True)]
        self._load(*names)
        return {name: self._networks[name] for name in dict.fromkeys(names)}

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the nets that are in memory."""
        return tuple(self._networks)

    @property
    def has_critic(self) -> bool:
        return "values" in self.traits.capabilities

    @property
    def traits(self) -> Traits:
        """What the learner says about itself."""
        return traits_of(self.info.config)

    @property
    def window(self) -> Window:
        """T past observations that an answer depends on, and H actions that it has."""
        return self.traits.window

    @property
    def frame_sizes(self) -> dict[str, tuple[int, int]]:
        """Camera -> height and width of the frames that the nets were trained on, pixels."""
        return {camera.name: (camera.height, camera.width) for camera in self.spec.cameras}

    @property
    def spec(self) -> PolicySpec:
        return self.info.spec

    def _load(self, *names: str) -> None:
        """Reads those of the nets that are not in memory yet."""
        fresh = make_networks(self.info.config, self.spec, [name for name in names if name not in self._networks])
        load_networks(self.info, fresh)
        for module in fresh.values():
            module.to(self.device).requires_grad_(False).eval()
        self._networks |= fresh

    def actions(
        self, images: Mapping[str, np.ndarray], states: np.ndarray, task: str, averaged: bool = False
    ) -> np.ndarray:
        """Modes of the law of the present action on many observations, raw float32 ``[N, A]``.

        Args:
            images: camera -> uint8 ``[N, H, W, 3]`` of the checkpoint's size, or ``[N, T, H, W, 3]``.
            states: float32 ``[N, S]``, or ``[N, T, S]``.
            averaged: by the averaged networks.

        Raises:
            ValueError: another shape or type, an unknown task, or networks that have no law.
        """
        with torch.inference_mode():
            scaled = self._law(self._inputs(images, states, task), averaged).mode()
        return self.spec.action.unscale(scaled.cpu().numpy())

    def log_prob(
        self, images: Mapping[str, np.ndarray], states: np.ndarray, task: str, actions: np.ndarray
    ) -> np.ndarray:
        """Log density float32 ``[N]`` (nats, in scaled action space) of raw actions ``[N, A]``; see :meth:`actions`."""
        with torch.inference_mode():
            law = self._law(self._inputs(images, states, task), averaged=False)
            return law.log_prob(self._scaled(actions)).cpu().numpy()

    def predict_value(
        self,
        images: Mapping[str, np.ndarray],
        states: np.ndarray,
        task: str,
        actions: np.ndarray,
        averaged: bool = False,
    ) -> np.ndarray:
        """Q float32 ``[E, N]`` of raw actions ``[N, A]``, by the online critics or their averages; see :meth:`actions`.

        Raises:
            ValueError: the checkpoint has no critic.
        """
        return self.predict_values(images, states, task, actions[:, None, :], averaged)[..., 0]

    def predict_values(
        self,
        images: Mapping[str, np.ndarray],
        states: np.ndarray,
        task: str,
        actions: np.ndarray,
        averaged: bool = False,
    ) -> np.ndarray:
        """Q float32 ``[E, N, K]`` of K raw actions ``[N, K, A]`` of each observation, which is encoded once.

        See :meth:`predict_value`.
        """
        try:
            values = values_of(self.info.config)
        except ValueError as error:
            raise ValueError(f"{self.info.path}: {error}") from None
        self._load(*values.value_networks(averaged))
        with torch.inference_mode():
            inputs = self._inputs(images, states, task)
            return values.q(self._networks, inputs, self._scaled(actions), averaged).cpu().numpy()

    def _law(self, inputs: Inputs, averaged: bool) -> Distribution:
        mode = "ema_mean" if averaged else "mean"
        acts = acts_of(self.info.config)
        self._load(*acts.networks_for(mode if mode in self.traits.modes else self.traits.modes[0]))
        law = acts.distribution(self._networks, inputs, averaged)
        if law is None:
            raise ValueError(f"{self.info.path}: {self.traits.name} has no law of its actions")
        return law

    def _scaled(self, actions: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.spec.action.scale(actions)).to(self.device)

    def _inputs(self, images: Mapping[str, np.ndarray], states: np.ndarray, task: str) -> Inputs:
        past = self.window.num_observations
        states = np.asarray(states, np.float32).reshape(-1, self.spec.state.dim)
        check_states(states, self.spec)
        num_rows = len(states) // past
        frames = {}
        for camera in self.spec.cameras:
            given = images[camera.name]
            wanted = (camera.height, camera.width, 3)
            if given.dtype != np.uint8 or given.shape not in ((num_rows, *wanted), (num_rows, past, *wanted)):
                expected = f"uint8 [{num_rows}, {', '.join(map(str, wanted))}]"
                raise ValueError(f"images of {camera.name}: expected {expected}, got {given.dtype} {list(given.shape)}")
            flat = np.require(given.reshape(-1, *wanted), requirements=["C", "W"])
            frames[camera.name] = to_unit(torch.from_numpy(flat).to(self.device))
        task_id = torch.full((num_rows,), self.spec.tasks.slot(task), dtype=torch.int64, device=self.device)
        return Inputs(frames, torch.from_numpy(states.reshape(num_rows, past, -1)).to(self.device), task_id)
