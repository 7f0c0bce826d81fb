"""Modules of version 0.1 by their old names: they still import, and each use of a name says where it lives now.

To be removed with version 0.3, and the two lines of ``ptr_robot/__init__.py`` with it.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MOVED", "MovedNames"]

MOVED = {
    # old module: where its names are now, both below ptr_robot; the first that has a name is meant
    "act": ("evaluation.held_out", "verbs.act"),
    "ancestry": ("training.ancestry",),
    "branch": ("verbs.branch",),
    "collect": ("verbs.collect",),
    "contact_sheet": ("inspection.contact_sheet",),
    "convert": ("verbs.convert",),
    "convert_checkpoint": ("verbs.convert_checkpoint",),
    "demo": ("stages", "verbs.demo"),
    "differences": ("training.differences",),
    "divergence": ("training.divergence",),
    "doctor": ("verbs.doctor",),
    "evaluate": ("evaluation.metrics", "verbs.evaluate"),
    "evaluation_data": ("evaluation.held_out",),
    "export": ("verbs.export",),
    "finetune": ("verbs.finetune",),
    "flax_checkpoint": ("published.flax_file",),
    "info": ("verbs.info",),
    "inspect_store": ("verbs.inspect",),
    "launch": ("device", "training.processes"),
    "old_record": ("training.old_record",),
    "precision": ("training.precision",),
    "pretrain": ("verbs.pretrain",),
    "progress": ("console.progress",),
    "rates": ("training.rates",),
    "recorder": ("trials.recorder",),
    "reference_parameters": ("published.parameter_names",),
    "report.verb": ("verbs.report",),
    "resume": ("training.run_folder", "verbs.resume"),
    "robot_rollout": ("trials.contenders", "trials.run"),
    "rollout": ("verbs.rollout",),
    "run_record": ("training.run_record",),
    "select": ("evaluation.ranking", "verbs.select"),
    "serve": ("verbs.serve",),
    "session": ("trials.session",),
    "store_places": ("training.store_places",),
    "store_summary": ("inspection.store_summary",),
    "train": ("training.run_folder", "training.loop"),
    "train_config": ("training.config",),
    "train_data": ("training.sources", "training.episode_choice", "training.matching"),
    "train_frames": ("training.batches",),
    "train_log": ("training.log",),
    "trained_on": ("training.trained_on",),
    "trial_page": ("trials.page",),
    "trial_sheet": ("trials.sheet",),
    "video": ("console.video",),
}


class MovedNames:
    """Finder and loader of the old modules: empty ones that look every name up where it is now."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.removeprefix("ptr_robot.") in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Moved(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Moved(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for new in MOVED[self.__name__.removeprefix("ptr_robot.")]:
            module = importlib.import_module(f"ptr_robot.{new}")
            if hasattr(module, name):
                told = f"{self.__name__}.{name} is now {module.__name__}.{name}; the old name goes in the next version"
                warnings.warn(told, DeprecationWarning, stacklevel=2)
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
