"""Write a store as a LeRobot data set of version 3.0: LeRobotDataset loads it, its trainers train on it.

Frames are image files without loss (JPEG as stored, raw pixels as PNG), or with --video AV1 videos, which lose a
little. Reading the folder back with convert gives the store again: frames, states, actions, tasks, outcomes, rewards.
Stores that rollout --record made go out the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ptr_fast.config import RewardConfig

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to write, and how.

    Attributes:
        store: The store.
        out: Folder to make; it must not exist.
        format: LeRobot's version 3.0.
        video: Frames as AV1 videos much as LeRobot makes them: a tenth of the size or less, and no longer exact.
        fps: Steps per second where the store's are no whole number, which LeRobot needs. Default: the store's.
        robot_type: Name of the robot, as LeRobot knows it, e.g. so101_follower.
        rewards: Rewards of episodes whose rewards were not recorded.
    """

    store: Path
    out: Path
    format: Literal["lerobot"] = "lerobot"
    video: bool = False
    fps: int = 0
    robot_type: str = ""
    rewards: RewardConfig = RewardConfig()

    def __post_init__(self) -> None:
        if self.fps < 0:
            raise ValueError(f"--fps: expected a whole number of at least 1, got {self.fps}")


def main(args: Args) -> int:
    """Writes and says what came out."""
    from ptr_fast.data.store import EpisodeStore
    from ptr_robot.console.progress import Progress
    from ptr_robot.datasets.lerobot_writer import LeRobotWriter

    store = EpisodeStore.open(args.store)
    if store.num_episodes == 0:
        raise ValueError(f"{args.store}: no episode to export")
    fps = args.fps or _whole(store.meta.control_hz)
    writer = LeRobotWriter(store, rewards=args.rewards, as_video=args.video, robot_type=args.robot_type, fps=fps)
    for note in _notes(store.episodes.outcome, store.episodes.rewards, writer.has_recorded_rewards):
        print(f"note: {note}")
    with Progress(store.num_episodes, "export", "episodes") as progress:
        writer.write(args.out, progress)
    frames = "videos (with loss)" if args.video else "images (without loss)"
    cameras = ", ".join(writer.camera_keys.values()) or "no camera"
    print(f"{args.out}: LeRobot v3.0, {store.num_episodes} episodes, {store.num_steps} steps, {cameras} as {frames}")
    return 0


def _whole(control_hz: float) -> int:
    if control_hz < 1 or control_hz != round(control_hz):
        raise ValueError(f"LeRobot's fps is a whole number, the store has {control_hz:g} steps per second; say --fps N")
    return round(control_hz)


def _notes(outcomes: list[str], rewards: list, are_recorded: bool) -> list[str]:
    notes = []
    if unknown := outcomes.count("unknown"):
        left = "next.success is left out" if are_recorded else "next.success and next.reward are left out"
        notes.append(f"{unknown} of {len(outcomes)} outcomes are unknown: {left}; ptr-fast edit --success says them")
    recorded = sum(rows is not None for rows in rewards)
    if recorded and not are_recorded:
        notes.append(f"rewards of {recorded} of {len(rewards)} episodes were recorded: all are computed instead")
    elif not recorded and not unknown:
        notes.append("next.reward is computed from outcome and position (--rewards.*), as for training")
    return notes
