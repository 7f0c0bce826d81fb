"""What a run and its ancestors trained on, and which episodes are therefore no held-out data.

Note "Trained on". An episode was trained on where one of the same digest (actions and frames) was, whatever it is
called, or one of the same id and task was, whatever became of its frames: the same recording, converted again. Equal
ids of different tasks are different recordings. Where a record does not say the task, the id decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot.training.ancestry import TrainedEpisodes, trained_on
from ptr_robot.training.run_record import recorded_sources
from ptr_robot.training.sources import Source
from ptr_robot.training.store_places import StorePlaces

__all__ = ["TrainedOn", "held_out_only"]


class TrainedOn:
    """All episodes that went into the weights of a run's checkpoints.

    Args:
        run: the run's record (``CheckpointInfo.run``).
        places: where its stores lie now; looked at only for records of version 1, which have no digests.

    Attributes:
        unknown: what of it is not known, a sentence each; where there is any, nobody can say that an episode was never
            trained on.
    """

    def __init__(self, run: Mapping[str, Any], places: StorePlaces = StorePlaces()) -> None:
        sources, lost = trained_on(run)
        self.unknown = [f"what {ancestor} trained on is not recorded" for ancestor in lost]
        if not recorded_sources(run):
            self.unknown.append("what this checkpoint was trained on is not recorded")
        self._by_digest: dict[str, str] = {}
        self._by_name: dict[tuple[str, str | None], str] = {}
        for source in sources:
            source = self._looked_up(source, places)
            for name, digest in source.digests.items():
                if digest:
                    self._by_digest.setdefault(digest, source.run)
                self._by_name.setdefault((name, source.tasks.get(name)), source.run)

    def _looked_up(self, source: TrainedEpisodes, places: StorePlaces) -> TrainedEpisodes:
        """With the digests that a record of version 1 lacks, from the store where it still lies."""
        if all(source.digests.values()):
            return source
        where = f"the record of {source.run or 'this run'} has no digests"
        try:
            store = places.open(source.store)
        except DataError:
            self.unknown.append(f"{where} and its store {source.store} is not there")
            return source
        if store.fingerprint() != source.fingerprint:
            self.unknown.append(f"{where} and its store {store.path} has changed since")
        table = store.episodes
        here = {name: (d, t) for name, d, t in zip(table.episode_id, table.digest, table.task, strict=True)}
        known = {name: here[name] for name in source.digests if name in here}
        return replace(
            source,
            digests={**source.digests, **{name: digest for name, (digest, _) in known.items()}},
            tasks={name: task for name, (_, task) in known.items()},
        )

    def by(self, store: EpisodeStore, episode: int) -> str | None:
        """Folder of the run that trained on an episode of an open store, empty for the run itself; None: none did."""
        table = store.episodes
        name, task = table.episode_id[episode], table.task[episode]
        if (run := self._by_digest.get(table.digest[episode])) is not None:
            return run
        return self._by_name.get((name, task), self._by_name.get((name, None)))

    def split(self, store: EpisodeStore, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
        """Episode numbers that were not trained on, those that were, and by whom in words."""
        runs = [self.by(store, int(episode)) for episode in episodes]
        was = np.array([run is not None for run in runs], bool)
        counts = Counter(run or "this run" for run in runs if run is not None)
        words = ", ".join(f"{count} by {run}" for run, count in counts.most_common())
        episodes = np.asarray(episodes, np.int64)
        return episodes[~was], episodes[was], words


def held_out_only(sources: Sequence[Source], ancestors: Sequence[Mapping[str, Any]] = ()) -> list[Source]:
    """The sources of a new run without the held-out episodes that it, or an ancestor, trains on; says what is left out.

    Args:
        ancestors: as in the record.
    """
    own = [source.record().to_json() for source in sources]
    trained = TrainedOn({"split": {"sources": own}, "ancestors": list(ancestors)})
    out = []
    for source in sources:
        fresh, used, words = trained.split(source.store, source.validation)
        if len(used):
            print(
                f"{len(used)} of {len(source.validation)} {source.role} episodes to hold out in {source.store.path} "
                f"are trained on ({words}): they are no held-out data and are left out; {_left(len(fresh))}"
            )
        out.append(replace(source, validation=fresh))
    for reason in trained.unknown:
        print(f"whether held-out episodes were trained on is unknown: {reason}")
    return out


def _left(count: int) -> str:
    if count:
        return f"{count} {'is' if count == 1 else 'are'} held out"
    return (
        "none is held out: evaluate and select need other episodes (--store), or a run from a pre-training without "
        "them (--data.exclude-tasks)"
    )
