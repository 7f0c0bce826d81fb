"""JPEG frames to pixels on the device: threads of the host and a copy, torchvision's CUDA decoder, DALI's ``mixed``."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.timing import Bench
from benchmarks.harness import compare

__all__ = ["run"]

NUM_FRAMES, SIZE = 512, 128
MOST_LEVELS = 4  # decoders differ by rounding, and by how they widen the colours of 4:2:0


def run(bench: Bench) -> None:
    """The row of ``gpu_decode``."""
    num_frames, size = (4, 32) if bench.dry else (NUM_FRAMES, SIZE)
    label = f"{num_frames} JPEG frames of {size}x{size} to the device"
    bench.attempt("gpu_decode", label, lambda: row(bench, num_frames, size, label))


def row(bench: Bench, num_frames: int, size: int, label: str) -> dict[str, Any]:
    """Every decoder that is installed; what is missing is named in the row."""
    bench.need(20)
    from benchmarks.bench_decode import frames  # not every machine has simplejpeg
    from ptr_fast.data.decode import make_decoder

    encoded = frames(size, num_frames)
    num_threads = min(os.cpu_count() or 1, 8)
    host = make_decoder(size, size, "simplejpeg", num_threads=num_threads)
    variants: dict[str, Callable[[], torch.Tensor]] = {
        f"host_{num_threads}_threads": lambda: torch.as_tensor(host.decode(encoded)).to(bench.device)
    }
    not_installed: dict[str, str] = {}
    if importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None:
        dali = make_decoder(size, size, "dali", bench.device, num_threads)
        variants["dali"] = lambda: torch.as_tensor(dali.decode(encoded))
    else:
        not_installed["dali"] = "DALI is not installed"
    if importlib.util.find_spec("torchvision") is not None:
        variants["torchvision"] = _torchvision(encoded, bench.device)
    else:
        not_installed["torchvision"] = "torchvision is not installed"

    def gate() -> dict[str, Any]:
        wanted = torch.as_tensor(host.decode(encoded)).int()
        away = {}
        for name, decode in variants.items():
            away[name] = int((decode().cpu().int() - wanted).abs().max())
            assert away[name] <= MOST_LEVELS, f"{name} is {away[name]} levels away"
        return {"levels_away": away, "not_installed": not_installed}

    timed = {name: _waited(bench, decode) for name, decode in variants.items()}
    return compare("gpu_decode", label, timed, gate, num_rounds=bench.rounds(21), dry=bench.dry)


def _torchvision(encoded: list[bytes], device: str) -> Callable[[], torch.Tensor]:
    from torchvision.io import decode_jpeg

    data = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in encoded]
    return lambda: torch.stack(decode_jpeg(data, device=device)).permute(0, 2, 3, 1)


def _waited(bench: Bench, decode: Callable[[], torch.Tensor]) -> Callable[[], Any]:
    """By the clock of the host, which works too, until the pixels are there."""

    def work() -> None:
        decode()
        if not bench.dry:
            torch.cuda.synchronize()

    return work
