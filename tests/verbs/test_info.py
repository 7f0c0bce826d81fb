"""``ptr-fast info``: complete, honest about what is missing, and quick to say its first word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptr_fast import native
from ptr_fast.kernels import dispatch
from ptr_robot.verbs import info

ROOT = Path(__file__).resolve().parents[2]


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main(info.Args()) == 0
    out = capsys.readouterr().out
    for expected in (*info.SECTIONS, "python", "torch", "simplejpeg", "instruction set", "group_norm_act on cpu"):
        assert expected in out
    assert max(map(len, out.splitlines())) < 400


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main(info.Args(json=True)) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == list(info.SECTIONS)
    assert report["versions"]["python"].count(".") == 2
    assert "decoder on cpu" in report["frames"]


def test_missing_things_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_load", lambda: (None, "it was never built"))
    dispatch.clear()
    assert info.native_module() == {"module": "missing: it was never built"}
    assert "native: it was never built" in info.kernels()["group_norm_act on cpu"]
    assert "-> reference" in info.kernels()["group_norm_act on cpu"]
    monkeypatch.setattr(info, "PACKAGES", ("no-such-package",))
    assert info.versions()["no-such-package"] is None
    dispatch.clear()


def test_a_forced_backend_that_cannot_run_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTR_FAST_BACKEND", "cuda")
    assert "tensors are on cpu, the kernels are for CUDA GPUs" in info.kernels()["group_norm_act on cpu"]
    monkeypatch.setenv("PTR_FAST_BACKEND", "none")
    assert info.kernels()["group_norm_act on cpu"].startswith("error: group_norm_act has no backend 'none'")


def test_every_op_is_there_and_the_native_one_is_chosen_on_the_cpu() -> None:
    chosen = info.kernels()
    assert {name.removesuffix(" on cpu") for name in chosen if name.endswith(" on cpu")} == set(dispatch.ops())
    for name, choice in chosen.items():
        assert "-> native" in choice or not name.endswith(" on cpu"), choice


def test_first_lines_come_before_torch_is_imported() -> None:
    code = """
import sys, time
from ptr_robot.verbs import info
info.versions(), info.machine(), info.native_module()
assert "torch" not in sys.modules
"""
    path = os.pathsep.join([str(ROOT), str(ROOT / "python")])
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path}, timeout=60)
    assert time.perf_counter() - begin < 20  # two seconds on a quiet machine
