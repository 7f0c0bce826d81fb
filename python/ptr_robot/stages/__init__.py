"""Many ``ptr-fast`` commands that wait for each other: each runs once, and a start after a kill goes on."""

from ptr_robot.stages.durations import Durations
from ptr_robot.stages.local import LocalProcesses
from ptr_robot.stages.runner import Result, run_stages
from ptr_robot.stages.stage import Stage, fill_in_keys

__all__ = ["Durations", "LocalProcesses", "Result", "Stage", "fill_in_keys", "run_stages"]
