"""Where the stores lie that a run's record names: ``--store OLD=NEW`` for those that have moved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from ptr_fast.checkpoint import CheckpointInfo
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_fast.json_files import parse_json
from ptr_robot.training.run_record import recorded_sources

__all__ = ["StorePlaces"]


@dataclass(frozen=True)
class StorePlaces:
    """What the ``--store`` options of a verb say.

    Attributes:
        given: a store to look at in place of the run's own; None: none was named.
        camera_map: ``STORE=CHECKPOINT`` for its cameras that the checkpoint calls by another name.
        moved: new places by old ones; an old place is a recorded path, or a folder above it whose content has moved.
        since: the same, as ``resume`` was told after a checkpoint was saved.
    """

    given: Path | None = None
    moved: Mapping[Path, Path] = field(default_factory=dict)
    since: Mapping[Path, Path] = field(default_factory=dict)
    camera_map: tuple[str, ...] = ()

    @staticmethod
    def parse(options: Iterable[str], takes_given: bool = False, camera_map: tuple[str, ...] = ()) -> StorePlaces:
        """Reads ``OLD=NEW``, and where ``takes_given`` one path alone.

        Raises:
            ValueError: an option without ``=`` where there must be one, an empty side, something named twice, or a
                ``camera_map`` without a path: the record of a run says what it calls the cameras of its own stores.
        """
        given: Path | None = None
        moved: dict[Path, Path] = {}
        for text in options:
            old, equals, new = text.partition("=")
            if takes_given and (not equals or os.path.isdir(text)):
                if given is not None:
                    raise ValueError(f"--store: expected one store to look at, got {given} and {text}")
                given = Path(text)
                continue
            if not old or not new:
                raise ValueError(f"--store: expected OLD=NEW, the recorded and the new place of a store, got {text!r}")
            if moved.setdefault(Path(os.path.realpath(old)), Path(new)) != Path(new):
                raise ValueError(f"--store: {old} is named twice")
        if camera_map and given is None:
            told = "expected --store STORE beside it; what the cameras of a run's own stores are called is recorded"
            raise ValueError(f"camera-map: {told}")
        return StorePlaces(given, moved, camera_map=camera_map)

    def place(self, recorded: Path) -> Path:
        """Where a recorded store lies now, as far as these places say."""
        then = self.since.get(recorded, recorded)
        for path in dict.fromkeys((then, recorded)):
            for old, new in self.moved.items():
                if path == old or old in path.parents:
                    return new / path.relative_to(old)
        return then

    def open(self, recorded: Path, cameras: Mapping[str, str] = MappingProxyType({})) -> EpisodeStore:
        """Opens a recorded store where it lies now.

        Args:
            cameras: names of cameras in the run by their names in the store, where the two differ.

        Raises:
            DataError: there is no store, with the option that names its new place; or it is damaged.
        """
        path = self.place(recorded)
        if not (path / "meta.json").is_file():
            named = self.since.get(recorded, recorded)
            raise DataError(
                f"{path}: not a store (expected the file meta.json), and the record of the run needs it; "
                f"where it has moved, name its new place: --store {named}=NEW"
            )
        return EpisodeStore.open(path).renamed(cameras)

    def check_known(self, recorded: Iterable[Path]) -> None:
        """Refuses an old place that no record names.

        Raises:
            ValueError: with those that are recorded.
        """
        paths = list(dict.fromkeys(path for old in recorded for path in (self.since.get(old, old), old)))
        for old, new in self.moved.items():
            if not any(path == old or old in path.parents for path in paths):
                known = ", ".join(map(str, paths)) or "none"
                raise ValueError(f"--store {old}={new}: the record of the run names no store there; it names {known}")

    def of_checkpoint(self, info: CheckpointInfo) -> StorePlaces:
        """These places for the stores of a checkpoint's record, and what ``resume`` has been told since it was saved.

        Raises:
            ValueError: an old place that the record does not name.
        """
        recorded = recorded_sources(info.run, str(info.path))
        path = info.path.parent.parent / "train_config.json"
        try:
            now = recorded_sources(parse_json(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            now = []  # a checkpoint on its own: its record is all there is
        places = self
        if [source.train for source in now] == [source.train for source in recorded]:
            since = {old.store: new.store for old, new in zip(recorded, now, strict=True)}
            places = replace(self, since=since)
        places.check_known(source.store for source in recorded)
        return places
