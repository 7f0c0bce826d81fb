"""Mutated JPEG files under the address and undefined-behaviour sanitizers: nothing is read or written out of bounds.

The log of the long run is ``benchmarks/results/jpeg_fuzz.log``; make it with ``python -m pytest -m slow`` of this file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from jpeg_files import encoded, picture, random_files, shard_frames

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = (
    "tests/fuzz/jpeg_fuzz.cpp",
    "csrc/data/jpeg_file.cpp",
    "csrc/data/jpeg_packer.cpp",
    "csrc/data/jpeg_transcode.cpp",
    "csrc/kernels/jpeg_frames_cpu.cpp",
    "csrc/core/parallel.cpp",
)
FLAGS = ("-std=c++20", "-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def fuzzer() -> Path:
    """The program, compiled once for each content of its sources."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for name in (*SOURCES, *map(str, sorted(REPOSITORY.glob("csrc/*/jpeg_*.h")))):
        digest.update((REPOSITORY / name).read_bytes())
    program = REPOSITORY / "build" / f"jpeg_fuzz_{digest.hexdigest()[:16]}"
    if not program.exists():
        program.parent.mkdir(exist_ok=True)
        partial = program.with_suffix(f".{os.getpid()}")
        files = [str(REPOSITORY / name) for name in SOURCES]
        command = [compiler, *FLAGS, f"-I{REPOSITORY / 'csrc'}", *files, "-pthread", "-o", str(partial)]
        made = subprocess.run(command, capture_output=True, text=True)
        if "cannot find" in made.stderr and "san" in made.stderr:
            pytest.skip("the compiler has no sanitizers")
        assert made.returncode == 0, made.stderr
        os.replace(partial, program)
    return program


def seeds(folder: Path, shared_dir: Path) -> list[Path]:
    """Files of every form that is read, real frames too where they are."""
    files = [data for _, data in random_files(24, seed=11, largest=48)]
    files.append(encoded(picture(np.random.default_rng(1), 30, 40, 0)[:, :, 0], quality=50))
    files += shard_frames(shared_dir)[::200]
    for number, data in enumerate(files):
        (folder / f"{number:03d}.jpg").write_bytes(data)
    return sorted(folder.glob("*.jpg"))


def fuzz(program: Path, count: int, seed: int, files: list[Path]) -> str:
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # needs ptrace, which containers forbid
    ran = subprocess.run(
        [program, str(count), str(seed), *map(str, files)], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return ran.stdout


def test_some_thousand_mutated_files(fuzzer: Path, tmp_path: Path, shared_dir: Path) -> None:
    told = fuzz(fuzzer, 3000, 1, seeds(tmp_path, shared_dir))
    assert told.startswith("3000 mutated files")


@pytest.mark.slow
def test_100_000_mutated_files(fuzzer: Path, tmp_path: Path, shared_dir: Path) -> None:
    told = fuzz(fuzzer, 100_000, 2, seeds(tmp_path, shared_dir))
    (REPOSITORY / "benchmarks" / "results" / "jpeg_fuzz.log").write_text(f"{' '.join(FLAGS)}\n{told}")
    assert told.startswith("100000 mutated files")
