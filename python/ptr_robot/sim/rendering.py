"""Frames of a world from its kitchen's camera, or from one that the simulated arm carries."""

from __future__ import annotations

import atexit
import importlib
import sys
import threading
import weakref
from typing import Any

import numpy as np

from ptr_robot.sim.gl import HOW_TO_DRAW, choose_gl
from ptr_robot.sim.kitchens import Camera

__all__ = ["SceneRenderer"]

MAX_GEOMS = 2000
_open: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()
_ending = threading.Event()


class SceneRenderer:
    """Draws one compiled model; holds an OpenGL context until :meth:`close`.

    The scene is drawn at twice the size and averaged over 2 x 2 pixels: smooth edges for a tenth of what the driver's
    multi-sampling costs in software. Shadows and reflections are off. (``mujoco.Renderer`` would do, but it needs the
    back end to be chosen before mujoco is first imported, and frees the context before what was made in it.)

    Args:
        model: ``mujoco.MjModel``.
        camera: pose, or the name of a camera of the model, which moves with what carries it.
        height, width: of the frame, pixels.

    Raises:
        RuntimeError: no OpenGL context can be made.

    Note "The end of the process". A context can be freed by the thread that it is current in alone, and EGL crashes
    where its display goes away before. At the end of the process the main thread frees what it has left open; another
    thread that still draws frees its own at its next frame, and ends there.
    """

    def __init__(self, model: Any, camera: Camera | str, height: int, width: int) -> None:
        import mujoco

        model.vis.global_.offheight = max(model.vis.global_.offheight, 2 * height)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, 2 * width)
        self._model, self._mujoco = model, mujoco
        self._owner, self._closed = threading.current_thread(), threading.Event()
        self._gl, self._context = _make_context(model, 2 * height, 2 * width)
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._camera = mujoco.MjvCamera()
        if isinstance(camera, str):
            self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera).id
        else:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
            self._camera.lookat[:] = camera.lookat
            self._camera.distance = camera.distance
            self._camera.azimuth = camera.azimuth
            self._camera.elevation = camera.elevation
        self._option, self._perturbation = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._option.sitegroup[:] = 0
        self._rectangle = mujoco.MjrRect(0, 0, 2 * width, 2 * height)
        self._large = np.empty((2 * height, 2 * width, 3), dtype=np.uint8)
        if not _open:
            atexit.unregister(_close_all)
            atexit.register(_close_all)  # after mujoco's own handler, so that it runs before the display goes away
        _open.add(self)

    def frame(self, data: Any) -> np.ndarray:
        """uint8 ``[H, W, 3]`` RGB of the state in ``data`` (``mujoco.MjData``).

        Raises:
            RuntimeError: the renderer is closed, or the driver fails.
            SystemExit: the process ends, and this is not its main thread.
        """
        if _ending.is_set() and self._owner is threading.current_thread():
            self.close()
            raise SystemExit
        if self._closed.is_set():
            raise RuntimeError("the renderer is closed")
        try:
            self._draw(data)
        except Exception as error:  # an error of the driver has a class of its binding's
            raise RuntimeError(f"a frame could not be drawn: {error}") from error
        height, width = self._large.shape[0] // 2, self._large.shape[1] // 2
        rows = self._large[::-1].reshape(height, 2, width, 2, 3).astype(np.uint16)  # OpenGL's first row is the lowest
        return ((rows[:, 0, :, 0] + rows[:, 0, :, 1] + rows[:, 1, :, 0] + rows[:, 1, :, 1] + 2) >> 2).astype(np.uint8)

    def _draw(self, data: Any) -> None:
        mujoco = self._mujoco
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, data, self._option, self._perturbation, self._camera, everything, self._scene
        )
        self._gl.make_current()
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(self._large, None, self._rectangle, self._context)

    def close(self) -> None:
        """Frees the OpenGL context; for the thread that made it."""
        if not self._closed.is_set():
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._closed.set()

    def close_at_exit(self) -> None:
        """See note "The end of the process"."""
        if self._owner is threading.current_thread():
            self.close()
        elif not (self._owner.is_alive() and self._closed.wait(5.0)) and "mujoco.egl" in sys.modules:
            atexit.unregister(sys.modules["mujoco.egl"].EGL.eglTerminate)  # nobody can free it any more


def _make_context(model: Any, height: int, width: int) -> tuple[Any, Any]:
    """An OpenGL context for frames of a size, current in this thread, and mujoco's own in it."""
    import mujoco

    backend = choose_gl()
    try:
        kind = importlib.import_module(f"mujoco.{backend}").GLContext
        kind._context = None  # its __del__ reads it where its __init__ has failed too
        gl = kind(width, height)
        gl.make_current()
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, context)
    except Exception as error:  # PyOpenGL, GLFW and mujoco each have classes of their own
        raise RuntimeError(f"no OpenGL context for rendering (MUJOCO_GL={backend}): {error}; {HOW_TO_DRAW}") from error
    return gl, context


def _close_all() -> None:
    _ending.set()
    for renderer in list(_open):
        renderer.close_at_exit()
