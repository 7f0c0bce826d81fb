"""A critic chooses among the proposals of another policy.

The critic values the first action of every proposal, by the minimum over its averaged critics as in the mode
``search``; a chosen chunk is taken whole. What it has never seen it cannot value: proposals are clipped to the bounds
of its action space before they are valued, and those that are not finite are left out.

Source: V-GPS (Nakamoto et al. 2024) re-ranks a generalist's samples by a critic that was trained apart from it.

Shapes: T observations, K proposals, N noise, H actions of a chunk, A action, E critics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ptr_fast.checkpoint import CheckpointInfo
from ptr_fast.learners.capabilities import Proposes
from ptr_fast.runtime.choice import Choice, SteeringConfig, choose
from ptr_fast.runtime.graph import noise_for
from ptr_fast.runtime.networks import CheckpointNetworks
from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.policy import Policy
from ptr_fast.runtime.preprocess import arrays_of

__all__ = ["Proposer", "SteeringCritic"]


class SteeringCritic(CheckpointNetworks):
    """The critic of a checkpoint as a chooser.

    Args:
        info: the checkpoint.
        config: how it chooses.
        device: where it runs.

    Raises:
        ValueError: the checkpoint has no critic.
    """

    def __init__(self, info: CheckpointInfo, config: SteeringConfig, device: torch.device | str = "cpu") -> None:
        super().__init__(info, device)
        if not self.has_critic:
            raise ValueError(f"{info.path}: {self.traits.name} has no critic, so it cannot choose among proposals")
        self.config = config

    def choose(self, past: Sequence[Observation], proposals: Sequence[np.ndarray], seed: int = 0) -> Choice:
        """Chooses among proposals for one observation, which is encoded once for all of them.

        Args:
            past: T observations, the oldest first.
            proposals: K of ``[H, A]``, raw units.
            seed: of ``softmax``.

        Raises:
            ValueError: proposals of another shape, or an observation that does not fit.
            RuntimeError: no proposal is finite, or a Q value is not.
        """
        space, given = self.spec.action, np.stack([np.asarray(each, np.float32) for each in proposals])
        if given.ndim != 3 or given.shape[2] != space.dim:
            raise ValueError(f"proposals: expected [H, {space.dim}] each, got {list(given.shape[1:])}")
        finite = np.asarray(np.isfinite(given).all(axis=(1, 2)))
        if not finite.any():
            raise RuntimeError(f"none of {len(given)} proposals is finite")
        low, high = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
        kept = given[finite]
        clipped = np.clip(kept, low, high)
        outside_KA = np.abs(kept[:, 0] - clipped[:, 0]) > 1e-6 * (high - low)
        q = self.values(past, clipped[:, 0])
        if not np.isfinite(q).all():
            raise RuntimeError(f"{self.info.path}: its critic gives a Q value that is not finite")
        actions, index = choose(q, clipped, self.config, seed)
        return Choice(
            actions=actions,
            q=q,
            index=index,
            first=bool(finite[0]),
            num_clipped=int(np.count_nonzero(outside_KA.any(axis=1))),
            num_dropped=int(np.count_nonzero(~finite)),
        )

    def values(self, past: Sequence[Observation], actions: np.ndarray) -> np.ndarray:
        """Least Q float32 ``[K]`` of the averaged critics, of raw actions ``[K, A]`` for one observation."""
        frames, states, _ = arrays_of(past, self.spec, self.frame_sizes)
        batched = {name: each[None] for name, each in frames.items()}
        return self.predict_values(batched, states, past[-1].task, actions[None], averaged=True).min(axis=0)[0]


class Proposer:
    """A checkpoint's policy as one that proposes.

    One that can give many answers for one look (:class:`Proposes`) is asked once, any other once for each proposal.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy, self._graph = policy, policy.graph()

    @property
    def draws_noise(self) -> bool:
        """Whether two proposals for one observation differ."""
        return self._graph.noise_shape is not None

    def propose(self, past: Sequence[Observation], seeds: Sequence[int]) -> np.ndarray:
        """What it answers with each of the seeds, float32 ``[K, H, A]``, raw units.

        Args:
            past: T observations, the oldest first.
        """
        graph, device = self._graph, self.policy.device
        if not isinstance(graph.acting, Proposes) or graph.noise_shape is None:
            return np.stack([self.policy.act(past[-1], tuple(past[:-1]), seed)[0] for seed in seeds])
        given = self.policy.inputs(past).values()
        inputs = [torch.from_numpy(np.require(each, requirements=["C", "W"])).to(device) for each in given]
        noise_1KN = torch.stack([noise_for(seed, graph.noise_shape) for seed in seeds])[None].to(device)
        with torch.inference_mode():
            images, state_1TS, task_id_1, _ = graph.prepared(*inputs)
            scaled_KHA = graph.acting.propose(images, state_1TS, task_id_1, noise_1KN)[0]
            return ((scaled_KHA + 1.0) * graph.half_range + graph.low).cpu().numpy()
