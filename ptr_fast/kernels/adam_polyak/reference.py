"""adam_polyak in plain PyTorch: the definition. Runs in any dtype and layout and on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ptr_fast.kernels.adam_polyak.operands import Operands

__all__ = ["adam_polyak", "supports"]


def supports(operands: Operands) -> str | None:
    """None: the reference can always run."""
    return None


def adam_polyak(
    operands: Operands,
    gradients: Sequence[torch.Tensor | None],
    lr: float | torch.Tensor,
    betas: tuple[float, float],
    eps: float,
    tau: float,
    weight_decay: float,
    max_grad_norm: float,
) -> None:
    beta1, beta2 = betas
    scale = _gradient_scale(gradients, max_grad_norm) if max_grad_norm else None
    for i, (parameter, gradient) in enumerate(zip(operands.parameters, gradients, strict=True)):
        if gradient is not None:
            exp_avg, exp_avg_sq = operands.exp_avgs[i], operands.exp_avg_sqs[i]
            step = operands.steps_N[i].add_(1)
            if scale is not None:
                gradient = gradient * scale.to(gradient.dtype)
            if weight_decay:
                parameter.mul_(1 - lr * weight_decay)
            exp_avg.lerp_(gradient, 1 - beta1)
            exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            # In float64: 1 - beta2 ** 1 keeps three digits fewer than it has.
            correction1, correction2 = (1 - beta ** step.double() for beta in betas)
            denominator = exp_avg_sq.sqrt().div_(correction2.sqrt()).add_(eps)
            parameter.sub_(lr / correction1 * (exp_avg / denominator))
        if operands.averages is not None:
            operands.averages[i].lerp_(parameter, tau)


def _gradient_scale(gradients: Sequence[torch.Tensor | None], max_grad_norm: float) -> torch.Tensor:
    """0-d float64 on the gradients' device: what they are multiplied by so that their norm is at most the largest."""
    squares = [gradient.double().square().sum() for gradient in gradients if gradient is not None]
    if not squares:
        return torch.ones((), dtype=torch.float64)
    return (max_grad_norm / (torch.stack(squares).sum().sqrt() + 1e-6)).clamp(max=1.0)
