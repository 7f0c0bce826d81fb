"""Checks of pictures: black, constant, dark, blown out, frozen, broken."""

from __future__ import annotations

import numpy as np

from ptr_robot.diagnosis.evidence import Evidence
from ptr_robot.diagnosis.finding import Finding, named, percent

__all__ = ["black_camera", "broken_frames", "constant_camera", "exposure", "frozen_frames"]

DARK_MEAN, BRIGHT_SHARE = 30.0, 0.4
"""Of the median frame: dark below this mean level of 255, blown out above this share of pixels at 250 or more."""
FROZEN_RUN = 3
"""This many repeats in a row while the arm moves are a camera that hung; one or two are dropped frames."""
DROPPED_SHARE = 0.02
"""Share of repeated frames among moving steps from which training sees too many wrong pairs."""


def black_camera(evidence: Evidence) -> list[Finding]:
    """Cameras that show nothing, in the whole store or in some episodes."""
    findings = []
    black = [camera for camera in evidence.cameras.values() if camera.is_black]
    for camera in black:
        only = len(black) == len(evidence.cameras)
        findings.append(
            Finding(
                level="error" if only else "warning",
                seen=f"camera {camera.name}: all {len(camera.peak)} sampled frames are black "
                f"(brightest pixel {camera.peak.max():.0f} of 255)",
                why="a policy trained on this camera is blind; it still trains, and its loss still falls",
                advice="no usable camera is left: convert again with another camera"
                if only
                else f"never train on {camera.name}; convert the others alone (--cameras) to save the space",
                numbers={"camera": camera.name, "peak": float(camera.peak.max()), "frames": len(camera.peak)},
            )
        )
    for camera in evidence.seeing_cameras:
        dark = camera.black_episodes
        if len(dark):
            findings.append(
                Finding(
                    level="warning",
                    seen=f"camera {camera.name}: {len(dark)} of {len(camera.repeats)} sampled episodes are black",
                    why="these episodes teach the policy to act without seeing",
                    advice="leave these episodes out",
                    episodes=named(evidence.episodes.episode_id, dark),
                    numbers={"camera": camera.name, "black": len(dark), "sampled": len(camera.repeats)},
                )
            )
    return findings


def constant_camera(evidence: Evidence) -> list[Finding]:
    """Cameras that always show the same picture."""
    findings = []
    for camera in evidence.seeing_cameras:
        if camera.is_constant:
            findings.append(
                Finding(
                    level="warning",
                    seen=f"camera {camera.name}: the same picture in all {len(camera.thumbnails)} sampled frames "
                    f"(largest difference {camera.largest_difference:.1f} of 255 grey levels)",
                    why="the picture tells nothing about the arm or the objects: a cap, an unplugged or a hung camera",
                    advice=f"look at it (ptr-fast inspect STORE --camera {camera.name}); do not train on it",
                    numbers={"camera": camera.name, "largest_difference": camera.largest_difference},
                )
            )
    return findings


def exposure(evidence: Evidence) -> list[Finding]:
    """Cameras whose typical frame is too dark or blown out."""
    findings = []
    for camera in evidence.seeing_cameras:
        mean, saturated = float(np.median(camera.mean)), float(np.median(camera.saturated))
        if mean < DARK_MEAN:
            fault, advice = (
                f"dark: the median frame's mean level is {mean:.0f} of 255",
                "more light or a longer exposure",
            )
        elif saturated > BRIGHT_SHARE:
            fault, advice = f"blown out: {percent(saturated)} of the median frame is white", "a shorter exposure"
        else:
            continue
        findings.append(
            Finding(
                level="warning",
                seen=f"camera {camera.name} is {fault}",
                why="detail that is not in the picture cannot be learned, and colour jitter clips the rest",
                advice=f"record with {advice}, or use another camera",
                numbers={"camera": camera.name, "median_mean": mean, "median_saturated_share": saturated},
            )
        )
    return findings


def frozen_frames(evidence: Evidence) -> list[Finding]:
    """Frames with the very bytes of the frame before, while the arm moves.

    The still frames that an episode begins with are left to ``static_start``.
    """
    findings = []
    for camera in evidence.live_cameras:
        repeated, moving, hung = 0, 0, []
        for episode, same in camera.repeats.items():
            if episode in camera.black_episodes:
                continue
            start = int(evidence.step_start[episode])
            count = min(len(same), int(evidence.lengths[episode]))
            moves = evidence.moving[start : start + count]
            same = same[:count]
            lead = 0 if same.all() else int(np.argmin(same))
            caught = (same & moves)[lead:]
            repeated, moving = repeated + int(caught.sum()), moving + int(moves[lead:].sum())
            if _longest_run(same[lead:], caught) >= FROZEN_RUN:
                hung.append(episode)
        share = repeated / max(1, moving)
        if not hung and share <= DROPPED_SHARE:
            continue
        findings.append(
            Finding(
                level="error" if share > 0.5 else "warning",
                seen=f"camera {camera.name}: {repeated} of {moving} steps in which the arm moves ({percent(share)}) "
                f"repeat the frame before, byte for byte; {len(hung)} of {len(camera.repeats)} sampled episodes have "
                f"{FROZEN_RUN} or more such steps in a row",
                why="a camera that hangs or drops frames teaches that actions have no effect on what is seen",
                advice="leave the episodes with long runs out; for single drops check the camera's rate against the "
                "control rate",
                episodes=named(evidence.episodes.episode_id, hung),
                numbers={"camera": camera.name, "repeated": repeated, "moving": moving, "hung_episodes": len(hung)},
            )
        )
    return findings


def broken_frames(evidence: Evidence) -> list[Finding]:
    """Frames that do not decode, or not to the size that meta.json says."""
    findings = []
    for camera in evidence.cameras.values():
        if not camera.broken:
            continue
        episode, t, reason = camera.broken[0]
        sampled = len(camera.broken) + len(camera.mean)
        findings.append(
            Finding(
                level="error",
                seen=f"camera {camera.name}: {len(camera.broken)} of {sampled} sampled frames are bad; the first, "
                f"frame {t} of episode {evidence.episodes.episode_id[episode]}, {reason}",
                why="training stops at the first such frame it draws",
                advice="convert again; if it comes back, the source file is damaged: leave the episode out",
                episodes=named(evidence.episodes.episode_id, dict.fromkeys(e for e, _, _ in camera.broken)),
                numbers={"camera": camera.name, "bad": len(camera.broken), "sampled": sampled},
            )
        )
    return findings


def _longest_run(same: np.ndarray, counted: np.ndarray) -> int:
    """Most ``counted`` steps inside one unbroken run of ``same``."""
    longest = run = 0
    for is_same, counts in zip(same, counted, strict=True):
        run = run + int(counts) if is_same else 0
        longest = max(longest, run)
    return longest
