"""What the critic that fine-tuning begins with knows of the task of the demonstrations, and what follows from it.

Along a demonstration Q climbs under a critic that knows the task. Where the critic has never seen the object, Q climbs
less than along old episodes; it then has the task from a few demonstrations alone. Among many proposals a search finds
those where such a critic errs, and its Q along other demonstrations does not tell which checkpoint succeeds more often.
Measured in toy kitchens (``benchmarks/NOTES.md``), not on a robot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ptr_fast.config import ActConfig, from_dict
from ptr_fast.learners.traits import Traits

__all__ = ["MAX_DROP", "MIN_CLIMB", "Familiarity", "familiarity_in", "fewer_proposals", "ranking_of"]

MAX_DROP = 0.07
"""By how much the rank correlation may lie lower along demonstrations of a known task than along old episodes."""
MIN_CLIMB = 0.8
"""Rank correlation along old episodes below which nothing can be told: Q does not climb along them either. Critics that
were looked at have 0.95 to 0.99."""


@dataclass(frozen=True, kw_only=True)
class Familiarity:
    """How Q climbs along demonstrations and along old episodes, by the critic that fine-tuning begins with.

    Attributes:
        demonstrations, old: mean over the episodes of the rank correlation of Q(s_t, a_t) with time, in [-1, 1].
        num_demonstrations, num_old: so many episodes were looked at.
    """

    demonstrations: float
    old: float
    num_demonstrations: int
    num_old: int

    def __post_init__(self) -> None:
        if not (abs(self.demonstrations) <= 1.0 and abs(self.old) <= 1.0):  # NaN too
            raise ValueError(f"expected rank correlations in [-1, 1], got {self.demonstrations} and {self.old}")
        if min(self.num_demonstrations, self.num_old) < 1:
            raise ValueError(f"expected episodes, got {self.num_demonstrations} and {self.num_old}")

    @property
    def is_known(self) -> bool | None:
        """Whether the critic knows the task of the demonstrations; None where that cannot be told."""
        return self.demonstrations >= self.old - MAX_DROP if self.old >= MIN_CLIMB else None

    def line(self) -> str:
        """In words."""
        told = (
            f"along {self.num_demonstrations} demonstration{'s' * (self.num_demonstrations > 1)} Q climbs with a rank "
            f"correlation of {self.demonstrations:.2f}, along {self.num_old} old episode{'s' * (self.num_old > 1)} of "
            f"{self.old:.2f}: "
        )
        verdicts = {
            True: "the critic knows the task",
            False: "the critic does not know the task",
            None: "too little to tell whether the critic knows the task",
        }
        return told + verdicts[self.is_known]


def familiarity_in(record: Mapping[str, Any]) -> Familiarity | None:
    """That in a run's record; None where it has none: of other runs than fine-tunings, and of older ones."""
    found = record.get("familiarity")
    return None if found is None else from_dict(Familiarity, found, "familiarity")


def fewer_proposals(act: ActConfig, traits: Traits) -> int:
    """Among how many proposals a critic should choose that does not know the task: as many as its targets take the best
    of, where ``act`` searches among more of them; else 0."""
    few = traits.num_proposals
    return few if act.mode == "search" and few < act.num_candidates else 0


def ranking_of(traits: Traits, known: Familiarity | None) -> str | None:
    """The metric by which ``select`` ranks the checkpoints of a run, where it is told none.

    None: the newest counts, as it does of clones, and of clones whose samples a critic chooses among that did not know
    the task. Of other critics nothing but the ranking by Q was tried.
    """
    is_new = known is not None and known.is_known is False and traits.num_proposals > 0
    return None if is_new or traits.ranking is None else traits.ranking[0]
