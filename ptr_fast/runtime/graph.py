"""The whole of acting as one module of tensors: a camera's frame in, an action in the robot's units out.

It is what is exported to ONNX, compiled and captured in a CUDA graph; :class:`ptr_fast.runtime.policy.Policy` does the
same with nets of any batch size. Shapes: K candidates, A action, S state.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ptr_fast.config import ActConfig, PolicySpec
from ptr_fast.nets.critic import Critic
from ptr_fast.nets.policy import Actor
from ptr_fast.runtime.preprocess import GraphResize

__all__ = ["ActingGraph", "CandidatesGraph", "CriticEmbeddingGraph", "best_of", "choose", "search_noise"]


def search_noise(seed: int, num_candidates: int, num_axes: int) -> torch.Tensor:
    """Standard normal noise float32 ``[1, K, A]`` on the CPU; the same on every device and in every engine."""
    return torch.randn(1, num_candidates, num_axes, generator=torch.Generator().manual_seed(seed))


def best_of(
    actor: Actor,
    critic: Critic,
    inputs: tuple[Mapping[str, torch.Tensor], torch.Tensor, torch.Tensor],
    noise_BKA: torch.Tensor,
    num_elites: int,
    beside: torch.cuda.Stream | None,
) -> torch.Tensor:
    """The mean ``[B, A]`` of the best of the actor's samples by the minimum over the critics.

    Each encoder runs once per state, on a GPU both at once (the critics' on the stream ``beside``); the K candidates
    meet the critics in one call of ``cql_head``.
    """
    images, state_BS, task_id_B = inputs
    if beside is None:
        candidates_BKA, embedding_BD = actor(*inputs).sample(noise_BKA), critic.encoder(images, len(state_BS))
    else:
        # A fork and a join, which a capture turns into branches of its graph. What the other stream allocates is freed
        # after the join, and its next work begins with a fork again: no memory is taken while it is still read.
        here = torch.cuda.current_stream(state_BS.device)
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            embedding_BD = critic.encoder(images, len(state_BS))
        candidates_BKA = actor(*inputs).sample(noise_BKA)
        here.wait_stream(beside)
    return choose(critic, embedding_BD, state_BS, task_id_B, candidates_BKA, num_elites)


def choose(
    critic: Critic,
    embedding_BD: torch.Tensor,
    state_BS: torch.Tensor,
    task_id_B: torch.Tensor,
    candidates_BKA: torch.Tensor,
    num_elites: int,
) -> torch.Tensor:
    """The mean ``[B, A]`` of the candidates whose smallest Q is among the largest.

    Args:
        embedding_BD: of the critic's encoder.
    """
    q_EBK = critic.head.q(critic.head.hoist(embedding_BD, state_BS, task_id_B), candidates_BKA)
    best_BK = q_EBK.amin(dim=0).topk(num_elites, dim=1).indices
    return candidates_BKA.take_along_dim(best_BK[..., None], dim=1).mean(dim=1)


class ActingGraph(nn.Module):
    """Resize, scale, nets, choice of the action, un-scaling.

    Args:
        actor: the one that acts.
        critic: the averaged critics, where the mode is ``search``; else None.
        spec: of the checkpoint.
        act: mode, candidates, elites.
        frame_size: height and width of the camera's frames, pixels; the checkpoint's own size resizes nothing.
        task: the one task that the graph acts on; None makes the task an input.

    Raises:
        ValueError: an unknown task.
    """

    def __init__(
        self,
        actor: Actor,
        critic: Critic | None,
        spec: PolicySpec,
        act: ActConfig,
        frame_size: tuple[int, int],
        task: str | None = None,
    ) -> None:
        super().__init__()
        self.actor, self.critic, self.act = actor, critic, act
        self.frame_size, self.num_state, self.num_axes = frame_size, spec.state.dim, spec.action.dim
        self.camera, self.resize = spec.camera.name, GraphResize(*frame_size, spec.camera)
        self._beside: torch.cuda.Stream | None = None
        low, high = np.asarray(spec.action.low, np.float32), np.asarray(spec.action.high, np.float32)
        self.low: torch.Tensor
        self.half_range: torch.Tensor
        self.slot: torch.Tensor | None
        self.register_buffer("low", torch.from_numpy(low), persistent=False)
        self.register_buffer("half_range", torch.from_numpy(0.5 * (high - low)), persistent=False)
        slot = None if task is None else torch.tensor([spec.tasks.slot(task)])
        self.register_buffer("slot", slot, persistent=False)

    @property
    def input_names(self) -> tuple[str, ...]:
        """``frame`` and ``state``; ``task_id`` where no task is fixed; ``noise`` in ``search``."""
        names = ["frame", "state"]
        names += ["task_id"] if self.slot is None else []
        names += ["noise"] if self.critic is not None else []
        return tuple(names)

    def example(self) -> tuple[torch.Tensor, ...]:
        """Inputs of the right shapes and types, all zero."""
        zeros = {
            "frame": torch.zeros(*self.frame_size, 3, dtype=torch.uint8),
            "state": torch.zeros(self.num_state),
            "task_id": torch.zeros(1, dtype=torch.int64),
            "noise": torch.zeros(self.act.num_candidates, self.num_axes),
        }
        return tuple(zeros[name].to(self.low.device) for name in self.input_names)

    def forward(self, frame_HWC: torch.Tensor, state_S: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        """One action.

        Args:
            frame_HWC: uint8 ``[H, W, 3]`` RGB.
            state_S: float32 ``[S]``.
            rest: ``task_id`` int64 ``[1]`` and ``noise`` float32 ``[K, A]``, where :attr:`input_names` has them.

        Returns:
            float32 ``[A]`` in the units of the checkpoint's action space.
        """
        given = dict(zip(self.input_names[2:], rest, strict=True))
        task_id = given["task_id"] if self.slot is None else self.slot
        inputs = ({self.camera: self.resize(frame_HWC)}, state_S.unsqueeze(0), task_id)
        if self.critic is None:
            scaled = self.actor.mean_action(*inputs)
        else:
            noise_BKA = given["noise"].unsqueeze(0)
            scaled = best_of(self.actor, self.critic, inputs, noise_BKA, self.act.num_elites, self._stream_beside())
        return self.unscale(scaled)

    def _stream_beside(self) -> torch.cuda.Stream | None:
        """This graph's one stream for the critics' encoder; None on the CPU."""
        device = self.low.device
        if device.type == "cuda" and (self._beside is None or self._beside.device != device):
            self._beside = torch.cuda.Stream(device)
        return self._beside if device.type == "cuda" else None

    def unscale(self, scaled_1A: torch.Tensor) -> torch.Tensor:
        """Scaled action float32 ``[1, A]`` to ``[A]`` in raw units."""
        return (scaled_1A[0] + 1.0) * self.half_range + self.low


class CandidatesGraph(nn.Module):
    """The actor's share of a search: the inputs of an :class:`ActingGraph` to candidates ``[1, K, A]``."""

    def __init__(self, graph: ActingGraph) -> None:
        super().__init__()
        self.camera, self.resize, self.actor = graph.camera, graph.resize, graph.actor

    def forward(
        self, frame_HWC: torch.Tensor, state_S: torch.Tensor, task_id: torch.Tensor, noise_KA: torch.Tensor
    ) -> torch.Tensor:
        images = {self.camera: self.resize(frame_HWC)}
        return self.actor(images, state_S.unsqueeze(0), task_id).sample(noise_KA.unsqueeze(0))


class CriticEmbeddingGraph(nn.Module):
    """The critic encoder's share of a search: frame to embedding ``[1, D]``."""

    def __init__(self, graph: ActingGraph) -> None:
        super().__init__()
        assert graph.critic is not None
        self.camera, self.resize, self.encoder = graph.camera, graph.resize, graph.critic.encoder

    def forward(self, frame_HWC: torch.Tensor) -> torch.Tensor:
        return self.encoder({self.camera: self.resize(frame_HWC)}, 1)
