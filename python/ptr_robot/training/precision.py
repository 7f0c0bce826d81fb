"""What a run computes in: ``bf16``, ``tf32`` or ``fp32``, and what that asks of the device.

Whatever the choice, weights, optimiser states, norm statistics, heads, log-sum-exp and losses are float32. On a GPU
``bf16`` and ``tf32`` round the inputs of the heads' products to TF32, 11 significant bits; their sums are float32. That
moves Q by less than 1e-3 of its size, and less than half as much as a bfloat16 trunk's last rounding does
(``tests/learners/test_precision.py``).
"""

from __future__ import annotations

import torch

from ptr_robot.training.config import Precision

__all__ = ["encoder_dtype", "resolve_precision", "set_matmul_precision"]

MIN_CAPABILITY = (8, 0)  # Ampere: the first with bfloat16 and TF32 units


def resolve_precision(precision: Precision, device: torch.device, takes_bfloat16: bool = True) -> Precision:
    """``auto`` is ``bf16`` on a GPU that has the units for it, for a learner that takes it, and ``fp32`` elsewhere.

    Any other choice is kept.

    Raises:
        ValueError: the device or the learner cannot do what was asked for.
    """
    if not takes_bfloat16:
        if precision == "bf16":
            raise ValueError("precision bf16: this learner does not train in bfloat16; take fp32")
        precision = "fp32" if precision == "auto" else precision
    if device.type != "cuda":
        if precision == "tf32":
            raise ValueError("precision tf32 is a mode of NVIDIA GPUs; on the CPU take fp32 or bf16")
        return "fp32" if precision == "auto" else precision
    capability = torch.cuda.get_device_capability(device)
    if capability < MIN_CAPABILITY:
        if precision in ("bf16", "tf32"):
            has = f"{torch.cuda.get_device_name(device)} has {capability[0]}.{capability[1]}"
            raise ValueError(f"precision {precision} needs a GPU of compute capability 8.0 or above, {has}; take fp32")
        return "fp32"
    return "bf16" if precision == "auto" else precision


def encoder_dtype(precision: Precision) -> torch.dtype | None:
    """What the learners take as ``encoder_dtype``."""
    return torch.bfloat16 if precision == "bf16" else None


def set_matmul_precision(precision: Precision) -> None:
    """Lets the float32 convolutions and products of this process round their inputs to TF32, or forbids it.

    In ``bf16`` the trunk's activations have 8 significant bits; TF32 keeps 11 of what the heads multiply.
    PyTorch's own default allows it for convolutions.
    """
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision in ("bf16", "tf32")
