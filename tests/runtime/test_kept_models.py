"""A model that was exported once is not exported again, unless something that it is made of has changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ptr_fast.runtime import kept_models
from ptr_fast.runtime.export import part_to_onnx
from ptr_fast.runtime.kept_models import DIGEST_BYTES, fingerprint, keep, kept

pytest.importorskip("onnxscript")


class Scaled(nn.Module):
    def __init__(self, factor: float, weight: float = 1.0) -> None:
        super().__init__()
        self.factor, self.weight = factor, nn.Parameter(torch.full((3,), weight))
        self.register_buffer("offset", torch.zeros(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.weight * x + self.offset


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PTR_FAST_CACHE", str(tmp_path / "models"))
    return tmp_path / "models"


def export(module: nn.Module) -> bytes:
    return part_to_onnx(module, (torch.ones(3),), ("x",))


def test_the_second_time_nothing_is_exported(cache, monkeypatch):
    first = export(Scaled(2.0))
    exporter = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("it exported again"))
    assert export(Scaled(2.0)) == first
    monkeypatch.setattr(torch.onnx, "export", exporter)
    (file,) = cache.glob("*.onnx")
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    assert export(Scaled(2.0)) == first, "a damaged file is made again"
    assert file.read_bytes()[DIGEST_BYTES:] == first
    file.unlink()
    cache.rmdir()
    cache.write_text("no folder")
    assert export(Scaled(2.0)) == first, "where nothing can be kept it goes on"


def test_all_that_a_model_is_made_of_counts(monkeypatch):
    example = (torch.ones(3),)
    moved = Scaled(2.0)
    moved.offset += 1
    keys = [
        fingerprint(Scaled(2.0), example, "x"),
        fingerprint(Scaled(3.0), example, "x"),
        fingerprint(Scaled(2.0, weight=0.5), example, "x"),
        fingerprint(moved, example, "x"),
        fingerprint(Scaled(2.0), (torch.ones(3, dtype=torch.float64),), "x"),
        fingerprint(Scaled(2.0), (torch.ones(1, 3),), "x"),
        fingerprint(Scaled(2.0), example, "y"),
        fingerprint(nn.Sequential(Scaled(2.0)), example, "x"),
    ]
    assert fingerprint(Scaled(2.0), example, "x") == keys[0]
    monkeypatch.setattr(kept_models, "_source", lambda: ("another version",))
    keys.append(fingerprint(Scaled(2.0), example, "x"))
    assert len(set(keys)) == len(keys)


def test_the_models_that_were_not_used_for_longest_go(cache, monkeypatch):
    monkeypatch.setattr(kept_models, "MAX_BYTES", 2 * (100 + DIGEST_BYTES))
    for number, key in enumerate("ab"):
        keep(key, bytes(100))
        kept_models.os.utime(cache / f"{key}.onnx", (number, number))
    assert kept("a") == bytes(100)
    keep("c", bytes(100))
    assert (kept("a"), kept("b"), kept("c")) == (bytes(100), None, bytes(100))
