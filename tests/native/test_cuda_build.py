"""The CUDA build: how nvcc is found, what is kept by content, and what the module that was built has inside."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.registers import cuda_table
from ptr_fast import native

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted((REPOSITORY / "csrc").rglob("*.cu"))

_SPEC = importlib.util.spec_from_file_location("cuda_compiler", REPOSITORY / "csrc" / "cuda_compiler.py")
cuda_compiler = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cuda_compiler)

# It knows three architectures, writes down how it was called, and compiles whatever does not say "broken".
NVCC = """#!{python}
import pathlib, sys
here, args = pathlib.Path(__file__).resolve().parent, sys.argv[1:]
if args == ["--version"]:
    print("Cuda compilation tools, release 13.0, V13.0.88")
elif args == ["--list-gpu-code"]:
    print("sm_75\\nsm_80\\nsm_90")
elif "--dryrun" in args:
    print(f'#$ TOP={{here}}/..\\n#$ LIBRARIES=  "-L{{here}}/../lib"', file=sys.stderr)
else:
    text = pathlib.Path(args[args.index("-c") + 1]).read_text()
    if "broken" in text or (here / "refuses").exists():
        sys.exit("error: unsupported compiler")
    with open(here / "calls", "a") as calls:
        print(*args, file=calls)
    pathlib.Path(args[args.index("-o") + 1]).write_text("object of " + text)
    for sm in (80, 90):
        print(f"ptxas info    : Compiling entry function '_Z1kv' for 'sm_{{sm}}'\\n"
              "ptxas info    : Function properties for _Z1kv\\n"
              "    0 bytes stack frame, 8 bytes spill stores, 16 bytes spill loads\\n"
              "ptxas info    : Used 40 registers, used 1 barriers, 256 bytes smem, 400 bytes cmem[0]", file=sys.stderr)
"""


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as of CUDA_HOME, with a compiler that only writes down its calls."""
    home = tmp_path / "toolkit"
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    (home / "lib" / "libcudart_static.a").touch()
    (home / "bin" / "nvcc").write_text(NVCC.format(python=sys.executable))
    (home / "bin" / "nvcc").chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(home))
    monkeypatch.setenv("PTR_FAST_CACHE", str(tmp_path / "cache"))
    cuda_compiler._version.cache_clear()
    return home


def test_what_is_found(toolkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc, library = str(toolkit / "bin" / "nvcc"), str((toolkit / "lib" / "libcudart_static.a").resolve())
    found = {"nvcc": nvcc, "version": "13.0.88", "library": library}
    assert cuda_compiler.probe("") == found | {"architectures": "80 90"}  # of the default those that it knows
    assert cuda_compiler.probe("90 80 90") == found | {"architectures": "80 90"}  # the last one becomes PTX
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.setenv("PATH", str(toolkit / "bin"))
    assert cuda_compiler.probe("90") == found | {"architectures": "90"}
    monkeypatch.setenv("PATH", "")
    wheels = toolkit.parent / "site-packages"
    (wheels / "nvidia").mkdir(parents=True)
    (wheels / "nvidia" / "cu13").symlink_to(toolkit)
    monkeypatch.setattr(cuda_compiler.sysconfig, "get_path", lambda name: str(wheels))
    assert cuda_compiler.probe("90")["nvcc"] == str(wheels / "nvidia" / "cu13" / "bin" / "nvcc")


def test_why_there_is_none(toolkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda_compiler.probe("80 120")["error"].endswith("knows [75, 80, 90], not [120]")
    assert cuda_compiler.probe("90 75")["error"].endswith("the kernels need 80 or above, got '90 75'")
    assert cuda_compiler.probe("80,90")["error"].endswith("as in '80 90', got '80,90'")
    (toolkit / "lib" / "libcudart_static.a").unlink()
    assert "has no libcudart_static.a" in cuda_compiler.probe("")["why_not"]
    (toolkit / "bin" / "refuses").touch()
    assert "does not compile here (error: unsupported compiler)" in cuda_compiler.probe("")["why_not"]
    monkeypatch.setenv("CUDA_HOME", str(toolkit / "elsewhere"))
    assert cuda_compiler.probe("")["why_not"].startswith("no nvcc was found on CUDA_HOME=")


def test_a_build_with_a_wrong_word_ends_with_one_line() -> None:
    ran = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=REPOSITORY, env=os.environ | {"PTR_FAST_CUDA": "yes"}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode != 0
    assert "Traceback" not in ran.stderr
    assert ran.stderr.endswith("error: PTR_FAST_CUDA must be 0, 1 or auto, got 'yes'\n")


def test_what_was_compiled_is_kept_by_content(toolkit: Path, tmp_path: Path, capfd) -> None:
    source, header = tmp_path / "k.cu", tmp_path / "k.h"
    header.write_text("// 1\n")
    source.write_text('#include "k.h"\n')
    target, calls = tmp_path / "out" / "k.cu.o", toolkit / "bin" / "calls"

    def compile_it(architectures: str = "80 90") -> int:
        ran = cuda_compiler.compile_source(source, target, str(toolkit / "bin" / "nvcc"), architectures.split())
        assert ran == 0
        return len(calls.read_text().splitlines())

    assert compile_it() == 1
    assert "-gencode=arch=compute_90,code=sm_90 -gencode=arch=compute_90,code=compute_90" in calls.read_text()
    target.unlink()
    os.utime(header)
    assert compile_it() == 1
    assert target.read_text().startswith("object of")
    assert str(header) in (tmp_path / "out" / "k.cu.d").read_text()
    header.write_text("// 2\n")
    assert compile_it() == 2
    assert compile_it("80") == 3
    assert capfd.readouterr().err == ""  # what ptxas says goes into the table
    source.write_text("broken")
    assert cuda_compiler.compile_source(source, target, str(toolkit / "bin" / "nvcc"), ["80"]) != 0
    assert "unsupported compiler" in capfd.readouterr().err


def test_a_damaged_cache_is_compiled_again_and_a_cache_that_cannot_be_written_is_told(
    toolkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    source, target, calls = tmp_path / "k.cu", tmp_path / "out" / "k.cu.o", toolkit / "bin" / "calls"
    source.write_text("// whole\n")

    def compile_it() -> int:
        assert cuda_compiler.compile_source(source, target, str(toolkit / "bin" / "nvcc"), ["80"]) == 0
        assert target.read_text() == "object of // whole\n"
        assert json.loads(target.with_suffix(".json").read_text())
        return len(calls.read_text().splitlines())

    assert compile_it() == 1
    for suffix in (".o", ".json", ".sha256"):
        (kept,) = (tmp_path / "cache" / "cuda").glob(f"*{suffix}")
        kept.write_bytes(kept.read_bytes()[:-3])  # a full disk, a crash
        before = len(calls.read_text().splitlines())
        assert compile_it() == before + 1
        assert compile_it() == before + 1
    assert capfd.readouterr().err == ""
    (tmp_path / "file").touch()
    monkeypatch.setenv("PTR_FAST_CACHE", str(tmp_path / "file"))
    compile_it()
    told = capfd.readouterr().err
    assert told == f"{tmp_path / 'file' / 'cuda'}: k.cu.o was compiled and is not kept (Not a directory)\n"


def test_rows_of_ptxas_become_a_table(toolkit: Path, tmp_path: Path) -> None:
    (tmp_path / "k.cu").write_text("")
    target = tmp_path / "k.cu.o"
    cuda_compiler.compile_source(tmp_path / "k.cu", target, str(toolkit / "bin" / "nvcc"), ["80", "90"])
    rows = json.loads(target.with_suffix(".json").read_text())
    told = {"stack": 0, "spill_stores": 8, "spill_loads": 16, "registers": 40, "static_shared": 256}
    assert rows == [{"source": "k", "kernel": "_Z1kv", "architecture": sm} | told for sm in (80, 90)]
    assert cuda_table(rows[:1] + [rows[1] | {"kernel": "other"}])[:4] == [
        "| source | kernel | sm_80 | sm_90 |",
        "|---|---|---|---|",
        "| k | `_Z1kv` | 40 / 24 / 256 | no code |",
        "| k | `other` | no code | 40 / 24 / 256 |",
    ]


with_cuda = pytest.mark.skipif(native.why_no_cuda() is not None, reason=str(native.why_no_cuda()))
default_build = pytest.mark.skipif(
    native.module() is None
    or native.build_info()["cuda_architectures"].split() != list(map(str, cuda_compiler.DEFAULT_ARCHITECTURES)),
    reason="the native module is not built for the product's four architectures",
)


@with_cuda
@default_build
@pytest.mark.skipif(not SOURCES, reason="there are no CUDA kernels")
def test_every_kernel_has_code_for_the_four_architectures_and_none_spills() -> None:
    rows = native.cuda_kernels()
    assert {row["source"] for row in rows} == {file.stem for file in SOURCES}
    architectures: dict[str, set[int]] = {}
    for row in rows:
        architectures.setdefault(row["kernel"], set()).add(row["architecture"])
    assert {kernel for kernel, there in architectures.items() if there != {80, 90, 100, 120}} == set()
    assert [row for row in rows if row["spill_stores"] or row["spill_loads"]] == []


@with_cuda
@default_build
@pytest.mark.skipif(not SOURCES, reason="there are no CUDA kernels")
def test_the_modules_file_holds_machine_code_for_the_four_architectures() -> None:
    """Reads NVIDIA's container of binaries in the file itself: a header, then entries of a kind for an architecture."""
    data = Path(native.require().__file__).read_bytes()
    machine_code, at = set(), data.find(struct.pack("<IH", 0xBA55ED50, 1))
    while at >= 0:
        header_size, size = struct.unpack_from("<HQ", data, at + 6)
        entry, end = at + header_size, at + header_size + size
        while entry < end:
            kind, entry_header_size, entry_size = struct.unpack_from("<HxxIQ", data, entry)
            architecture = struct.unpack_from("<I", data, entry + 28)[0]
            if kind == 2:
                machine_code.add(architecture)
            entry += entry_header_size + entry_size
        at = data.find(struct.pack("<IH", 0xBA55ED50, 1), end)
    assert machine_code == {80, 90, 100, 120}
