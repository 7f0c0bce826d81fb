"""Every Triton kernel compiles for every architecture we name, without a GPU (in a process without the interpreter)."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

from ptr_fast.kernels import cubins

# Shared memory of one block: 163 KiB on sm_80, 227 KiB on sm_90 and sm_100, 99 KiB on sm_120.
_SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}

_COMPILE = """
import json, sys
from ptr_fast.kernels import cubins
rows = cubins.compile_all(sys.argv[1])
print(json.dumps([{**row, "ptx": len(row["ptx"])} for row in rows]))
"""


@pytest.mark.triton
@pytest.mark.parametrize("op", cubins.OPS)
def test_kernels_compile_for_every_architecture(op):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", _COMPILE, op], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    assert {row["architecture"] for row in rows} == set(cubins.ARCHITECTURES)
    for row in rows:
        assert row["num_bytes"] > 0
        assert row["shared_bytes"] <= _SHARED_LIMIT[row["architecture"]], row


def test_compiling_refuses_to_run_in_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="another process"):
        cubins.compile_all("group_norm_act")
