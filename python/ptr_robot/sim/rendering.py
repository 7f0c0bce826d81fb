"""Frames of a world from its kitchen's camera."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Any

import numpy as np

from ptr_robot.sim.gl import choose_gl
from ptr_robot.sim.kitchens import Camera

__all__ = ["SceneRenderer"]

_open: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


class SceneRenderer:
    """Draws one compiled model; holds an OpenGL context until :meth:`close`.

    The scene is drawn at twice the size and averaged over 2 x 2 pixels: smooth edges for a tenth of what the driver's
    multi-sampling costs in software. Shadows and reflections are off.

    Args:
        model: ``mujoco.MjModel``.
        camera: pose.
        height, width: of the frame, pixels.

    Raises:
        RuntimeError: no OpenGL context can be made.
    """

    def __init__(self, model: Any, camera: Camera, height: int, width: int) -> None:
        backend = choose_gl()
        import mujoco

        model.vis.global_.offheight = max(model.vis.global_.offheight, 2 * height)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, 2 * width)
        try:
            self._renderer = mujoco.Renderer(model, height=2 * height, width=2 * width)
        except Exception as error:
            raise RuntimeError(
                f"no OpenGL context for rendering (MUJOCO_GL={os.environ.get('MUJOCO_GL', backend)!r}): {error}; "
                "set MUJOCO_GL=egl (libegl1, libegl-mesa0, libgl1-mesa-dri) or MUJOCO_GL=osmesa (libosmesa6) "
                "before mujoco is imported"
            ) from error
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        self._camera.lookat[:] = camera.lookat
        self._camera.distance = camera.distance
        self._camera.azimuth = camera.azimuth
        self._camera.elevation = camera.elevation
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0
        if not _open:
            atexit.unregister(_close_all)
            atexit.register(_close_all)  # after mujoco's own handler, so that it runs before the display goes away
        _open.add(self)
        self._large = np.empty((2 * height, 2 * width, 3), dtype=np.uint8)

    def frame(self, data: Any) -> np.ndarray:
        """uint8 ``[H, W, 3]`` RGB of the state in ``data`` (``mujoco.MjData``)."""
        self._renderer.update_scene(data, self._camera, self._option)
        self._renderer.render(out=self._large)
        height, width = self._large.shape[0] // 2, self._large.shape[1] // 2
        blocks = self._large.reshape(height, 2, width, 2, 3).astype(np.uint16)
        return ((blocks[:, 0, :, 0] + blocks[:, 0, :, 1] + blocks[:, 1, :, 0] + blocks[:, 1, :, 1] + 2) >> 2).astype(
            np.uint8
        )

    def close(self) -> None:
        """Frees the OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()
