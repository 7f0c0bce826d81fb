"""A checkpoint of the published JAX code to one of ours, without JAX: it then acts, and can be fine-tuned.

Taken over: actor, critic, averaged critic and temperature. Not taken over: Adam's moments (fine-tuning starts them
anew) and the step, which the file does not hold. The averaged actor starts as the actor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Args", "convert", "main"]

BRIDGE_STATE = (("x", "y", "z", "roll", "pitch", "yaw", "gripper"), ("m", "m", "m", "rad", "rad", "rad", "1"))
BRIDGE_LOW = (-0.05, -0.05, -0.05, -0.25, -0.25, -0.25, 0.0)
SPARE_SLOTS = 5
BRIDGE_HIGH = (0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        source: Checkpoint file of the published code (``checkpoint<step>``).
        out: Run folder to write; the checkpoint goes to ``<out>/checkpoints/<step>``.
        tasks: Task names in the order of the one-hot vector (the published code sorts them); the file does not hold
            them.
        num_task_slots: Width of our one-hot vector: slots beyond the given tasks stay free for fine-tuning. 0: five
            more than tasks.
        camera: Name of the camera whose frames the policy will see.
        step: Number of updates to record.
        control_hz: Control rate of the robot, Hz.
    """

    source: Path
    out: Path
    tasks: tuple[str, ...]
    num_task_slots: int = 0
    camera: str = "image_0"
    step: int = 160_000
    control_hz: float = 5.0


def main(args: Args) -> int:
    """Reads, converts, writes, and tells what was found."""
    from ptr_fast.checkpoint import save_checkpoint
    from ptr_fast.config import ActConfig
    from ptr_robot.published.flax_file import read_flax_checkpoint

    num_slots = args.num_task_slots or len(args.tasks) + SPARE_SLOTS
    learner = convert(read_flax_checkpoint(args.source), args.tasks, num_slots, args.camera, args.control_hz)
    record = {"converted_from": args.source.name, "learner": "parameters of the published JAX code"}
    path = save_checkpoint(args.out, args.step, learner, learner.spec, ActConfig(), record)
    encoder, spec = learner.config.encoder, learner.spec
    num_parameters = sum(p.numel() for name in ("actor", "critic") for p in learner.networks()[name].parameters())
    print(
        f"{path}: {encoder.name} of {encoder.num_filters} filters, {spec.camera.height}x{spec.camera.width} px, "
        f"{len(spec.tasks.names)} tasks in {num_slots} slots, {learner.config.num_critics} critics, "
        f"{num_parameters:,} parameters"
    )
    return 0


def convert(
    tree: Mapping[str, Any],
    tasks: tuple[str, ...],
    num_task_slots: int,
    camera: str = "image_0",
    control_hz: float = 5.0,
) -> Any:
    """A learner with the parameters of a checkpoint.

    Args:
        tree: nested dictionary of the file.
        tasks: task names by slot. A checkpoint of a single task has no one-hot vector: its task gets slot 0.
        num_task_slots: width of our one-hot vector; new slots start with weight 0.
        camera: name of the camera.
        control_hz: control rate, Hz.

    Returns:
        A :class:`ptr_fast.learners.CqlLearner` on the CPU.

    Raises:
        DataError: parameters that are missing or of an unexpected shape; names them.
        ValueError: the number of tasks does not fit.
    """
    import torch

    from ptr_fast.config import CqlConfig, PolicySpec, TaskTable
    from ptr_fast.errors import DataError
    from ptr_fast.learners import CqlLearner
    from ptr_fast.resize import RESIZE
    from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
    from ptr_robot.published.flax_file import flatten
    from ptr_robot.published.parameter_names import actor_state, critic_state, infer_sizes

    actor = flatten(_branch(tree, "actor", "params"))
    critic_encoder, critic_head = (flatten(_branch(tree, "critic", i, "params")) for i in ("0", "1"))
    target_encoder, target_head = (flatten(_branch(tree, "target_critic_params", i)) for i in ("0", "1"))
    log_temperature = np.ravel(flatten(_branch(tree, "temp", "params"))["log_temp"])[0]  # one per device, all equal

    sizes = infer_sizes(actor)
    names, units = BRIDGE_STATE
    num_known = sizes.num_conditions - len(names)
    if sizes.action_dim != len(BRIDGE_LOW) or len(tasks) != max(num_known, 1):
        raise ValueError(
            f"tasks: the policy takes {num_known} task slots beside {len(names)} state values and gives "
            f"{sizes.action_dim} actions (expected {len(BRIDGE_LOW)}); {len(tasks)} task names were given"
        )
    num_critics = critic_head[_kernel_0(critic_head)].shape[0]
    config = CqlConfig(encoder=sizes.encoder, hidden_dims=sizes.hidden_dims, num_critics=num_critics)
    actor = with_policy_slots(actor, num_task_slots - num_known)
    widths = num_known, sizes.encoder.embedding_dim, sizes.action_dim
    critic_head, target_head = (with_head_slots(a, num_task_slots, *widths) for a in (critic_head, target_head))
    height, width = sizes.image_size
    spec = PolicySpec(
        cameras=(CameraSpec(name=camera, height=height, width=width, resize=RESIZE),),
        state=StateSpec(names=names, units=units),
        action=ActionSpec(names=names, units=units, low=BRIDGE_LOW, high=BRIDGE_HIGH),
        tasks=TaskTable(names=tasks, num_slots=num_task_slots),
        control_hz=control_hz,
    )
    learner = CqlLearner(config, spec)
    networks = learner.networks()
    states = {
        "actor": actor_state(actor, config.encoder),
        "ema_actor": actor_state(actor, config.encoder),
        "critic": critic_state(critic_encoder, critic_head, config.encoder),
        "target_critic": critic_state(target_encoder, target_head, config.encoder),
        "temperature": {"log_temperature": torch.tensor(float(log_temperature))},
    }
    for name, state in states.items():
        try:
            networks[name].load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise DataError(f"{name}: the parameters do not fit the nets: {error}") from error
    return learner


def with_policy_slots(arrays: Mapping[str, np.ndarray], num_new: int) -> dict[str, np.ndarray]:
    """An actor's parameters with weights of 0 for new task slots, which come last in its input."""
    name = "network/MLP_0/Dense_0/kernel"
    return dict(arrays) | {name: np.pad(arrays[name], ((0, num_new), (0, 0)))}


def with_head_slots(
    arrays: Mapping[str, np.ndarray], num_slots: int, num_known: int, embedding_dim: int, action_dim: int
) -> dict[str, np.ndarray]:
    """A Q head's parameters with weights of 0 for new task slots, which come first in its input.

    Without a one-hot vector the published head takes (embedding, action, embedding); both shares of the embedding add.
    """
    name = _kernel_0(arrays)
    kernel = arrays[name]
    if num_known == 0:
        kernel = np.concatenate(
            [
                kernel[:, embedding_dim : embedding_dim + action_dim],
                kernel[:, :embedding_dim] + kernel[:, embedding_dim + action_dim :],
            ],
            axis=1,
        )
    new = np.zeros_like(kernel, shape=(kernel.shape[0], num_slots - num_known, kernel.shape[2]))
    return dict(arrays) | {name: np.concatenate([kernel[:, :num_known], new, kernel[:, num_known:]], axis=1)}


def _kernel_0(head: Mapping[str, np.ndarray]) -> str:
    from ptr_fast.errors import DataError

    names = [name for name in head if name.endswith("MLPActionSep_0/Dense_0/kernel")]
    if len(names) != 1:
        raise DataError(f"critic head: expected the published form (MLPActionSep_0), got {sorted(head)[:4]}")
    return names[0]


def _branch(tree: Any, *path: str) -> Mapping[str, Any]:
    """The dictionary at a path."""
    from ptr_fast.errors import DataError

    for depth, key in enumerate(path):
        if not isinstance(tree, Mapping) or key not in tree:
            known = sorted(map(str, tree))[:8] if isinstance(tree, Mapping) else type(tree).__name__
            raise DataError(f"expected {'/'.join(path[: depth + 1])!r} in the checkpoint, found {known}")
        tree = tree[key]
    if not isinstance(tree, Mapping):
        raise DataError(f"expected a dictionary at {'/'.join(path)!r} in the checkpoint, got {type(tree).__name__}")
    return tree
