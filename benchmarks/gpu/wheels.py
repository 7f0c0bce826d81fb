"""Packages that a machine without a registry lacks, carried as wheels in ``.gpu-wheels``.

``make gpu-wheels`` gathers them here (``python -m benchmarks.gpu.wheels [--python 3.12]``), at the versions of
``constraints.txt``; :func:`install` unpacks them there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

__all__ = ["FOLDER", "MAX_BYTES", "PACKAGES", "folders", "gather", "install", "main", "search_path"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".gpu-wheels"
MAX_BYTES = 60 * 2**20
# Without what they need that every machine with torch has; numpy, torch and triton are the machine's own.
PACKAGES = (
    "simplejpeg",
    "tyro",
    "docstring-parser",
    "typeguard",
    "google-crc32c",
    "websockets",
    "msgpack",
    "pybind11",
    "pytest",
    "pluggy",
    "iniconfig",
    "pytest-timeout",
    "hypothesis",
    "sortedcontainers",
)
# What toy kitchens need beside these; scipy, which metaworld imports, is the machine's own, as JAX has it.
SIMULATOR = (
    *("metaworld", "mujoco", "gymnasium", "farama-notifications", "cloudpickle", "imageio", "pyopengl", "glfw"),
    *("etils", "absl-py", "pyyaml"),
)
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17)] + ["manylinux2014_x86_64"]


def gather(python: str, packages: Sequence[str] = PACKAGES) -> Path:
    """Downloads the wheels for an interpreter's version into ``.gpu-wheels``, which is made anew.

    Raises:
        RuntimeError: one of them is not to be had, or together they are larger than ``MAX_BYTES``.
    """
    partial = FOLDER.with_name(FOLDER.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    options = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python, "-q"]
    options += [text for platform in PLATFORMS for text in ("--platform", platform)]
    options += ["-c", str(ROOT / "constraints.txt"), "-d", str(partial), "--disable-pip-version-check"]
    if subprocess.run([sys.executable, "-m", "pip", "download", *options, *packages]).returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise RuntimeError(f"gpu-wheels: pip found no wheel for Python {python} of one of {', '.join(packages)}")
    num_bytes = sum(path.stat().st_size for path in partial.iterdir())
    if num_bytes > MAX_BYTES:
        shutil.rmtree(partial)
        raise RuntimeError(f"gpu-wheels: {num_bytes / 2**20:.0f} MiB, expected at most {MAX_BYTES / 2**20:.0f} MiB")
    shutil.rmtree(FOLDER, ignore_errors=True)
    partial.rename(FOLDER)
    return FOLDER


def install() -> None:
    """Unpacks the wheels of what is missing here, for this process and those that it starts."""
    wheels = [str(path) for path in sorted(FOLDER.glob("*.whl")) if not _is_installed(path.name.partition("-")[0])]
    if not wheels or folders():
        return
    site = tempfile.mkdtemp(prefix="ptr-fast-gpu-site-")
    options = ["--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check", "-q", "--target", site]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *wheels], check=True)
    os.environ["PTR_FAST_GPU_SITE"] = site
    sys.path.append(site)


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def folders() -> list[str]:
    """Where :func:`install` has put them."""
    return [site] if (site := os.environ.get("PTR_FAST_GPU_SITE")) else []


def search_path() -> str:
    """``PYTHONPATH`` of a process that runs this checkout, with what :func:`install` has put beside it."""
    return os.pathsep.join([str(ROOT), str(ROOT / "python"), *folders()])


def main(argv: list[str] | None = None) -> None:
    """Gathers the wheels and lists them; ends the process with one line where that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="version of the machine's interpreter (default: 3.12)")
    parser.add_argument("--simulator", action="store_true", help="also what toy kitchens need (make evidence-gpu)")
    args = parser.parse_args(argv)
    try:
        folder = gather(args.python, (*PACKAGES, *SIMULATOR) if args.simulator else PACKAGES)
    except RuntimeError as error:
        sys.exit(str(error))
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size / 2**20:6.1f} MiB  {path.name}")


if __name__ == "__main__":
    main()
