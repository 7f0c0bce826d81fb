"""Choice of the off-screen OpenGL back end, before mujoco is imported for the first time."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import warnings
from importlib.util import find_spec
from pathlib import Path

__all__ = ["choose_gl"]

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


def choose_gl() -> str:
    """Sets ``MUJOCO_GL`` where the user has not: EGL, or OSMesa (with a warning) where there is no EGL.

    Returns:
        The chosen back end. mujoco reads the variable when it is imported, so this comes first.

    Raises:
        RuntimeError: neither library is installed.
    """
    _load_triton_first()
    chosen = os.environ.get("MUJOCO_GL", "")
    if chosen:
        return chosen
    for name, library in _LIBRARIES.items():
        if ctypes.util.find_library(library) is None:
            continue
        if name != "egl":
            warnings.warn(f"no EGL library on this machine: rendering with {name}", RuntimeWarning, stacklevel=2)
        os.environ["MUJOCO_GL"] = name
        return name
    raise RuntimeError(
        "the toy kitchens need an off-screen OpenGL library and found neither EGL nor OSMesa; "
        "install libegl1 with Mesa's drivers (Debian: libegl1 libegl-mesa0 libgl1-mesa-dri) or libosmesa6"
    )


def _load_triton_first() -> None:
    """Mesa and Triton each bring their own LLVM; Triton's, loaded after Mesa's, crashes the process (torch imports it
    for an optimiser, say). The other order is sound."""
    triton = find_spec("triton")
    for folder in (triton.submodule_search_locations or ()) if triton else ():
        with contextlib.suppress(OSError):  # not a whole Triton: then nothing will load it later either
            ctypes.CDLL(str(Path(folder, "_C", "libtriton.so")))
