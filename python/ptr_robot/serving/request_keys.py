"""The keys of a request in openpi's protocol."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["PROMPT", "SEED", "STATE", "image_keys"]

IMAGE, STATE, PROMPT, SEED = "observation/image", "observation/state", "prompt", "seed"
CAMERA_IMAGE = "observation/{}_image"


def image_keys(cameras: Sequence[str], pairs: Sequence[str] = (), option: str = "camera-map") -> dict[str, str]:
    """Camera of the checkpoint -> key of its frames in a request.

    Args:
        pairs: ``KEY=CHECKPOINT``, of ``option``.

    Raises:
        ValueError: a pair names no camera, a key or a camera twice, or a key that is not of frames; says which.
    """
    named: dict[str, str] = {}
    for pair in pairs:
        key, equals, camera = pair.rpartition("=")
        if not equals or not key or camera not in cameras or camera in named:
            told = f"expected KEY=CHECKPOINT with one of the checkpoint's cameras {list(cameras)}, each once"
            raise ValueError(f"{option}: {told}, got {pair!r}")
        if key in (STATE, PROMPT, SEED):
            raise ValueError(f"{option}: {key!r} is no key of frames, it has another meaning, got {pair!r}")
        named[camera] = key
    keys = {
        camera: named.get(camera, IMAGE if number == 0 else CAMERA_IMAGE.format(camera))
        for number, camera in enumerate(cameras)
    }
    if len(set(keys.values())) != len(keys):
        raise ValueError(f"{option}: two cameras have the same key: {keys}")
    return keys
