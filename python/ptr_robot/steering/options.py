"""The options of steering, for the verbs that have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from ptr_fast.config import ActMode
from ptr_fast.runtime.choice import Choose, SteeringConfig

__all__ = ["NOT_WITH_STEER", "SteeringOptions"]

NOT_WITH_STEER = "does nothing with --steer, where the checkpoint's critic alone is asked"


@dataclass(frozen=True, kw_only=True)
class SteeringOptions:
    """Which policy proposes, and how the checkpoint's critic chooses.

    Attributes:
        steer: Let another policy propose actions and the checkpoint's critic choose: ws://HOST:PORT or wss:// of a
            server of openpi's protocol (the environment's PTR_FAST_STEER_TOKEN is sent to it), lerobot:FOLDER of a
            policy that LeRobot saved, a file of ptr-fast export (policy.onnx), or a run or checkpoint.
        steer_proposals: Proposals per decision. A server and a file are asked so often, a checkpoint once for all where
            it can, a policy of LeRobot's once for all.
        steer_choose: max the proposal of the largest Q; softmax one drawn by exp(Q / temperature); average the mean of
            the best.
        steer_temperature: Temperature of softmax, in units of Q.
        steer_best: Proposals of the largest Q that average takes the mean of.
        steer_mode: Acting mode of a checkpoint that proposes. Default: sample where it has it, else its own.
        steer_timeout_s: For all proposals of a decision by a server, s. Those that came by then are chosen among; none
            is an error.
        steer_camera_map: PROPOSER=CRITIC pairs: which camera of the critic shows what the proposing policy calls by
            another name. For a server that does not say its cameras PROPOSER is the request's key, e.g.
            observation/wrist_image=wrist.
        steer_same_spaces: State that the actions and state of a server or of a policy of LeRobot's are the critic's in
            names, order, units and rate, where it does not say so itself. openpi's own servers and LeRobot's policies
            do not; without this they are refused.
    """

    steer: str = ""
    steer_proposals: int = 16
    steer_choose: Choose = "max"
    steer_temperature: float = 1.0
    steer_best: int = 4
    steer_mode: Literal["", ActMode] = ""
    steer_timeout_s: float = 1.0
    steer_camera_map: tuple[str, ...] = ()
    steer_same_spaces: bool = False

    def check(self) -> None:
        """Refuses options out of their range, and options that would do nothing.

        Raises:
            ValueError: names the option.
        """
        if self.steer:
            self.config()
            return
        for field in fields(self):
            if getattr(self, field.name) != field.default:
                raise ValueError(f"--{field.name.replace('_', '-')} needs --steer")

    def config(self) -> SteeringConfig:
        """How the critic chooses.

        Raises:
            ValueError: an option out of its range, or of another way to choose.
        """
        if not 1 <= self.steer_proposals <= 1024:
            raise ValueError(f"steer-proposals must lie in 1 to 1024, got {self.steer_proposals}")
        for choose, option in (("softmax", "steer_temperature"), ("average", "steer_best")):
            if self.steer_choose != choose and getattr(self, option) != getattr(SteeringOptions, option):
                told = f"does nothing with --steer-choose {self.steer_choose}, it is of {choose}"
                raise ValueError(f"--{option.replace('_', '-')} {told}")
        if not 0.0 < self.steer_timeout_s < float("inf"):
            raise ValueError(f"steer-timeout-s must be a positive number, got {self.steer_timeout_s:g}")
        try:
            return SteeringConfig(
                choose=self.steer_choose, temperature=self.steer_temperature, num_best=self.steer_best
            )
        except ValueError as error:
            raise ValueError(f"steer: {error}") from error

    def told(self, identity: Mapping[str, object]) -> dict[str, object]:
        """What identifies a steering in results, so that trials with other options are not taken for these.

        Args:
            identity: of the policy that proposes.
        """
        out: dict[str, object] = {"by": self.steer, "proposals": self.steer_proposals, "choose": self.steer_choose}
        out |= {"temperature": self.steer_temperature} if self.steer_choose == "softmax" else {}
        out |= {"best": self.steer_best} if self.steer_choose == "average" else {}
        out |= {"timeout_s": self.steer_timeout_s} if self.steer_timeout_s != SteeringOptions.steer_timeout_s else {}
        out |= {"camera_map": list(self.steer_camera_map)} if self.steer_camera_map else {}
        return out | ({"mode": self.steer_mode} if self.steer_mode else {}) | dict(identity)
