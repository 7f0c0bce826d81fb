"""What a policy server of ours says of itself before it is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec, Window

__all__ = ["images_of", "spec_of", "window_of"]


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
        window_of(metadata)
        if not 0 < spec.control_hz < math.inf:
            raise ValueError(f"control_hz: expected a positive number, got {spec.control_hz:g}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{url}: its metadata does not say what the policy sees and commands ({error!r})") from error
    return spec
