"""Builds ``ptr_fast._native`` with CMake and Ninja; everything else about the package is in pyproject.toml.

Environment:
    PTR_FAST_NATIVE=0      leave the native module out (everything still works, on the reference kernels)
    PTR_FAST_CUDA=0|1|auto compile the CUDA sources never, always (else fail), or where there is a compiler (default)
    PTR_FAST_CUDA_ARCHS    for which GPUs, compute capabilities times ten: "80 90 100 120" by default
    CUDA_HOME              whose nvcc; else the one on PATH, else that of NVIDIA's wheel (csrc/cuda_compiler.py)
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, SetupError  # these end a build with one line

ROOT = Path(__file__).resolve().parent


def _tool(name: str) -> str:
    """The tool beside the running interpreter, else the one on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise SetupError(f"building ptr_fast._native needs {name}: pip install {name}, or set PTR_FAST_NATIVE=0")
    return found


class CMakeBuild(build_ext):
    """One CMake project in a fixed folder, so that a second build compiles only what changed."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        cuda = os.environ.get("PTR_FAST_CUDA", "auto").lower()
        if cuda not in ("0", "1", "auto"):
            raise SetupError(f"PTR_FAST_CUDA must be 0, 1 or auto, got {cuda!r}")
        build = ROOT / "build" / f"native-{sysconfig.get_config_var('SOABI') or 'any'}"
        configure = [
            _tool("cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPTR_FAST_CUDA={cuda}",
            f"-DPTR_FAST_CUDA_ARCHS={os.environ.get('PTR_FAST_CUDA_ARCHS', '')}",
        ]  # fmt: skip
        for command in (configure, [_tool("cmake"), "--build", str(build)]):
            if subprocess.run(command).returncode != 0:
                raise CompileError("ptr_fast._native was not built; CMake says why above")
        built = next(iter(sorted(build.glob("_native*.so")) + sorted(build.glob("_native*.pyd"))))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A new file under the old name: a process that has the old module mapped keeps it.
        partial = target.with_name(target.name + ".partial")
        shutil.copy2(built, partial)
        os.replace(partial, target)


with_native = os.environ.get("PTR_FAST_NATIVE", "1") != "0"
setup(
    packages=find_packages(".", include=["ptr_fast", "ptr_fast.*"])
    + find_packages("python", include=["ptr_robot", "ptr_robot.*"]),
    ext_modules=[Extension("ptr_fast._native", sources=[])] if with_native else [],
    cmdclass={"build_ext": CMakeBuild},
)
