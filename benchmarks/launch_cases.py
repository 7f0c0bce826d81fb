"""What the product runs on a GPU, op for op, on ``meta`` tensors: for :mod:`benchmarks.launches`.

Updates of every learner, encoder and precision from frames of every kind, acting, values of many actions, sampling;
also everything of size one, since Triton compiles that number in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import torch

from ptr_fast.config import (
    ActConfig,
    AugmentConfig,
    BcConfig,
    CqlConfig,
    EncoderConfig,
    LearnerConfig,
    PolicySpec,
    TaskTable,
)
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.adam_polyak import Operands, adam_polyak
from ptr_fast.learners import make_learner
from ptr_fast.learners.acting import ModeActing
from ptr_fast.learners.cql.networks import SearchActing, make_actor, make_critic
from ptr_fast.runtime.graph import ActingGraph
from ptr_fast.types import ActionSpec, Batch, CameraSpec, PooledFrames, StateSpec
from ptr_robot.recipes import sim
from ptr_robot.training.precision import encoder_dtype, set_matmul_precision

__all__ = ["CASES", "QUICK"]

META = torch.device("meta")
Frames = Literal["host", "rgb", "yuv420"]


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def _spec(size: int, dim: int) -> PolicySpec:
    names, units = tuple(f"x{i}" for i in range(dim)), ("1",) * dim
    return PolicySpec(
        cameras=(CameraSpec(name="image_0", height=size, width=size),),
        state=StateSpec(names=names, units=units),
        action=ActionSpec(names=names, units=units, low=(-1.0,) * dim, high=(1.0,) * dim),
        tasks=TaskTable(names=("task",), num_slots=16),
        control_hz=5.0,
    )


def _frames(kind: Frames, num: int, size: int) -> Any:
    if kind == "host":
        return {"image_0": _empty(num, 1, size, size, 3, dtype=torch.uint8)}
    shape = (1000, size, size, 3) if kind == "rgb" else (1000, size // 2 * 3, size)
    return {"image_0": PooledFrames(_empty(*shape, dtype=torch.uint8), _empty(num, 1, dtype=torch.int64))}


def update(
    config: LearnerConfig, precision: str, num_batch: int = 64, size: int = 128, frames: Frames = "host", dim: int = 7
) -> None:
    """An update whose step is a number, and one whose step is a tensor, as a capture has it."""
    set_matmul_precision(cast(Any, precision))
    spec = _spec(size, dim)
    learner = make_learner(config, spec, device=META, encoder_dtype=encoder_dtype(cast(Any, precision)))
    batch = Batch(
        images=_frames(frames, num_batch, size),
        next_images=_frames(frames, num_batch, size),
        state=_empty(num_batch, 1, dim),
        next_state=_empty(num_batch, 1, dim),
        task_id=_empty(num_batch, dtype=torch.int64),
        actions=_empty(num_batch, 1, dim),
        rewards=_empty(num_batch),
        masks=_empty(num_batch),
    )
    for optimizer in learner.optimizers().values():
        optimizer.param_groups[0]["lr"] = _empty()  # as on a GPU
    # In full float32 the heads are the reference's.
    with dispatch.use_backend(_backends(precision)):
        for step in (1, _empty(dtype=torch.int64)):
            learner.update(batch, cast(Any, step))


def act(config: CqlConfig, mode: str, precision: str = "fp32", size: int = 128) -> None:
    """One action; frames of another size than the nets' go through two products."""
    set_matmul_precision(cast(Any, precision))
    spec, actor = _spec(size, 7), make_actor(config, _spec(size, 7))
    sizes = {camera.name: (480, 640) for camera in spec.cameras}
    if mode == "search":
        search, noise = SearchActing(actor, make_critic(config, spec), 1), (ActConfig().num_candidates, 7)
        graph = ActingGraph(search, spec, sizes, noise, task="task").to(META)
    else:
        graph = ActingGraph(ModeActing(actor), spec, sizes, task="task").to(META)
    with torch.inference_mode(), dispatch.use_backend(_backends(precision)):
        graph(*graph.example())


def values(config: CqlConfig, num_frames: int) -> None:
    """Q of one action in each of many frames, and of many actions in one."""
    set_matmul_precision("tf32")
    critic = make_critic(config, _spec(128, 7)).to(META)
    with torch.inference_mode():
        for num_states, num_actions in ((num_frames, 1), (1, num_frames)):
            task_id = _empty(num_states, dtype=torch.int64)
            hoisted = critic.head.hoist(_empty(num_states, 0), _empty(num_states, 7), task_id)
            critic.head.q(hoisted, _empty(num_states, num_actions, 7))


def optimise(offset: int, weight_decay: float = 0.0, max_grad_norm: float = 0.0) -> None:
    """Adam without an average; gradients begin ``offset`` elements into a buffer, as those of several ranks may."""
    parameters, moments = [_empty(33, 7), _empty(1)], [[_empty(33, 7), _empty(1)] for _ in range(2)]
    gradients = [_empty(offset + 231)[offset:].view(33, 7), None]
    operands = Operands(parameters, *moments, _empty(2))
    adam_polyak(operands, gradients, _empty(), (0.9, 0.999), 1e-8, 0.0, weight_decay, max_grad_norm)


def sample() -> None:
    """Rows of a batch from two groups of stores."""
    sampler = MixtureSampler(((1000, 10), (50,)), mix=0.5, batch_size=64, seed=0)
    for step in (1, _empty(dtype=torch.int64)):
        sampler.rows(step, META)


def _backends(precision: str) -> str:
    head = "reference" if precision == "fp32" else "triton"
    return ",".join(f"{op}={head if op == 'cql_head' else 'triton'}" for op in dispatch.ops())


def _cql(encoder: str, **options: Any) -> CqlConfig:
    return CqlConfig(encoder=EncoderConfig(name=cast(Any, encoder)), **options)


_ONE = CqlConfig(
    encoder=EncoderConfig(name="conv3", num_filters=1, num_groups=1, num_spatial_blocks=1, embedding_dim=1),
    hidden_dims=(1, 1),
    num_critics=1,
    num_action_samples=1,
)
_TEN = _cql("resnet18", num_critics=10)
_SIM = {name: replace(recipe.learner, lr_schedule_steps=100) for name, (_, recipe) in sim.RECIPES.items()}
_WITHOUT = {
    "no crop": AugmentConfig(crop_padding=0),
    "no jitter": AugmentConfig(jitter_probability=0.0),
    "no augmentation": AugmentConfig(crop_padding=0, jitter_probability=0.0),
}

# A small ResNet, an action, the toy recipe from planes, all sizes one.
QUICK: dict[str, Callable[[], None]] = {
    "update resnet_small bf16": partial(update, _cql("resnet_small"), "bf16", 8, 64, "host"),
    "act resnet18 search": partial(act, _cql("resnet18"), "search"),
    "update sim tf32": partial(update, _SIM["sim"], "tf32", 32, 64, "yuv420"),
    "update of size one bf16": partial(update, _ONE, "bf16", 1, 8, "host", 1),
    "optimise unaligned": partial(optimise, 1),
    "optimise with decay and clipping": partial(optimise, 4, 0.1, 1.0),
    "sample": sample,
}
CASES: dict[str, Callable[[], None]] = {
    **QUICK,
    "update resnet18 bf16 ten critics yuv420": partial(update, _TEN, "bf16", 256, 128, "yuv420"),
    **{
        f"update {encoder} {precision} {frames}": partial(update, _cql(encoder), precision, 64, 128, frames)
        for encoder, precision, frames in (
            ("resnet_small", "bf16", "host"),
            ("resnet18", "bf16", "rgb"),
            ("resnet34", "bf16", "host"),
            ("resnet34", "tf32", "host"),
            ("resnet34", "fp32", "rgb"),
            ("resnet50", "bf16", "yuv420"),
            ("resnet50", "tf32", "rgb"),
            ("conv3", "bf16", "rgb"),
        )
    },
    "update vit bf16": partial(update, _cql("vit"), "bf16", 64, 64, "rgb"),
    "update of size one fp32": partial(update, _ONE, "fp32", 1, 8, "host", 1),
    "update resnet34 bf16 64 px": partial(update, _cql("resnet34"), "bf16", 64, 64),
    "update resnet18 bf16 256 px": partial(update, _cql("resnet18"), "bf16", 64, 256, "rgb"),
    "update resnet18 tf32 odd sizes": partial(update, _cql("resnet18"), "tf32", 7, 100),
    "update none tf32": partial(update, _cql("none", critic_head="reinject_action"), "tf32"),
    "update plain heads": partial(update, _cql("resnet_small", critic_head="plain", hidden_dims=(256, 256)), "bf16"),
    "update one hidden layer": partial(update, _cql("resnet_small", hidden_dims=(64,)), "bf16"),
    "update shared encoder": partial(update, _cql("resnet18", actor_encoder="critic"), "bf16"),
    **{f"update {name} {p}": partial(update, _SIM[name], p, 32, 64, "rgb") for name in _SIM for p in ("bf16", "fp32")},
    "update bc bf16": partial(update, BcConfig(), "bf16"),
    **{
        f"update {name} {frames}": partial(update, _cql("conv3", augment=augment), "bf16", 64, 128, frames)
        for name, augment in _WITHOUT.items()
        for frames in cast(tuple[Frames, ...], ("host", "rgb", "yuv420"))
    },
    **{
        f"act {e} {mode}": partial(act, _cql(e), mode)
        for e in ("resnet34", "resnet50", "conv3")
        for mode in ("mean", "search")
    },
    "act resnet34 search tf32": partial(act, _cql("resnet34"), "search", "tf32"),
    "values": partial(values, _cql("none", critic_head="reinject_action"), 50),
    "optimise aligned": partial(optimise, 4),
    "optimise with decay": partial(optimise, 4, 0.1),
    "optimise with clipping unaligned": partial(optimise, 1, 0.0, 1.0),
    "update bc with decay and clipping": partial(update, BcConfig(weight_decay=0.1, max_grad_norm=1.0), "bf16"),
}
