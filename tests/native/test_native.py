"""The native module as a whole: how it was built, its instruction sets, and its threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from ptr_fast import native

pytestmark = pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))


def test_build_info() -> None:
    info = native.build_info()
    assert set(info) == {"compiler", "flags", "isas", "isa", "cuda", "cuda_architectures", "cuda_kernels"}
    assert info["isa"] in info["isas"].split()
    assert "-march=native" not in info["flags"]
    assert info["cuda"].startswith(("yes: ", "no: "))


def test_no_torch_and_no_cuda_library_is_linked() -> None:
    libraries = subprocess.run(["ldd", native.require().__file__], capture_output=True, text=True, check=True).stdout
    assert "torch" not in libraries
    assert "cuda" not in libraries


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_nothing_but_its_init_function_is_exported() -> None:
    """Else a statically linked C++ library would be mixed with the shared one that NumPy and PyTorch bring."""
    command = ["nm", "-D", "--defined-only", native.require().__file__]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line.split()[-1] for line in symbols.splitlines()] == ["PyInit__native"]


def test_instruction_sets() -> None:
    before = native.isa()
    native.set_isa("baseline")
    assert native.isa() == "baseline"
    native.set_isa(before)
    with pytest.raises(ValueError, match="expected baseline, avx2 or avx512, got 'sse9'"):
        native.set_isa("sse9")
    code = "from ptr_fast import native; print(native.isa())"
    environment = {**os.environ, "PTR_FAST_ISA": "baseline"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert out.stdout.strip() == "baseline"


def frame_gather(num_frames: int, size: int):
    data = np.arange(num_frames * size, dtype=np.int64).astype(np.uint8)
    offsets = np.arange(num_frames + 1, dtype=np.int64) * size
    return native.require().FrameGather([(0, offsets, data)], size), data.reshape(num_frames, size)


def test_many_callers_share_the_pool() -> None:
    gather, pixels = frame_gather(512, 40_000)
    wrong = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        out = np.empty((128, 40_000), np.uint8)
        for _ in range(10):
            records = rng.integers(0, 512, 128)
            out.fill(0)
            gather.gather(records, None, out, 4)
            if not np.array_equal(out, pixels[records]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_pool_works_after_a_fork() -> None:
    code = """
import os, numpy as np
from ptr_fast import native
size = 200_000
data = np.arange(64 * size, dtype=np.int64).astype(np.uint8)
gather = native.require().FrameGather([(0, np.arange(65, dtype=np.int64) * size, data)], size)
out = np.zeros((64, size), np.uint8)
gather.gather(np.arange(64), None, out, 4)
assert native.require().pool_size() >= 3
child = os.fork()
if child == 0:
    out.fill(0)
    gather.gather(np.arange(64), None, out, 4)
    os._exit(0 if (out.reshape(-1) == data).all() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_buffers_are_kept_alive_and_checked() -> None:
    gather, _ = frame_gather(4, 12)
    out = np.zeros((1, 12), np.uint8)
    gather.gather(np.array([3]), None, out, 1)
    assert out.tolist() == [list(range(36, 48))]
    frozen = np.zeros((1, 12), np.uint8)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        gather.gather(np.array([0]), None, frozen, 1)
    with pytest.raises(ValueError, match="records: expected a contiguous array of int64, got list"):
        gather.gather([0], None, out, 1)
    with pytest.raises(ValueError, match="out: expected rows of 12 bytes"):
        gather.gather(np.array([0]), None, np.zeros((1, 11), np.uint8), 1)
    with pytest.raises(ValueError, match="begins at record 0, got 2"):
        native.require().FrameGather([(2, np.array([0, 12]), np.zeros(12, np.uint8))], 12)


def test_keep_freed_memory() -> None:
    code = """
import resource, torch
from ptr_fast import native
torch.set_num_threads(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(2_000_000).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert native.keep_freed_memory()
faults()
after = faults()
assert after < 200, after
"""
    if not native.keep_freed_memory():
        pytest.skip("the C library is not glibc")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
