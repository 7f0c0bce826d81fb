"""The learners and batches that whole-step benchmarks run on, and their exchange with other processes by .npz files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.plain_batch import only, plain
from ptr_fast.config import CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners import CqlLearner, Draws
from ptr_fast.types import ActionSpec, Batch, CameraSpec, StateSpec

__all__ = ["StepCase", "export", "make_batch", "make_learner", "parameters_by_name"]


@dataclass(frozen=True, kw_only=True)
class StepCase:
    """One size of the whole step.

    Attributes:
        encoder: its name in :class:`ptr_fast.config.EncoderConfig`.
        num_batch: transitions of a batch.
        image_size: height and width of frames, pixels.
        num_filters, embedding_dim, hidden_dims: widths.
    """

    encoder: str
    num_batch: int
    image_size: int = 64
    num_filters: int = 64
    embedding_dim: int = 256
    hidden_dims: tuple[int, ...] = (256, 256, 256)

    def __str__(self) -> str:
        return f"{self.encoder} {self.image_size}x{self.image_size} batch {self.num_batch}"

    @property
    def config(self) -> CqlConfig:
        encoder = EncoderConfig(name=self.encoder, num_filters=self.num_filters, embedding_dim=self.embedding_dim)
        return CqlConfig(encoder=encoder, hidden_dims=self.hidden_dims)


def make_learner(case: StepCase, device: str = "cpu", **options: Any) -> CqlLearner:
    """The paper's learner at the sizes of a case; equal weights at every call."""
    names, units = tuple("xyzrpyg"), ("1",) * 7
    spec = PolicySpec(
        cameras=(CameraSpec(name="image_0", height=case.image_size, width=case.image_size),),
        state=StateSpec(names=names, units=units),
        action=ActionSpec(names=names, units=units, low=(-1.0,) * 7, high=(1.0,) * 7),
        tasks=TaskTable(names=("bench",), num_slots=16),
        control_hz=5.0,
    )
    return CqlLearner(case.config, spec, seed=0, device=device, **options)


def make_batch(case: StepCase, device: str = "cpu", action_dim: int = 7, state_dim: int = 7) -> Batch:
    """Smooth random frames (noise would make every pixel an edge), random rest; equal at every call."""
    rng = np.random.default_rng(0)
    size, num_batch = case.image_size, case.num_batch

    def images() -> torch.Tensor:
        coarse = rng.integers(0, 256, (num_batch, size // 8, size // 8, 3)).repeat(8, 1).repeat(8, 2)
        frames = np.clip(coarse + rng.normal(0, 6, coarse.shape), 0, 255).astype(np.uint8)
        return torch.from_numpy(frames)[:, None].to(device)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32)).to(device)

    return Batch(
        images={"image_0": images()},
        next_images={"image_0": images()},
        state=normal(num_batch, 1, state_dim),
        next_state=normal(num_batch, 1, state_dim),
        task_id=torch.zeros(num_batch, dtype=torch.int64, device=device),
        actions=normal(num_batch, 1, action_dim).mul(0.5).clamp(-0.99, 0.99),
        rewards=-torch.ones(num_batch, device=device),
        masks=torch.ones(num_batch, device=device),
    )


def parameters_by_name(learner: CqlLearner) -> dict[str, torch.Tensor]:
    """Every weight that an update changes, as ``actor.encoder.trunk.stem_conv.weight`` and so on (not copied)."""
    nets = learner.networks()
    names = ("actor", "critic", "target_critic", "temperature")
    return {f"{net}.{key}": value for net in names for key, value in nets[net].state_dict(keep_vars=True).items()}


def export(path: Path, learner: CqlLearner, batch: Batch, draws: Draws) -> None:
    """Weights (``weight/``), batch (``batch/``) and draws (``draws/``) of one update as one .npz file."""
    arrays = {f"weight/{name}": value for name, value in parameters_by_name(learner).items()}
    arrays |= {f"batch/{name}": value for name, value in vars(plain(batch)).items()}
    for name in ("next_eps", "policy_eps", "random_actions", "actor_eps"):
        arrays[f"draws/{name}"] = getattr(draws, name)
    for prefix in ("augment", "next_augment"):
        params = only(getattr(draws, prefix))
        arrays[f"draws/{prefix}/crop_offsets"] = params.crop_offsets
        for name in ("apply", "order", "brightness", "contrast", "saturation", "hue"):
            arrays[f"draws/{prefix}/{name}"] = getattr(params.jitter, name)
    np.savez(path, **{name: value.detach().cpu().numpy() for name, value in arrays.items()})
