"""One thing that a check found: what was seen, why it matters, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["LEVELS", "MAX_NAMED_EPISODES", "Finding", "Level", "named", "percent", "printable"]

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
MAX_NAMED_EPISODES = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check says about one store or training run, or about several together.

    Attributes:
        level: ``error``: training on this goes wrong; ``warning``: likely a trap, a person should look; ``note``: a
            fact that the next step needs.
        seen: what was measured, with numbers.
        why: what it does to training or to the robot.
        advice: what to do; empty where there is nothing to do.
        check: name of the check, stable, for scripts; default: the function's name.
        store: the store, stores or runs it is about; default: what the check was given.
        episodes: a few of the episodes concerned, at most ``MAX_NAMED_EPISODES``.
        numbers: the measurements, for scripts; plain JSON values.
    """

    level: Level
    seen: str
    why: str
    advice: str = ""
    check: str = ""
    store: str = ""
    episodes: tuple[str, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level: expected one of {LEVELS}, got {self.level!r}")
        if len(self.episodes) > MAX_NAMED_EPISODES:
            raise ValueError(f"episodes: at most {MAX_NAMED_EPISODES}, got {len(self.episodes)}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def named(episode_ids: Sequence[str], indices: Iterable[int]) -> tuple[str, ...]:
    """The ids of the first few of ``indices``, for ``Finding.episodes``."""
    return tuple(str(episode_ids[int(i)]) for i in list(indices)[:MAX_NAMED_EPISODES])


def percent(share: float) -> str:
    """A share in [0, 1] for a sentence: ``3 %``, ``0.4 %``, ``100 %``."""
    return f"{100 * share:.2g} %" if share < 0.095 else f"{100 * share:.0f} %"


def printable(text: str) -> str:
    """One line without control characters: a name from a file cannot steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
