"""How long stages take: learned from those that have finished, and known beforehand for the others."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from ptr_robot.stages.stage import Stage

__all__ = ["Durations"]


class Durations:
    """Seconds per unit of work, by kind of stage.

    Args:
        known: for kinds of which no stage has finished yet, by kind or by verb: seconds to begin, and seconds per unit
            of work.
    """

    def __init__(self, known: Mapping[str, tuple[float, float]] | None = None) -> None:
        self._known = dict(known or {})
        self._learned: dict[str, list[float]] = {}

    def learn(self, stage: Stage, seconds: float) -> None:
        """Adds how long a stage took."""
        for name in {stage.kind, stage.verb[0]}:
            self._learned.setdefault(name, []).append(seconds / max(stage.work, 1e-9))

    def predict(self, stage: Stage) -> float | None:
        """Seconds that a stage will take; None where nothing is known about its kind or verb."""
        for name in (stage.kind, stage.verb[0]):
            if name in self._learned:
                return stage.work * statistics.median(self._learned[name])
            if name in self._known:
                begin, each = self._known[name]
                return begin + stage.work * each
        return None

    def left(self, stages: Sequence[Stage], slots: int, running: Mapping[str, float] | None = None) -> float | None:
        """Seconds until all of these stages have finished, ``slots`` side by side.

        Args:
            running: of the stages that run already: for how many seconds.

        Returns:
            The larger of all work shared out evenly and the longest chain; None where no stage can be predicted.
        """
        alone = {stage.name: self.predict(stage) for stage in stages}
        told = [seconds for seconds in alone.values() if seconds is not None]
        if stages and not told:
            return None
        usual = statistics.mean(told) if told else 0.0
        ends: dict[str, float] = {}
        total = 0.0
        for stage in stages:
            predicted = alone[stage.name]
            seconds = usual if predicted is None else predicted
            if running and stage.name in running:
                seconds = max(seconds - running[stage.name], 0.0)
            total += seconds
            ends[stage.name] = seconds + max((ends.get(name, 0.0) for name in stage.after), default=0.0)
        return max(total / max(slots, 1), max(ends.values(), default=0.0))

    def total(self, stages: Iterable[Stage]) -> float:
        """Seconds of all these stages one after the other, as far as they can be predicted."""
        return sum(self.predict(stage) or 0.0 for stage in stages)
