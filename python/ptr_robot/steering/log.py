"""How often, and by how much, the critic preferred another proposal than the first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

from ptr_fast.runtime.choice import Choice

__all__ = ["SteeringLog"]


@dataclass(kw_only=True)
class SteeringLog:
    """Counts over decisions.

    Attributes:
        decisions: in which the policy was asked. compared: of those, with a first proposal and a second one.
        preferred_other: compared ones in which Q of another proposal was above that of the first.
        sum_gain, largest_gain: of the largest Q above that of the first, over the compared ones, in units of Q.
        chose_other: compared ones in which another than the first was played (with average: was the best).
        missing: proposals that did not come in time, or were not finite.
        clipped: proposals outside the critic's bounds.
        alike: compared decisions whose proposals all had the same Q, as of a policy that draws no noise.
        unanswered: times at which no proposal came.
    """

    decisions: int = 0
    compared: int = 0
    preferred_other: int = 0
    sum_gain: float = 0.0
    largest_gain: float = 0.0
    chose_other: int = 0
    missing: int = 0
    clipped: int = 0
    alike: int = 0
    unanswered: int = 0

    def add(self, choice: Choice, num_asked: int) -> None:
        """Counts one decision.

        Args:
            num_asked: proposals that were asked for.
        """
        self.decisions += 1
        self.missing += num_asked - len(choice.q)
        self.clipped += choice.num_clipped
        if not choice.first or len(choice.q) < 2:
            return
        gain = float(choice.q.max() - choice.q[0])
        self.compared += 1
        self.preferred_other += gain > 0.0
        self.sum_gain += gain
        self.largest_gain = max(self.largest_gain, gain)
        self.chose_other += choice.index != 0
        self.alike += bool(choice.q.max() == choice.q.min())

    @staticmethod
    def of(logs: Iterable[dict[str, float]]) -> SteeringLog:
        """All of some logs together."""
        total = SteeringLog()
        for log in logs:
            for field in fields(SteeringLog):
                mine, more = getattr(total, field.name), log[field.name]
                setattr(total, field.name, max(mine, more) if field.name == "largest_gain" else mine + more)
        return total

    def as_dict(self) -> dict[str, float]:
        """Every count by its name."""
        return asdict(self)

    def line(self) -> str:
        """For people."""
        if not self.decisions:
            return f"steered no decision, {self.unanswered} times no proposal came"
        if not self.compared:
            told = f"{self.decisions} decisions, one proposal each"
        else:
            told = (
                f"{self.decisions} decisions: Q preferred another than the first proposal in "
                f"{self.preferred_other / self.compared:.0%}, by {self.sum_gain / self.compared:.3g} on average, "
                f"at most {self.largest_gain:.3g}; another was taken in {self.chose_other / self.compared:.0%}"
            )
        for count, what in (
            (self.missing, "proposals were missing"),
            (self.clipped, "proposals were outside the critic's bounds and clipped"),
            (self.alike, "decisions had proposals that were all worth the same"),
            (self.unanswered, "times no proposal came"),
        ):
            told += f"; {count} {what}" if count else ""
        return told
