"""The encoders' convolutions on the instruction sets that oneDNN tells apart, each in a process with a checked heap."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MALLOC_DEBUG = "libc_malloc_debug.so.0"  # glibc's allocator that looks at the ends of a buffer when it is freed


def sweep(isa: str, widths: str, sizes: str) -> None:
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    if platform.libc_ver()[0] == "glibc":
        env |= {"LD_PRELOAD": MALLOC_DEBUG, "MALLOC_CHECK_": "3"}
    program = [sys.executable, str(Path(__file__).with_name("convolution_sweep.py")), widths, sizes]
    done = subprocess.run(program, env=env, text=True, capture_output=True, check=False)
    last = done.stdout.strip().rpartition("\n")[2]
    assert done.returncode == 0, f"{isa}: exit code {done.returncode} at: {last}\n{done.stderr[-2000:]}"
    assert last.endswith(" shapes"), done.stdout


def test_narrow_convolutions_on_a_processor_with_avx2():
    sweep("AVX2", "1,4", "24x24")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("isa", ["SSE41", "AVX", "AVX2", "DEFAULT"])
def test_convolutions_of_all_encoders_and_widths(isa):
    sweep(isa, ",".join(map(str, [*range(1, 18), 24, 32, 48, 64])), "24x24,25x31,48x48")
