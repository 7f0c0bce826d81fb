"""Choice of the off-screen OpenGL back end, before mujoco is imported for the first time."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import importlib
import os
import warnings
from importlib.util import find_spec
from pathlib import Path

__all__ = ["HOW_TO_DRAW", "choose_gl"]

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
_GLFW = ("glx", "enable", "enabled", "on", "true", "1")  # mujoco's other names of it
HOW_TO_DRAW = (
    "set MUJOCO_GL=egl (Debian: libegl1 libegl-mesa0 libgl1-mesa-dri) or MUJOCO_GL=osmesa (libosmesa6); "
    "glfw needs a display"
)


def choose_gl() -> str:
    """Sets ``MUJOCO_GL`` where the user has not: EGL, or OSMesa (with a warning) where there is no EGL; imports mujoco
    with it.

    Returns:
        The back end, ``egl``, ``osmesa`` or ``glfw``. mujoco reads the variable when it is imported, so this comes
        first.

    Raises:
        RuntimeError: neither library is installed, or what the user chose is none or cannot be loaded.
        ImportError: mujoco is not installed.
    """
    _load_triton_first()
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    if not chosen:
        chosen = os.environ["MUJOCO_GL"] = _installed()
    backend = "glfw" if chosen in _GLFW else chosen
    if backend not in (*_LIBRARIES, "glfw"):
        raise RuntimeError(f"MUJOCO_GL={chosen}: the toy kitchens cannot draw with that; {HOW_TO_DRAW}")
    if find_spec("mujoco") is None:
        raise ImportError("the toy kitchens need mujoco: pip install 'ptr-fast[sim]'")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # GLFW warns where there is no display
            importlib.import_module(f"mujoco.{backend}")
            if backend == "glfw":
                importlib.import_module("glfw").init()
    except Exception as error:  # without its library PyOpenGL fails with whatever that brings about
        library = _LIBRARIES.get(backend)
        lacking = library is not None and ctypes.util.find_library(library) is None
        platform = os.environ.get("PYOPENGL_PLATFORM", "")
        why = f"lib{library} is not installed" if lacking else f"it cannot be loaded ({error})"
        if not lacking and library and platform.lower() not in ("", backend):
            why = f"PYOPENGL_PLATFORM is {platform!r}: unset it"
        raise RuntimeError(f"MUJOCO_GL={chosen}: {why}; {HOW_TO_DRAW}") from error
    return backend


def _installed() -> str:
    for name, library in _LIBRARIES.items():
        if ctypes.util.find_library(library) is None:
            continue
        if name != "egl":
            warnings.warn(f"no EGL library on this machine: rendering with {name}", RuntimeWarning, stacklevel=3)
        return name
    raise RuntimeError(f"the toy kitchens found neither EGL nor OSMesa to draw with; {HOW_TO_DRAW}")


def _load_triton_first() -> None:
    """Mesa and Triton each bring their own LLVM; Triton's, loaded after Mesa's, crashes the process (torch imports it
    for an optimiser, say). The other order is sound."""
    triton = find_spec("triton")
    for folder in (triton.submodule_search_locations or ()) if triton else ():
        with contextlib.suppress(OSError):  # not a whole Triton: then nothing will load it later either
            ctypes.CDLL(str(Path(folder, "_C", "libtriton.so")))
