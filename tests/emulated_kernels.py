"""Builds the emulator of the CUDA kernels, once for each content of its sources, and imports it.

A C++ compiler is enough. ``build/emulator`` keeps what was compiled; several test processes may ask at once.
"""

import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = REPOSITORY / "tests" / "emulator"


@functools.cache
def emulator() -> types.ModuleType:
    """The module ``_emulator`` of the sources as they are now.

    Raises:
        RuntimeError: they do not compile; the message is the compiler's.
    """
    build = REPOSITORY / "build" / f"emulator-{sys.implementation.cache_tag}"
    build.mkdir(parents=True, exist_ok=True)
    with open(build / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = build / f"_emulator_{_content()}.so"
        if not target.exists():
            _compile(build)
            for old in build.glob("_emulator_*.so"):
                old.unlink()
            shutil.copy2(next(build.glob("_emulator.*so")), target.with_suffix(".partial"))
            os.replace(target.with_suffix(".partial"), target)
        spec = importlib.util.spec_from_file_location("_emulator", target)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def _content() -> str:
    """Of all that the module is made of."""
    files = [*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h"), SOURCES / "CMakeLists.txt"]
    files += [*(REPOSITORY / "csrc").rglob("*.h")]
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted(files):
        digest.update(f"{file.relative_to(REPOSITORY)} {file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _compile(build: Path) -> None:
    import pybind11

    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake, ninja = (shutil.which(name, path=path) for name in ("cmake", "ninja"))
    if cmake is None or ninja is None:
        raise RuntimeError("the emulator of the CUDA kernels needs cmake and ninja: pip install -e '.[dev]'")
    configure = [
        cmake, "-S", str(SOURCES), "-B", str(build), "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]  # fmt: skip
    for command in (configure, [cmake, "--build", str(build)]):
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"the emulator does not compile:\n{ran.stdout[-8000:]}{ran.stderr[-2000:]}")
