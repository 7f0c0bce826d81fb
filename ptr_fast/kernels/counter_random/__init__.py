"""Random numbers as a function of a key and a counter: the same on every device, rank, resumed and captured run.

Philox4x32-10 (Salmon et al. 2011, the Random123 library) with the seed as key and the counter
``(step, sample, stream, block)``: sample is the number of a sample in the batch over all ranks, stream tells what the
numbers are for (:class:`Stream`), and block counts groups of four words of one sample. Nothing is stored, and nothing
is read back from a device.

Shapes: B samples, W words of each.
"""

from __future__ import annotations

import enum

import torch

from ptr_fast.kernels import dispatch, triton_backend
from ptr_fast.kernels.counter_random import native, reference
from ptr_fast.native import warn_missing, why_not_on

__all__ = ["Stream", "normal", "uniform", "uniform_bits"]

_OP = "counter_random"
_WORD = 1 << 32


class Stream(enum.IntEnum):
    """What numbers are drawn for; two purposes never share a stream."""

    NEXT_EPS = 0
    POLICY_EPS = 1
    RANDOM_ACTIONS = 2
    ACTOR_EPS = 3
    AUGMENT = 4
    NEXT_AUGMENT = 5
    BATCH = 6  # which transitions make up a batch
    NEXT_PROPOSALS = 10  # of CQL with cloned proposals
    PROPOSALS = 11
    DROPOUT = 20
    FLOW_NOISE = 21
    FLOW_TIME = 22
    VALUE_SAMPLES = 30  # of advantage-weighted cloning
    SHUFFLE = 31
    MASKED_PATCHES = 40  # which patches of an image are hidden
    CONTRASTED_FRAMES = 41  # which frames of a window are compared


dispatch.register(
    _OP,
    (
        triton_backend.lazy_backend(_OP),
        dispatch.Backend("native", native.counter_random, native.supports, why_not_on),
        dispatch.Backend("reference", reference.counter_random, reference.supports),
    ),
)


def uniform_bits(
    seed: int,
    stream: int,
    step: int | torch.Tensor,
    samples_B: torch.Tensor | range,
    num_words: int,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Uniform 32-bit words.

    Args:
        seed: 64 bits, the key; a negative number counts from 2**64 downwards.
        stream: 32 bits, see :class:`Stream`.
        step: number of the update below 2**32, or a 0-d int64 tensor that holds it (on the device: it is not read
            back, and only its low 32 bits count).
        samples_B: global numbers of the samples, int64 ``[B]`` or a range (``range(rank, batch_size, world_size)``);
            the low 32 bits count.
        num_words: W, words of each sample.
        device: of the result; default: that of ``samples_B``, or the CPU.

    Returns:
        int64 ``[B, W]`` in [0, 2**32).

    Raises:
        ValueError: a step or stream outside 32 bits, samples that are not int64 ``[B]``, tensors on other devices.
    """
    return _run("bits", seed, stream, step, samples_B, num_words, device)


def uniform(
    seed: int,
    stream: int,
    step: int | torch.Tensor,
    samples_B: torch.Tensor | range,
    num_words: int,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """float32 ``[B, W]`` uniform in [0, 1): the upper 24 bits of the words of :func:`uniform_bits`; same arguments."""
    return _run("uniform", seed, stream, step, samples_B, num_words, device)


def normal(
    seed: int,
    stream: int,
    step: int | torch.Tensor,
    samples_B: torch.Tensor | range,
    num_words: int,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Standard normal float32 ``[B, W]``, never infinite (at most 6.8 in size); arguments of :func:`uniform_bits`.

    Two words give two normals (Box and Muller 1958). Backends differ by the rounding of logarithm, sine and cosine.
    """
    return _run("normal", seed, stream, step, samples_B, num_words, device)


def _run(
    kind: str,
    seed: int,
    stream: int,
    step: int | torch.Tensor,
    samples_B: torch.Tensor | range,
    num_words: int,
    device: torch.device | str | None,
) -> torch.Tensor:
    where = None if device is None else torch.device(device)
    if isinstance(samples_B, torch.Tensor):
        if samples_B.dtype != torch.int64 or samples_B.ndim != 1:
            raise ValueError(f"samples: expected int64 [B], got {samples_B.dtype} {list(samples_B.shape)}")
        where = _same_device("samples", samples_B, where)
    where = torch.device("cpu") if where is None else where
    if isinstance(step, torch.Tensor):
        if step.dtype != torch.int64 or step.ndim != 0:
            raise ValueError(f"step: expected an int or a 0-d int64 tensor, got {step.dtype} {list(step.shape)}")
        if step.device.type != "cpu":
            where = _same_device("step", step, where)
    if isinstance(step, int) and not 0 <= step < _WORD:
        raise ValueError(f"step: expected 0 to 2**32 - 1, got {step}")
    if not 0 <= stream < _WORD:
        raise ValueError(f"stream: expected 0 to 2**32 - 1, got {stream}")
    if num_words < 1:
        raise ValueError(f"num_words: expected at least 1, got {num_words}")
    backend = dispatch.select(_OP, where)  # by the device alone: seeds and steps must not fill the table of choices
    if isinstance(step, torch.Tensor) and step.device.type == "cpu" and backend.name != "reference":
        return _run(kind, seed, stream, int(step), samples_B, num_words, device)
    if backend.name == "reference":
        warn_missing()
    return backend.run(kind, seed % (1 << 64), int(stream), step, samples_B, num_words, where)


def _same_device(name: str, tensor: torch.Tensor, where: torch.device | None) -> torch.device:
    """The tensor's device; ``where`` must name it, with its number or without.

    Raises:
        ValueError: they differ.
    """
    device = tensor.device
    if where is not None and (where.type != device.type or where.index not in (None, device.index)):
        raise ValueError(f"{name}: expected a tensor on {where}, got one on {device}")
    return device
