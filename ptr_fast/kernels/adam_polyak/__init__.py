"""Adam's step and the average of the weights, in one pass over all tensors of an optimiser.

Separate passes read and write every parameter twice: 40 bytes an element, 36 in one (read parameter, gradient, both
moments and average; write all but the gradient).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ptr_fast.kernels import dispatch, triton_backend
from ptr_fast.kernels.adam_polyak import native, reference
from ptr_fast.kernels.adam_polyak.operands import Operands
from ptr_fast.native import warn_missing, why_not_on

__all__ = ["Operands", "adam_polyak"]

_OP = "adam_polyak"


dispatch.register(
    _OP,
    (
        triton_backend.lazy_backend(_OP),
        dispatch.Backend("native", native.adam_polyak, native.supports, why_not_on),
        dispatch.Backend("reference", reference.adam_polyak, reference.supports),
    ),
)


@torch.no_grad()
def adam_polyak(
    operands: Operands,
    gradients: Sequence[torch.Tensor | None],
    lr: float | torch.Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    tau: float = 0.0,
    weight_decay: float = 0.0,
    max_grad_norm: float = 0.0,
) -> None:
    """Updates moments, parameters and averages in place.

    With t the updates of a parameter, this one counted, and norm that of all gradients together::

        gradient   <- gradient * min(1, max_grad_norm / (norm + 1e-6))      only with max_grad_norm
        parameter  <- parameter - lr * weight_decay * parameter             only with weight_decay
        exp_avg    <- beta1 * exp_avg    + (1 - beta1) * gradient
        exp_avg_sq <- beta2 * exp_avg_sq + (1 - beta2) * gradient ** 2
        parameter  <- parameter - lr * (exp_avg / (1 - beta1 ** t)) / (sqrt(exp_avg_sq / (1 - beta2 ** t)) + eps)
        average    <- tau * parameter + (1 - tau) * average

    Args:
        operands: parameters, moments, counts of updates, averages.
        gradients: one per parameter, of its shape; where None, only the average is moved.
        lr: learning rate; a 0-d float32 tensor on the device where the step is captured in a CUDA graph.
        betas, eps: of Adam.
        tau: share of the new weights in the average, 0 to 1.
        weight_decay: decoupled from the gradient, as AdamW's; 0 turns it off.
        max_grad_norm: of all gradients of this call together; 0 turns clipping off. The norm is not read back, and the
            gradients themselves are not changed. Where it is not finite, neither is what is trained.

    Raises:
        ValueError: a gradient that does not fit its parameter, a tau outside 0 to 1, or a negative number.

    Source: Kingma and Ba 2015, algorithm 1, as ``torch.optim.Adam``; Loshchilov and Hutter 2019, "Decoupled weight
    decay", as ``torch.optim.AdamW``; ``torch.nn.utils.clip_grad_norm_``; Polyak and Juditsky 1992.
    """
    if not 0.0 <= tau <= 1.0:
        raise ValueError(f"adam_polyak: expected tau between 0 and 1, got {tau}")
    if weight_decay < 0.0 or max_grad_norm < 0.0:
        raise ValueError(
            f"adam_polyak: expected no negative number, got weight_decay {weight_decay}, max_grad_norm {max_grad_norm}"
        )
    backend = dispatch.select(_OP, operands)
    if backend.name == "reference":
        warn_missing()
    backend.run(operands, gradients, lr, betas, eps, tau, weight_decay, max_grad_norm)
    # Written by address: autograd has to hear of it, so that a graph over old weights cannot go backward unnoticed.
    torch.autograd.graph.increment_version(operands.written)
