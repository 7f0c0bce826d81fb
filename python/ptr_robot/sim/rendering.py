"""Frames of a world from its kitchen's camera."""

from __future__ import annotations

import atexit
import importlib
import weakref
from typing import Any

import numpy as np

from ptr_robot.sim.gl import choose_gl
from ptr_robot.sim.kitchens import Camera

__all__ = ["SceneRenderer"]

MAX_GEOMS = 2000
_open: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


class SceneRenderer:
    """Draws one compiled model; holds an OpenGL context until :meth:`close`.

    The scene is drawn at twice the size and averaged over 2 x 2 pixels: smooth edges for a tenth of what the driver's
    multi-sampling costs in software. Shadows and reflections are off. (``mujoco.Renderer`` would do, but it needs the
    back end to be chosen before mujoco is first imported, and frees the context before what was made in it.)

    Args:
        model: ``mujoco.MjModel``.
        camera: pose.
        height, width: of the frame, pixels.

    Raises:
        RuntimeError: no OpenGL context can be made.
    """

    def __init__(self, model: Any, camera: Camera, height: int, width: int) -> None:
        import mujoco

        model.vis.global_.offheight = max(model.vis.global_.offheight, 2 * height)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, 2 * width)
        self._model, self._mujoco = model, mujoco
        self._gl = _make_context(2 * height, 2 * width)
        self._gl.make_current()
        self._context: Any = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._camera = mujoco.MjvCamera()
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
        """uint8 ``[H, W, 3]`` RGB of the state in ``data`` (``mujoco.MjData``)."""
        if self._context is None:
            raise RuntimeError("the renderer is closed")
        mujoco = self._mujoco
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, data, self._option, self._perturbation, self._camera, everything, self._scene
        )
        self._gl.make_current()
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(self._large, None, self._rectangle, self._context)
        height, width = self._large.shape[0] // 2, self._large.shape[1] // 2
        rows = self._large[::-1].reshape(height, 2, width, 2, 3).astype(np.uint16)  # OpenGL's first row is the lowest
        return ((rows[:, 0, :, 0] + rows[:, 0, :, 1] + rows[:, 1, :, 0] + rows[:, 1, :, 1] + 2) >> 2).astype(np.uint8)

    def close(self) -> None:
        """Frees the OpenGL context."""
        if self._context is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._context = None


def _make_context(height: int, width: int) -> Any:
    backend = choose_gl()
    try:
        return importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
    except Exception as error:
        raise RuntimeError(
            f"no OpenGL context for rendering (MUJOCO_GL={backend!r}): {error}; set MUJOCO_GL=egl (libegl1, "
            "libegl-mesa0, libgl1-mesa-dri) or MUJOCO_GL=osmesa (libosmesa6)"
        ) from error


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()
