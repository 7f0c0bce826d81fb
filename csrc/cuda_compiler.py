"""What CMakeLists.txt asks about CUDA: is there a compiler, compile one source, tell what became of its kernels.

    python csrc/cuda_compiler.py probe --architectures "80 90"
    python csrc/cuda_compiler.py compile SOURCE.cu OBJECT.o --nvcc NVCC --architectures "80 90"
    python csrc/cuda_compiler.py table OUT.cpp OBJECT.o ...

``probe`` prints lines ``name=value``: ``nvcc``, ``version``, ``architectures``, ``library`` (the static runtime), or
``why_not``. nvcc is that of ``CUDA_HOME``, else the one on PATH, else the one that ``pip install nvidia-cuda-nvcc
nvidia-cuda-runtime`` brings.

``compile`` looks into its cache first (``cuda`` in ``PTR_FAST_CACHE``, by default ``~/.cache/ptr-fast``), by the
content of the source and of our headers in it, of the options and of the compilers' versions: a file's date does not
matter. What nobody asked for in 30 days is dropped. Beside the object lies OBJECT.json with the registers, spilled
bytes and shared memory of every kernel on every architecture, as ptxas tells them. ``table`` puts these into a C++
source, so that the module itself can say them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

CSRC = Path(__file__).resolve().parent
_KEPT_S = 30 * 24 * 3600.0
DEFAULT_ARCHITECTURES = (80, 90, 100, 120)
OLDEST_ARCHITECTURE = 80  # the first with asynchronous copies and products of bfloat16
OPTIONS = ("-std=c++20", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wno-unknown-pragmas", "-Xptxas=-v")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("probe")
    one.add_argument(
        "--architectures", default="", help="compute capabilities times ten; those of the product if empty"
    )
    one = verbs.add_parser("compile")
    one.add_argument("source", type=Path)
    one.add_argument("object", type=Path)
    one.add_argument("--nvcc", required=True)
    one.add_argument("--architectures", required=True)
    one = verbs.add_parser("table")
    one.add_argument("out", type=Path)
    one.add_argument("objects", type=Path, nargs="*")
    args = parser.parse_args()
    if args.verb == "probe":
        print("".join(f"{name}={value}\n" for name, value in probe(args.architectures).items()), end="")
        return 0
    if args.verb == "compile":
        return compile_source(args.source, args.object, args.nvcc, args.architectures.split())
    write_table(args.out, args.objects)
    return 0


def find_nvcc() -> str | None:
    """nvcc of ``CUDA_HOME``, of PATH or of NVIDIA's wheels."""
    home = os.environ.get("CUDA_HOME")
    if home:
        return shutil.which("nvcc", path=str(Path(home) / "bin"))
    found = shutil.which("nvcc")
    if found is None:
        # An isolated build does not see the environment's packages on its path; they lie there all the same.
        folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path}
        wheels = [nvcc for folder in sorted(filter(None, folders)) for nvcc in Path(folder).glob("nvidia/*/bin/nvcc")]
        found = str(sorted(wheels)[-1]) if wheels else None
    return found


def probe(wanted: str) -> dict[str, str]:
    """What CMake needs to know, or ``why_not``. ``wanted``: architectures, spaces between; empty for the default."""
    if not re.fullmatch(r"\d+( \d+)*|", wanted):
        return {"error": f"PTR_FAST_CUDA_ARCHS: expected compute capabilities times ten, as in '80 90', got '{wanted}'"}
    nvcc = find_nvcc()
    if nvcc is None:
        where = f"CUDA_HOME={os.environ['CUDA_HOME']}" if os.environ.get("CUDA_HOME") else "PATH or in NVIDIA's wheels"
        return {"why_not": f"no nvcc was found on {where} when this module was built"}
    known = {int(code[3:]) for code in _output(nvcc, "--list-gpu-code").split() if re.fullmatch(r"sm_\d+", code)}
    # In order, for the last one is what becomes PTX for all GPUs after it.
    architectures = sorted({int(each) for each in wanted.split()}) or [
        each for each in DEFAULT_ARCHITECTURES if each in known
    ]
    if architectures and architectures[0] < OLDEST_ARCHITECTURE:
        return {"error": f"PTR_FAST_CUDA_ARCHS: the kernels need {OLDEST_ARCHITECTURE} or above, got '{wanted}'"}
    unknown = sorted(set(architectures) - known)
    if unknown:
        return {"error": f"PTR_FAST_CUDA_ARCHS: {nvcc} knows {sorted(known)}, not {unknown}"}
    if not architectures:
        return {"why_not": f"{nvcc} knows none of the architectures {list(DEFAULT_ARCHITECTURES)}"}
    return _try(nvcc, architectures)


def _try(nvcc: str, architectures: list[int]) -> dict[str, str]:
    """Compiles an empty kernel, for nvcc may not like the C++ compiler that is here, and looks for the runtime."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cu"
        source.write_text("__global__ void nothing() {}\n")
        command = [
            nvcc,
            *OPTIONS,
            f"-arch=sm_{architectures[-1]}",
            "-c",
            str(source),
            "-o",
            str(source.with_suffix(".o")),
        ]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode != 0:
            first = next(iter((ran.stderr + ran.stdout).strip().splitlines()), "no message")
            return {"why_not": f"{nvcc} does not compile here ({first})"}
        ran = subprocess.run([*command, "--dryrun"], capture_output=True, text=True)
    places = re.findall(r'"-L([^"]+)"', ran.stderr)
    top = re.search(r"TOP=(\S+)", ran.stderr)
    places += [f"{top.group(1)}/lib", f"{top.group(1)}/lib64"] if top else []
    libraries = [Path(place) / "libcudart_static.a" for place in places]
    library = next((library.resolve() for library in libraries if library.exists()), None)
    if library is None:
        return {"why_not": f"{nvcc} has no libcudart_static.a (of its wheel: pip install nvidia-cuda-runtime)"}
    return {
        "nvcc": nvcc,
        "version": _version(nvcc),
        "architectures": " ".join(map(str, architectures)),
        "library": str(library),
    }


def compile_source(source: Path, target: Path, nvcc: str, architectures: list[str]) -> int:
    """Compiles one source, or takes what was compiled from the same content; writes TARGET, its .json and its .d."""
    headers = _headers(source)
    codes = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in architectures]
    # The newest one as PTX too, for GPUs that come after it.
    codes.append(f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
    digest = hashlib.sha256(json.dumps([_version(nvcc), _host_version(), OPTIONS, codes]).encode())
    for file in (source, *headers):
        digest.update(file.read_bytes())
    kept = _cache() / f"{source.stem}-{digest.hexdigest()[:24]}.o"
    target.parent.mkdir(parents=True, exist_ok=True)
    if not _take(kept, target):
        fresh = target.with_suffix(".new.o")
        command = [nvcc, *OPTIONS, *codes, f"-I{CSRC}", "-c", str(source), "-o", str(fresh)]
        ran = subprocess.run(command, capture_output=True, text=True)
        messages = [line for line in ran.stderr.splitlines() if not _is_of_ptxas(line)]
        sys.stderr.write("\n".join([ran.stdout, *messages]).strip() + "\n" if messages or ran.stdout else "")
        if ran.returncode != 0:
            return ran.returncode
        target.with_suffix(".json").write_text(json.dumps(resources(ran.stderr, source.stem)))
        os.replace(fresh, target)
        _keep(target, kept)
    names = " ".join(str(file).replace(" ", r"\ ") for file in (source, *headers))
    target.with_suffix(".d").write_text(f"{target}: {names}\n")
    return 0


def _take(kept: Path, target: Path) -> bool:
    """Copies what the cache has of an object to ``target``; False where it has nothing, or nothing that is whole."""
    try:
        table, code = kept.with_suffix(".json").read_bytes(), kept.read_bytes()
        if kept.with_suffix(".sha256").read_text() != hashlib.sha256(table + code).hexdigest():
            return False
    except (OSError, UnicodeDecodeError):
        return False
    target.with_suffix(".json").write_bytes(table)
    target.write_bytes(code)
    with contextlib.suppress(OSError):  # of another user's cache
        os.utime(kept)
    return True


def _keep(target: Path, kept: Path) -> None:
    """Puts an object into the cache. A build is whole without: where that cannot be, it says so and goes on."""
    table, code = target.with_suffix(".json").read_bytes(), target.read_bytes()
    digest = hashlib.sha256(table + code).hexdigest().encode()
    partial = kept.with_suffix(f".{os.getpid()}.partial")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        for suffix, content in ((".json", table), (".o", code), (".sha256", digest)):
            partial.write_bytes(content)
            os.replace(partial, kept.with_suffix(suffix))
        _drop_old(kept.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        sys.stderr.write(f"{kept.parent}: {target.name} was compiled and is not kept ({error.strerror})\n")


def resources(messages: str, source: str) -> list[dict[str, str | int]]:
    """What ``ptxas -v`` says of every kernel: one row a kernel and architecture, bytes and registers of a thread."""
    rows: list[dict[str, str | int]] = []
    entry = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
    frame = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
    mine = False  # lines of a function that is not an entry do not count for one
    for line in messages.splitlines():
        if found := entry.search(line):
            rows.append({"source": source, "kernel": found.group(1), "architecture": int(found.group(2))})
            mine = True
        elif "Function properties for" in line:
            mine = bool(rows) and line.endswith(str(rows[-1]["kernel"]))
        elif (found := frame.search(line)) and mine:
            rows[-1] |= dict(zip(("stack", "spill_stores", "spill_loads"), map(int, found.groups()), strict=True))
        elif found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            rows[-1] |= {"registers": int(found.group(1)), "static_shared": int(shared.group(1)) if shared else 0}
    return rows


def write_table(out: Path, objects: list[Path]) -> None:
    """The rows of all objects as JSON in a C++ source that defines ``ptr_fast::kCudaKernels``."""
    rows = [row for each in objects for row in json.loads(each.with_suffix(".json").read_text())]
    names = _readable(sorted({str(row["kernel"]) for row in rows}))
    text = json.dumps([row | {"kernel": names[str(row["kernel"])]} for row in rows])
    pieces = [text[i : i + 8000] for i in range(0, len(text), 8000)]
    literal = "\n".join(f"    {json.dumps(piece)}" for piece in pieces)
    out.write_text(
        f"// Written by csrc/cuda_compiler.py.\nnamespace ptr_fast {{\n"
        f"extern const char* const kCudaKernels;\nconst char* const kCudaKernels =\n{literal};\n"
        "}  // namespace ptr_fast\n"
    )


def _readable(names: list[str]) -> dict[str, str]:
    """C++ names of symbols, shorter: without our namespace and without the launcher that every kernel is wrapped in."""
    tool = shutil.which("c++filt")
    plain = names
    if tool is not None and names:
        plain = subprocess.run([tool, *names], capture_output=True, text=True, check=True).stdout.splitlines()
    short = [re.sub(r"^void on_grid<(.*?) ?>\(.*\)$", r"\1", each.replace("ptr_fast::", "")) for each in plain]
    return dict(zip(names, short, strict=True))


def _headers(source: Path) -> list[Path]:
    """All that a source includes of ours, in the order in which it is found."""
    found: list[Path] = []
    todo = [source]
    while todo:
        including = todo.pop()
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', including.read_text(), re.MULTILINE):
            for folder in (CSRC, including.parent):
                header = (folder / name).resolve()
                if header.exists():
                    if header not in found:
                        found.append(header)
                        todo.append(header)
                    break
    return found


def _cache() -> Path:
    own, caches = os.environ.get("PTR_FAST_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return (Path(own) if own else (Path(caches) if caches else Path.home() / ".cache") / "ptr-fast") / "cuda"


def _drop_old(cache: Path) -> None:
    for kept in (*cache.glob("*.o"), *cache.glob("*.partial")):
        with contextlib.suppress(FileNotFoundError):  # another build drops it too
            if time.time() - kept.stat().st_mtime > _KEPT_S:
                for suffix in (".json", ".sha256", kept.suffix):
                    kept.with_suffix(suffix).unlink(missing_ok=True)


def _is_of_ptxas(line: str) -> bool:
    return "ptxas info" in line or "bytes stack frame" in line or not line.strip()


@functools.cache
def _version(nvcc: str) -> str:
    found = re.search(r"V(\d+\.\d+\.\d+)", _output(nvcc, "--version"))
    return found.group(1) if found else "of unknown version"


@functools.cache
def _host_version() -> str:
    return _output("g++", "--version").partition("\n")[0]


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout
    except OSError as error:
        return f"{command[0]}: {error}"


if __name__ == "__main__":
    sys.exit(main())
