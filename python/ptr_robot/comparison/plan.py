"""From a grid to stages and cells: which commands run, and which trials belong to which place of the table.

Two stages with the same command and the same past are one stage, so methods share data and pre-training by themselves.
Every run has the beginning of its key in its name: changed settings make new runs and leave the old ones alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ptr_robot.comparison.data_sets import DataPlan
from ptr_robot.comparison.grid import Grid
from ptr_robot.comparison.methods import Method, find_method
from ptr_robot.recipes import recipe_named
from ptr_robot.stages.stage import Stage, digest_of

__all__ = ["Cell", "Plan", "make_plan"]

Phase = Literal["before", "after"]
OUT = "{out}"
"""Stands in a command for the path of what it makes."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Trials of one method, data set, seed and acting mode.

    Attributes:
        phase: ``before`` the policy has seen a demonstration of the target (what fine-tuning begins with, its step 0),
            or ``after``, which is also the phase of data sets without a target.
        run: of the policy. trained_by: names of the trainings that it comes from, in order.
        trials: result file of ``rollout`` by checkpoint (its step).
        tried_by: the stages of those trials, likewise.
        last_step: of the run.
        filmed: ``rollout`` result of the filmed trials, or None.
    """

    data: str
    method: str
    seed: int
    phase: Phase
    mode: str
    run: Path
    trained_by: tuple[str, ...]
    trials: dict[int, Path]
    tried_by: dict[int, str]
    last_step: int
    filmed: Path | None = None


@dataclass
class Plan:
    """The stages of a grid in the order in which they should begin, and its cells.

    Attributes:
        left_out: methods that make no sense on a data set, in words.
    """

    stages: list[Stage] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Trained:
    """A run: its folder, its stage, the steps of its checkpoints, and the trainings that led to it and to its start."""

    run: Path
    stage: Stage
    steps: tuple[int, ...]
    lineage: tuple[str, ...]
    before: tuple[str, ...] = ()

    @property
    def last(self) -> Path:
        return self.run / "checkpoints" / f"{self.steps[-1]:06d}"


def make_plan(grid: Grid, root: Path, workers: int = 1) -> Plan:
    """The plan of a grid in a folder.

    Args:
        workers: processes that collect side by side.

    Raises:
        ValueError: a recipe of a method is not there at the grid's scale.
    """
    planner = _Planner(grid, root, workers)
    for seed in grid.seeds:  # whole rounds first: what is stopped early has every cell with fewer seeds
        for name, data in grid.data.items():
            for method in grid.chosen_methods():
                planner.add_cells(name, data, method, seed)
    return planner.plan


class _Planner:
    def __init__(self, grid: Grid, root: Path, workers: int) -> None:
        self.grid, self.root, self.workers, self.plan = grid, root, workers, Plan()
        self._known: dict[str, tuple[Stage, Path]] = {}
        self._keys: dict[str, str] = {}

    def add_cells(self, name: str, data: DataPlan, method: Method, seed: int) -> None:
        """The stages and cells of one method on one data set with one seed."""
        target = self._store(name, data, "target") if data.has_target else None
        if target is None and method.needs_target:
            note = f"{method.name} on {name}: the data set has no target"
            if note not in self.plan.left_out:
                self.plan.left_out.append(note)
            return
        trained = self._first(name, data, method, seed, target)
        if method.route == "finetune" and target is not None:
            trained = self._finetuned(name, data, method, seed, trained, target)
        self._add_trials(name, data, method, seed, trained)

    def _first(
        self, name: str, data: DataPlan, method: Method, seed: int, target: tuple[Path, list[str]] | None
    ) -> _Trained:
        """What a method trains first, or all that it trains."""
        grid, label = self.grid, f"{name}-{method.name}-{seed}"
        recipe = f"{grid.scale}-{method.recipe}"
        mine = [*method.options, *grid.options.get(method.name, ())]
        demos = ["--target", str(target[0]), "--num-demos", self._num_demos(method)] if target else []
        if method.route == "target":
            assert target is not None
            verb = ["pretrain", recipe, *demos, "--mix", "0", *mine]
            return self._train(f"{label}-target", verb, recipe, grid.updates.target, seed, target[1])
        prior, waits = self._store(name, data, "prior")
        stores = ["--data.stores", str(prior)]
        if method.route == "joint":
            assert target is not None
            verb = ["pretrain", recipe, *stores, *demos, "--mix", self._mix(method), *mine]
            return self._train(f"{label}-joint", verb, recipe, grid.updates.joint, seed, [*waits, *target[1]])
        if method.route == "encoder":
            assert target is not None
            encoder = f"{grid.scale}-{method.encoder}"
            trained = self._train(
                f"{label}-encoder", ["pretrain", encoder, *stores], encoder, grid.updates.encoder, seed, waits
            )
            verb = ["finetune", recipe, "--encoder-from", str(trained.last), *demos, "--mix", "0", *mine]
            verb += ["--freeze-encoder"] if method.freeze else []
            waits = [trained.stage.name, *target[1]]
            return self._train(f"{label}-target", verb, recipe, grid.updates.target, seed, waits, trained.lineage)
        lineage: tuple[str, ...] = ()
        if method.critic:
            critic = self._first(name, data, find_method(method.critic), seed, target)
            mine += ["--learner.critic.path", str(critic.last)]
            waits, lineage = [*waits, critic.stage.name], critic.lineage
        verb = ["pretrain", recipe, *stores, *mine]
        return self._train(f"{label}-pretrain", verb, recipe, grid.updates.pretrain, seed, waits, lineage)

    def _finetuned(
        self, name: str, data: DataPlan, method: Method, seed: int, first: _Trained, target: tuple[Path, list[str]]
    ) -> _Trained:
        grid, lineage = self.grid, first.lineage
        verb = ["finetune", "--checkpoint", str(first.last), "--target", str(target[0])]
        verb += ["--num-demos", self._num_demos(method), "--mix", self._mix(method), "--lr-scale", f"{grid.lr_scale:g}"]
        verb += ["--critic-mix", str(method.critic_mix)] if method.critic_mix is not None else []
        recipe, waits = f"{grid.scale}-{method.recipe}", [first.stage.name, *target[1]]
        if method.critic:  # one that knows the new task too
            theirs = find_method(method.critic)
            of_critic = self._first(name, data, theirs, seed, target)
            if method.num_demos or method.mix is not None:
                own_name = f"{method.name}-{theirs.name}"
                theirs = replace(theirs, name=own_name, num_demos=method.num_demos, mix=method.mix)
            critic = self._finetuned(name, data, theirs, seed, of_critic, target)
            verb += ["--references", f"critic={critic.last}"]
            waits, lineage = [*waits, critic.stage.name], tuple(dict.fromkeys((*lineage, *critic.lineage)))
        label = f"{name}-{method.name}-{seed}-finetune"
        trained = self._train(label, verb, recipe, grid.updates.finetune, seed, waits, lineage)
        return replace(trained, steps=(0, *trained.steps), before=first.lineage)

    def _num_demos(self, method: Method) -> str:
        return str(method.num_demos or self.grid.num_demos)

    def _mix(self, method: Method) -> str:
        return str(method.mix_in(self.grid.mix))

    def _store(self, name: str, data: DataPlan, part: Literal["prior", "target"]) -> tuple[Path, list[str]]:
        """A store's path and the stages that make it."""
        words = getattr(data, part)
        if words and not words[0].startswith("--"):
            return Path(words[0]).resolve(), []
        options = ["--seed", str(self.grid.data_seed), "--out", OUT, "--workers", str(self.workers)]
        options += ["--observe", "state"] if self.grid.scale == "states" else []
        kind = f"collect {'state' if self.grid.scale == 'states' else 'frames'}"
        if data.preset:
            verb, work = ["collect", "--preset", data.preset, *options], data.num_episodes("both")
            last = "target" if data.has_target else "prior"  # collected in this order
            stage, path = self._add(f"{name}-data", verb, [], "data", makes=f"{last}/meta.json", work=work, kind=kind)
            return path / part, [stage.name]
        verb, work = ["collect", *words, *options], data.num_episodes(part)
        stage, path = self._add(f"{name}-{part}", verb, [], "data", makes="meta.json", work=work, kind=kind)
        return path, [stage.name]

    def _train(
        self,
        name: str,
        verb: list[str],
        recipe: str,
        num_steps: int,
        seed: int,
        waits: list[str],
        lineage: tuple[str, ...] = (),
    ) -> _Trained:
        usual = recipe_named(recipe).loop.num_steps
        num_steps = num_steps or usual
        every = math.ceil(num_steps / self.grid.checkpoints)
        verb = [*verb, "--num-steps", str(num_steps), "--checkpoint-every", str(every), "--keep-last", "0"]
        verb += ["--seed", str(seed), "--no-stop-on-divergence", "--out", OUT]
        kind = f"{verb[0]} {recipe}"
        stage, run = self._add(name, verb, waits, "runs", makes="train_config.json", work=num_steps, kind=kind)
        steps = tuple(sorted({*range(every, num_steps, every), num_steps}))
        return _Trained(run, stage, steps, (*lineage, stage.name))

    def _add_trials(self, name: str, data: DataPlan, method: Method, seed: int, trained: _Trained) -> None:
        """Selects among a run's checkpoints and tries them all."""
        grid, label = self.grid, f"{name}-{method.name}-{seed}"
        verb = ["select", "--run", str(trained.run)]
        # Exit code 1: no checkpoint is fit to be picked; then the last one counts as picked, and the row says so.
        kind = f"select {grid.scale}-{method.recipe}"
        work = float(len(trained.steps))
        key = digest_of(verb, [self._keys[trained.stage.name]], self.root)
        if key not in self._known:  # two methods that differ in acting alone share run and selection
            stage = self._stage(
                f"{label}-select",
                verb,
                [trained.stage.name],
                makes=trained.run / "selection.json",
                kind=kind,
                work=work,
                accepts=(0, 1),
            )
            self._known[key] = stage, trained.run
        chosen = [self._known[key][0].name]
        for mode in method.modes:
            trials, tried_by = {}, {}
            for step in trained.steps:
                verb = self._rollout(data, method, trained.run / "checkpoints" / f"{step:06d}", mode)
                verb += ["--trials", str(grid.trials)]
                kind = f"rollout {grid.scale}-{method.recipe} {mode}"
                stage, path = self._add(
                    f"{label}-{step}-{mode}",
                    verb,
                    chosen,
                    "trials",
                    suffix=".json",
                    work=grid.trials,
                    kind=kind,
                )
                trials[step], tried_by[step] = path, stage.name
            filmed = None
            if grid.films and seed == grid.seeds[0] and mode == method.modes[0]:
                verb = self._rollout(data, method, trained.run, mode)
                verb += ["--trials", str(grid.trials), "--videos-of", "outcomes", "--videos", str(grid.films)]
                verb += ["--video", "gif", "--video-size", "96"]
                _, filmed = self._add(
                    f"{label}-film", verb, chosen, "films", suffix=".json", work=grid.trials, kind="films"
                )
            cell = Cell(
                data=name,
                method=method.name,
                seed=seed,
                phase="after",
                mode=mode,
                run=trained.run,
                trained_by=trained.lineage,
                trials=trials,
                tried_by=tried_by,
                last_step=trained.steps[-1],
                filmed=filmed,
            )
            if trained.before:
                self.plan.cells.append(
                    replace(
                        cell,
                        phase="before",
                        trained_by=trained.before,
                        trials={0: trials[0]},
                        tried_by={0: tried_by[0]},
                        last_step=0,
                        filmed=None,
                    )
                )
            self.plan.cells.append(cell)

    def _rollout(self, data: DataPlan, method: Method, policy: Path, mode: str) -> list[str]:
        verb = ["rollout", "--checkpoint", str(policy), "--mode", mode, "--label", method.title, "--task", data.task]
        verb += ["--kitchen", data.kitchen, "--start", data.start, "--max-steps", str(data.max_steps)]
        verb += method.acting
        return [*verb, "--seed", str(self.grid.trial_seed), "--workers", "1", "--out", OUT]

    def _add(
        self,
        name: str,
        verb: list[str],
        after: list[str],
        folder: str,
        *,
        makes: str = "",
        suffix: str = "",
        **options: Any,
    ) -> tuple[Stage, Path]:
        """The stage of a command and the path of what it makes; the one that is there already where it is the same."""
        digest = digest_of(verb, [self._keys[other] for other in after], self.root)
        if digest not in self._known:
            path = self.root / folder / f"{name}-{digest[:8]}{suffix}"
            whole = [str(path) if word == OUT else word for word in verb]
            stage = self._stage(name, whole, after, makes=path / makes if makes else path, **options)
            self._known[digest] = stage, path
        return self._known[digest]

    def _stage(self, name: str, verb: list[str], after: list[str], **options: Any) -> Stage:
        stage = Stage(name, verb, after=list(dict.fromkeys(after)), **options)
        key = digest_of(stage.verb, [self._keys[other] for other in stage.after], self.root)
        if self._keys.get(name) not in (None, key):
            raise ValueError(f"two different stages are called {name!r}")
        if name not in self._keys:
            self._keys[name] = key
            self.plan.stages.append(stage)
        return stage
