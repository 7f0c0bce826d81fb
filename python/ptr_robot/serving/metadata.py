"""What a policy server of ours says of itself before it is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec, Window
from ptr_robot.serving.protocol import MAX_MESSAGE_BYTES

__all__ = ["acting_of", "images_of", "spec_of", "window_of"]

MAX_REQUEST_BYTES = 1 << 30
"""No policy looks at so much; a server that asks for it would fill the memory of its clients."""


def acting_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies how a server of ours acts, as far as it says it; a value of another kind is left out."""
    kinds = {"step": int, "weights": str, "mode": str, "candidates": int, "elites": int, "steered": dict}
    told = {key: metadata[key] for key, kind in kinds.items() if isinstance(metadata.get(key), kind)}
    of_a_search = {"candidates", "elites"}
    return told if of_a_search <= told.keys() else {key: told[key] for key in told if key not in of_a_search}


def images_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a server says of each camera; older servers have one."""
    return metadata["images"] if "images" in metadata else [{"key": "observation/image", **metadata["image"]}]


def window_of(metadata: Mapping[str, Any]) -> Window:
    """T and H; older servers have one of each."""
    action = metadata["action"]
    return Window(num_observations=metadata.get("observations", 1), num_actions=action.get("horizon", 1))


def spec_of(url: str, metadata: Mapping[str, Any]) -> PolicySpec:
    """What the policy behind a server sees and commands.

    Raises:
        ValueError: the metadata does not say so, as that of other servers; names the URL.
    """
    try:
        images, state, action = images_of(metadata), metadata["state"], metadata["action"]
        spec = PolicySpec(
            cameras=tuple(CameraSpec(name=i["camera"], height=i["height"], width=i["width"]) for i in images),
            state=StateSpec(names=tuple(state["names"]), units=tuple(state["units"])),
            action=ActionSpec(
                names=tuple(action["names"]),
                units=tuple(action["units"]),
                low=tuple(action["low"]),
                high=tuple(action["high"]),
            ),
            tasks=TaskTable(names=tuple(metadata["tasks"]["names"]), num_slots=len(metadata["tasks"]["names"])),
            control_hz=float(metadata["control_hz"]),
        )
        _check_messages(images, spec, window_of(metadata))
        if not 0 < spec.control_hz < math.inf:
            raise ValueError(f"control_hz: expected a positive number, got {spec.control_hz:g}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{url}: its metadata does not say what the policy sees and commands ({error!r})") from error
    return spec


def _check_messages(images: Sequence[Mapping[str, Any]], spec: PolicySpec, window: Window) -> None:
    """Passes where a request can be made as the server wants it, and an answer can hold what it promises.

    Raises:
        KeyError, TypeError, ValueError: it cannot; says why.
    """
    sizes = {"observations": window.num_observations, "horizon": window.num_actions}
    for name, size in (*sizes.items(), *((name, image[name]) for image in images for name in ("height", "width"))):
        if not isinstance(size, int | np.integer):
            raise TypeError(f"{name}: expected a whole number, got {size!r:.40}")
    if wrong := [image["key"] for image in images if not isinstance(image["key"], str)]:
        raise TypeError(f"key: expected a text, got {wrong[0]!r:.40}")
    if len({image["key"] for image in images}) < len(images):
        raise ValueError(f"key: expected another for each camera, got {[image['key'] for image in images]}")
    asked = window.num_observations * (sum(3 * c.height * c.width for c in spec.cameras) + 4 * spec.state.dim)
    if asked > MAX_REQUEST_BYTES:
        raise ValueError(f"a request would take {asked} bytes, expected at most {MAX_REQUEST_BYTES}")
    if 4 * window.num_actions * spec.action.dim > MAX_MESSAGE_BYTES:
        raise ValueError(f"horizon: {window.num_actions} actions do not fit into an answer")
