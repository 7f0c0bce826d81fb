"""The options of how a checkpoint acts, for the verbs that let one act."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ptr_fast.config import ActMode

if TYPE_CHECKING:
    import torch

    from ptr_fast.runtime.policy import Policy

__all__ = ["ActingOptions"]


@dataclass(frozen=True, kw_only=True)
class ActingOptions:
    """How a checkpoint acts, where it is to be otherwise than it says itself.

    Attributes:
        mode: Acting mode: mean (of the actor), ema_mean (of the averaged actor), sample (one draw of
            the averaged actor) or search (the best of several by the critic). Default: the checkpoint's own.
        candidates: Candidates of search mode, up to 65536; 0 takes the checkpoint's own number.
        elites: The mean of so many best candidates is taken, 1 up to all of them; 0 takes the checkpoint's own number,
            or the single best where fewer candidates would be no more than that.
    """

    mode: Literal["", ActMode] = ""
    candidates: int = 0
    elites: int = 0

    def refuse(self, why: str) -> None:
        """Refuses what is given where it would do nothing.

        Raises:
            ValueError: names the option, and says why.
        """
        for field in fields(self):
            if getattr(self, field.name) != field.default:
                raise ValueError(f"--{field.name} {why}")

    def load(self, checkpoint: Path | str, device: torch.device | str = "cpu", engine: str = "eager") -> Policy:
        """The policy of a checkpoint that acts so.

        Raises:
            ValueError: as of :meth:`ptr_fast.runtime.policy.Policy.load`.
        """
        from ptr_fast.runtime.policy import Policy

        return Policy.load(checkpoint, device, self.mode or None, self.candidates or None, engine, self.elites or None)
