"""Where the frames of a run lie, fastest first: on the device (as pixels, as planes of half the size, or as JPEG that
is decoded in the step), decoded on the host, in the memory map, as JPEG.

A tier is taken where its frames fit the memory that was measured to be free. The decision is a pure function of sizes,
so that it can be told in advance and tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

__all__ = ["FrameSizes", "Tier", "choose_tier", "explain_tiers", "frame_tiers", "step_reserve_bytes"]

NAMES = ("device", "device-yuv420", "device-jpeg", "host", "map", "jpeg")

# What a step needs beside the frames: libraries, parameters, optimiser states, and activations. An estimate: ResNet-50
# with bfloat16 activations keeps about 1 KiB per pixel of the batch and encoder, and two encoders live at once.
_RESERVE_BYTES = 4 << 30
_RESERVE_BYTES_PER_PIXEL = 2048


def step_reserve_bytes(batch_size: int, num_pixels: int) -> int:
    """Device memory that is left to the step itself, an upper estimate for the encoders of this package.

    Args:
        batch_size: samples of a batch.
        num_pixels: of a sample: every camera and every observation counts.
    """
    return _RESERVE_BYTES + _RESERVE_BYTES_PER_PIXEL * batch_size * num_pixels


@dataclass(frozen=True, kw_only=True)
class FrameSizes:
    """What there is to hold of one camera.

    Attributes:
        height, width: of a frame, pixels.
        num_named: distinct frames that the transitions name.
        num_jpeg: frames of the stores that hold JPEG, named or not.
        num_raw: frames of the stores that hold raw pixels.
        jpeg_bytes: size of all JPEG files in the stores.
        why_not_packed: why they cannot be decoded on the device; None where they can.
    """

    height: int
    width: int
    num_named: int
    num_jpeg: int
    num_raw: int
    jpeg_bytes: int = 0
    why_not_packed: str | None = "no frame is stored as jpeg-restart (ptr-fast repack makes such a store)"

    @property
    def frame_bytes(self) -> int:
        """Of one frame as raw pixels."""
        return self.height * self.width * 3


@dataclass(frozen=True, kw_only=True)
class Tier:
    """One place for the frames.

    Attributes:
        name: one of ``NAMES``.
        what: in words.
        why_not: why it cannot be had; None where it can.
        why_not_auto: why it is only taken when asked for; None where it is taken by itself.
    """

    name: str
    what: str
    why_not: str | None = None
    why_not_auto: str | None = None

    def __str__(self) -> str:
        reason = self.why_not or self.why_not_auto
        return f"{self.name} ({self.what})" + (f": {reason}" if reason else "")


def frame_tiers(
    cameras: Sequence[FrameSizes],
    device: str,
    device_free_bytes: int,
    device_reserve_bytes: int,
    host_budget_bytes: int,
) -> list[Tier]:
    """Every tier, fastest first, with what stands against it.

    Args:
        cameras: what there is to hold of each camera.
        device: type of the learner's device.
        device_free_bytes: free memory there (of the host where the learner is on the CPU).
        device_reserve_bytes: how much of it the step needs.
        host_budget_bytes: memory of the host that decoded frames may take.
    """
    on_device, decoded, mapped = (
        sum(count(sizes) * sizes.frame_bytes for sizes in cameras)
        for count in (attrgetter("num_named"), attrgetter("num_jpeg"), attrgetter("num_raw"))
    )
    num_jpeg = sum(sizes.num_jpeg for sizes in cameras)
    packed = sum(sizes.jpeg_bytes for sizes in cameras)
    why_not_packed = next((sizes.why_not_packed for sizes in cameras if sizes.why_not_packed), None)
    odd = next((sizes for sizes in cameras if sizes.height % 2 or sizes.width % 2), None)
    room = max(0, device_free_bytes - device_reserve_bytes)
    why_not_auto = "the learner is on the CPU" if device == "cpu" else None
    kept = f"{_gb(device_free_bytes)} free, {_gb(device_reserve_bytes)} of it kept for the step"
    return [
        Tier(
            name="device",
            what=f"raw pixels, {_gb(on_device)}",
            why_not=None if on_device <= room else f"does not fit: {kept}",
            why_not_auto=why_not_auto,
        ),
        Tier(
            name="device-yuv420",
            what=f"luma, and colour at half the resolution, {_gb(on_device // 2)}",
            why_not=f"{odd.height}x{odd.width} pixels are an odd number"
            if odd
            else None
            if on_device // 2 <= room
            else f"does not fit: {kept}",
            why_not_auto=why_not_auto,
        ),
        Tier(
            name="device-jpeg",
            what=f"JPEG decoded in the step, at most {_gb(packed)}",
            why_not=why_not_packed or (None if packed <= room else f"does not fit: {kept}"),
            why_not_auto=why_not_auto or "not measured on a GPU yet, so only where it is asked for",
        ),
        Tier(
            name="host",
            what=f"decoded in memory, {_gb(decoded)}",
            why_not="the stores hold raw pixels already, see map"
            if not num_jpeg
            else None
            if decoded <= host_budget_bytes
            else f"does not fit: {_gb(host_budget_bytes)} allowed",
        ),
        Tier(
            name="map",
            what=f"raw pixels in the store, {_gb(mapped)}",
            why_not=f"{num_jpeg} frames are stored as JPEG" if num_jpeg else None,
        ),
        Tier(
            name="jpeg",
            what="decoded batch by batch",
            why_not=None if num_jpeg else "no frame is stored as JPEG",
        ),
    ]


def choose_tier(tiers: Sequence[Tier], wanted: str = "auto", keep_pixels: bool = False) -> Tier:
    """The fastest tier that can be had, or the one that is asked for.

    Args:
        tiers: see :func:`frame_tiers`.
        wanted: ``auto`` or a name.
        keep_pixels: ``auto`` takes no tier that changes pixels (``device-yuv420`` does, a little): a run that began
            without goes on without.

    Raises:
        ValueError: the tier that is asked for is unknown or cannot be had.
    """
    if wanted == "auto":
        return next(
            tier
            for tier in tiers
            if tier.why_not is None and tier.why_not_auto is None and not (keep_pixels and tier.name == "device-yuv420")
        )
    tier = next((tier for tier in tiers if tier.name == wanted and wanted in NAMES), None)
    if tier is None:
        raise ValueError(f"frames: expected auto or one of {', '.join(NAMES)}, got {wanted!r}")
    if tier.why_not is not None:
        can = [t.name for t in tiers if t.why_not is None]
        raise ValueError(f"frames: {wanted} cannot be had: {tier.what}, {tier.why_not}; can be had: {', '.join(can)}")
    return tier


def explain_tiers(tiers: Sequence[Tier], taken: Tier, wanted: str = "auto") -> str:
    """The tier that was taken, and that it was asked for or else what stood against every faster one."""
    if wanted != "auto":
        return f"{taken.name} ({taken.what}), as asked for"
    faster = tiers[: tiers.index(taken)]
    # One that nothing stands against by its size was ruled out by the run.
    of_the_run = ": this run began with other pixels, or another of its processes has no room"
    against = "".join(f"; not {tier}{'' if tier.why_not or tier.why_not_auto else of_the_run}" for tier in faster)
    return f"{taken.name} ({taken.what}){against}"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
