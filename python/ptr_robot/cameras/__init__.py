"""Cameras by text: ``opencv:0``, ``opencv:/dev/video2?width=640&height=480&hz=30``, ``playback:demo.mp4?loop=1``."""

from __future__ import annotations

import inspect
from typing import Any
from urllib.parse import parse_qsl

from ptr_robot.cameras.buffered import BufferedCamera

__all__ = ["BufferedCamera", "make_camera"]


def make_camera(text: str) -> BufferedCamera:
    """A camera that is not connected yet.

    Args:
        text: ``opencv:DEVICE`` (number or file of the device) or ``playback:VIDEO``, then ``?name=value&name=value``
            for options of :class:`~ptr_robot.cameras.opencv.OpenCVCamera` or
            :class:`~ptr_robot.cameras.playback.PlaybackCamera`.

    Raises:
        ValueError: another kind or option; the message names it.
    """
    kind_name, _, rest = text.partition(":")
    what, _, query = rest.partition("?")
    kind: Any
    if kind_name == "opencv":
        from ptr_robot.cameras.opencv import OpenCVCamera as kind  # noqa: N813
    elif kind_name == "playback":
        from ptr_robot.cameras.playback import PlaybackCamera as kind  # noqa: N813
    else:
        raise ValueError(f"camera: expected opencv:DEVICE or playback:VIDEO, got {text!r}")
    if not what:
        raise ValueError(f"camera: expected a device or file after {kind_name + ':'!r}, got {text!r}")
    defaults = {n: p.default for n, p in inspect.signature(kind).parameters.items() if p.default is not p.empty}
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in defaults:
            raise ValueError(f"camera {text!r} has no option {name!r}; it has {', '.join(defaults)}")
        try:
            options[name] = _read(value, defaults[name])
        except ValueError as error:
            wanted = type(defaults[name]).__name__
            raise ValueError(f"camera {text!r}: {name}: expected a value of type {wanted}, got {value!r}") from error
    return kind(what, **options)


def _read(value: str, default: Any) -> Any:
    if isinstance(default, bool):
        known = {"1": True, "true": True, "0": False, "false": False}
        if value.lower() not in known:
            raise ValueError(value)
        return known[value.lower()]
    return type(default)(value)
