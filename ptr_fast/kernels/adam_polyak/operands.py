"""The tensors that one pass of :func:`ptr_fast.kernels.adam_polyak.adam_polyak` walks over, and where they lie."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence

import torch

__all__ = ["Operands"]


class Operands:
    """Parameters with their moments and averages, checked once and used in every step.

    The fast backends find tensors by their addresses, so a tensor must keep its memory; see :meth:`moved`.

    Args:
        parameters: N tensors of one floating dtype on one device.
        exp_avgs, exp_avg_sqs: Adam's moments; each of its parameter's shape, strides and dtype.
        steps_N: float32 ``[N]``, how many updates each parameter had.
        averages: average of each parameter, or None.

    Attributes:
        written: the tensors of others that a pass changes: parameters and averages.
        is_dense: whether every parameter is contiguous or channels_last.

    Raises:
        ValueError: no parameters, or a tensor that is not like its parameter.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        exp_avgs: Sequence[torch.Tensor],
        exp_avg_sqs: Sequence[torch.Tensor],
        steps_N: torch.Tensor,
        averages: Sequence[torch.Tensor] | None = None,
    ) -> None:
        if not parameters:
            raise ValueError("adam_polyak: expected at least one parameter")
        first = parameters[0]
        self.device, self.dtype = first.device, first.dtype
        for name, tensors in (
            ("parameters", parameters),
            ("exp_avgs", exp_avgs),
            ("exp_avg_sqs", exp_avg_sqs),
            ("averages", averages),
        ):
            if tensors is not None:
                _check_like(name, tensors, parameters)
        if steps_N.shape != (len(parameters),) or steps_N.dtype != torch.float32 or steps_N.device != self.device:
            raise ValueError(f"adam_polyak: expected steps float32 [{len(parameters)}] on {self.device}")
        self.parameters, self.exp_avgs, self.exp_avg_sqs = list(parameters), list(exp_avgs), list(exp_avg_sqs)
        self.averages = None if averages is None else list(averages)
        self.steps_N = steps_N
        self.is_dense = all(p.is_contiguous() or p.is_contiguous(memory_format=torch.channels_last) for p in parameters)
        self.written = [*self.parameters, *(self.averages or ())]
        self._addresses = [tensor.data_ptr() for tensor in self.written]
        self._strides = [p.stride() for p in parameters]
        self._gradients: tuple[list[int], torch.Tensor] | None = None
        self._next_host: torch.Tensor | None = None
        self._captured: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def kind(self) -> Hashable:
        """What the choice of a backend depends on."""
        return self.device, self.dtype, self.is_dense, self.averages is not None

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{len(self.parameters)} tensors of {dtype}@{self.device.type}"

    def moved(self) -> bool:
        """Whether a parameter or average has other memory than when the operands were made."""
        return [tensor.data_ptr() for tensor in self.written] != self._addresses

    @functools.cached_property
    def tables_5N(self) -> torch.Tensor:
        """int64 on the device: addresses of parameters, exp_avgs, exp_avg_sqs, averages (0: none); sizes."""
        none = [0] * len(self.parameters)
        lists = (self.parameters, self.exp_avgs, self.exp_avg_sqs, self.averages)
        rows = [none if tensors is None else [t.data_ptr() for t in tensors] for tensors in lists]
        return torch.tensor([*rows, [p.numel() for p in self.parameters]], device=self.device)

    @functools.cached_property
    def is_aligned(self) -> bool:
        """Whether every tensor but the gradients starts at a multiple of 16 bytes."""
        tensors = (*self.written, *self.exp_avgs, *self.exp_avg_sqs)
        return all(tensor.data_ptr() % 16 == 0 for tensor in tensors)

    def laid_out(self, gradients: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """The gradients, those of another layout than their parameters copied into it.

        Raises:
            ValueError: a gradient that does not fit its parameter.
        """
        out = list(gradients)
        for i, (gradient, parameter, strides) in enumerate(zip(out, self.parameters, self._strides, strict=True)):
            if gradient is None:
                continue
            if gradient.shape != parameter.shape or gradient.dtype != self.dtype or gradient.device != self.device:
                raise ValueError(
                    f"adam_polyak: expected gradient {i} as its parameter, {self.dtype} {tuple(parameter.shape)} on "
                    f"{self.device}, got {gradient.dtype} {tuple(gradient.shape)} on {gradient.device}"
                )
            if gradient.stride() != strides and not _same_layout(gradient, parameter):
                out[i] = torch.empty_like(parameter).copy_(gradient)
        return out

    def gradient_addresses_N(self, gradients: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, bool]:
        """int64 ``[N]`` on the device (0: None), and whether all are multiples of 16; the gradients are laid out.

        Note "Captured addresses". Inside a captured CUDA graph the gradients lie in the graph's own memory, the same in
        every replay. Their addresses are copied from pinned host memory that was allocated before (nothing may be
        allocated there during a capture) and that is never written again, as the copy is replayed too.

        Raises:
            RuntimeError: the first step of all is captured.
        """
        # An empty tensor's address is 0 too; nothing is read from the one it gets here.
        addresses = [0 if gradient is None else gradient.data_ptr() or 16 for gradient in gradients]
        aligned = all(address % 16 == 0 for address in addresses)
        if self.device.type != "cuda":
            return torch.tensor(addresses, device=self.device), aligned
        capturing = torch.cuda.is_current_stream_capturing()
        if not capturing and self._gradients is not None and self._gradients[0] == addresses:
            return self._gradients[1], aligned
        host = self._next_host
        if host is None and capturing:
            raise RuntimeError("adam_polyak: run a step before one is captured")
        host = torch.empty(len(addresses), dtype=torch.int64, pin_memory=True) if host is None else host
        host.copy_(torch.tensor(addresses))
        on_device = torch.empty_like(host, device=self.device).copy_(host, non_blocking=True)
        if capturing:
            self._next_host = None
            self._captured.append((host, on_device))
        else:
            self._next_host = torch.empty_like(host, pin_memory=True)
            self._gradients = addresses, on_device
        return on_device, aligned


def _check_like(
    name: str,
    tensors: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
) -> None:
    dtype, device = parameters[0].dtype, parameters[0].device
    if len(tensors) != len(parameters):
        raise ValueError(f"adam_polyak: expected {len(parameters)} {name}, got {len(tensors)}")
    for i, (tensor, parameter) in enumerate(zip(tensors, parameters, strict=True)):
        if tensor.shape != parameter.shape or tensor.dtype != dtype or tensor.device != device:
            raise ValueError(
                f"adam_polyak: expected {name}[{i}] {dtype} {tuple(parameter.shape)} on {device}, "
                f"got {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
            )
        if not _same_layout(tensor, parameter):
            raise ValueError(
                f"adam_polyak: expected {name}[{i}] with its parameter's strides {parameter.stride()}, "
                f"got {tensor.stride()}"
            )


def _same_layout(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal strides, but for axes of size 1, whose strides say nothing."""
    return all(size == 1 or s == t for size, s, t in zip(a.shape, a.stride(), b.stride(), strict=True))
