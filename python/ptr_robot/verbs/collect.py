"""Demonstrations of scripted experts in simulated toy kitchens, written into a store.

Episode i of (task, kitchen, kind, seed) is always the same: running the command again adds only what is missing, and a
command that was killed goes on where it stopped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

__all__ = ["Args", "main", "parse_kinds"]

EPISODES_PER_PART = 64
SLOW_EPISODE = 90
"""Decisions in which four of five attempts of an operator come to their end."""
DECIDED_BY_A_PRESET = (
    "task",
    "kitchens",
    "kinds",
    "only_success",
    "start",
    "distractors",
    "action_repeat",
    "max_steps",
)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        out: Store; made where there is none, else added to. With --preset a folder: its stores are prior and target.
        preset: Named data set, which decides what is shown where and by whom: D0 to D6, pair, unseen or door; see
            docs/kitchens.md.
        task: Instructions: "put X in|on Y", or one of Meta-World's own, such as "open door".
        kitchens: Letters A to H; every task is shown in every kitchen.
        episodes: Number of episodes per task and kitchen. Default: 40, or what the preset says of its prior data.
        kinds: Kinds of episodes and their shares: expert, expert-clean (stores commands without the arm's noise),
            noisy, failed, shaky, teleop (operators of mixed skill), teleop-good, teleop-poor, play, pick and place.
        only_success: Take each episode's first attempt that ends in success (all kinds but failed; kind pick has no
            such attempt).
        observe: What the store holds of the scene: the cameras' frames beside hand and gripper; or, without any frame,
            the positions of object and container in the state (put tasks), for learners whose encoder.name is none.
        cameras: What sees the scene: front (called image_0 where it is alone) and wrist, which the arm carries.
        image_size: Height and width of the frames of every camera, pixels.
        start: Range of the starting positions of put tasks: easy; wide; left, as wide with the object in the left
            third; far, as easy with the hand far off.
        distractors: Other objects on the table, 0 to 5 (put tasks).
        action_repeat: Simulation steps of 12.5 ms per decision.
        max_steps: Decisions per episode at most.
        encoding: How frames are stored: raw pixels (exact, larger) or JPEG.
        jpeg_quality: Quality of JPEG frames, 1 to 100.
        task_per_kitchen: Call the tasks "put block on plate [kitchen E]", so that each kitchen takes a task slot of its
            own.
        seed: Seed of everything: scenes, starts and the operators.
        workers: Processes that collect side by side.
    """

    out: Path
    preset: str = ""
    task: tuple[str, ...] = ("put block on plate",)
    kitchens: tuple[str, ...] = ("A",)
    episodes: int | None = None
    kinds: tuple[str, ...] = ("expert:0.7", "noisy:0.2", "failed:0.1")
    only_success: bool = False
    observe: Literal["frames", "state"] = "frames"
    cameras: tuple[str, ...] = ("image_0",)
    image_size: int = 64
    start: Literal["easy", "wide", "left", "far"] = "easy"
    distractors: int = 0
    action_repeat: int = 4
    max_steps: int = 60
    encoding: Literal["raw", "jpeg"] = "raw"
    jpeg_quality: int = 95
    task_per_kitchen: bool = False
    seed: int = 0
    workers: int = 2


def main(args: Args) -> int:
    """Collects what is missing and prints what the store, or each store of the preset, then holds."""
    for store in stores_of(args):
        _collect(store)
    return 0


def stores_of(args: Args) -> list[Args]:
    """The options of each store of the preset; without one, these themselves.

    Raises:
        ValueError: an unknown preset, an option that the preset decides, or a store where its folder is to be.
    """
    if not args.preset:
        return [args]
    from ptr_robot.sim.data_sets import find_data_set

    data_set, default = find_data_set(args.preset), Args(out=args.out)
    if (args.out / "meta.json").exists():
        raise ValueError(f"{args.out}: is a store itself; a preset writes its stores into a folder, name another one")
    for name in DECIDED_BY_A_PRESET:
        if getattr(args, name) != getattr(default, name):
            raise ValueError(f"--{name.replace('_', '-')}: preset {data_set.name} decides it; leave one of the two out")
    stores = []
    for part, shown in (("prior", data_set.prior), ("target", data_set.target)):
        if shown is not None:
            episodes = args.episodes if part == "prior" and args.episodes is not None else shown.episodes
            decided = {name: getattr(shown, name) for name in DECIDED_BY_A_PRESET}
            stores.append(replace(args, preset="", out=args.out / part, **{**decided, "episodes": episodes}))
    return stores


def _collect(args: Args) -> None:
    from ptr_fast.data.store import StoreWriter
    from ptr_robot.console.progress import Progress
    from ptr_robot.sim.demonstrators import OPERATORS

    keys = plan(args)
    meta = store_meta(args)
    exists = (args.out / "meta.json").exists()
    with StoreWriter.append(args.out, meta) if exists else StoreWriter.create(args.out, meta) as writer:
        _check_same_options(args.out, writer.meta.source, meta.source)
        _check_same_labels(args, writer.meta.source)
        missing = [key for key in keys if episode_id(key) not in writer]
        if args.max_steps < SLOW_EPISODE and any(key.kind in OPERATORS for key in missing):
            print(f"operators often take more than --max-steps {args.max_steps}: such attempts are cut off as failures")
        print(f"{args.out}: {len(keys)} episodes asked for, {len(keys) - len(missing)} there already")
        with Progress(len(missing), "collect", "episodes") as progress:
            try:
                for episode in _recorded(args, missing):
                    writer.add(episode)
                    if writer.num_pending >= EPISODES_PER_PART:
                        writer.commit()
                    progress.advance(1, kitchen=episode.domain)
            finally:
                writer.commit()  # also what was finished before Ctrl-C or an error
    _print_summary(args.out)


def parse_kinds(kinds: Sequence[str], num_episodes: int) -> dict[str, int]:
    """Splits a number of episodes by shares, largest remainder first: ``["expert:0.7", "noisy:0.3"]``, 10 -> 7 and 3.

    Raises:
        ValueError: an unknown kind, a share that is no positive number, or a kind named twice.
    """
    from ptr_robot.sim.demonstrators import KINDS
    from ptr_robot.sim.kitchens import nearest

    known: list[str] = list(KINDS)
    shares: dict[str, float] = {}
    for text in kinds:
        name, _, share = text.partition(":")
        if name not in known:
            raise ValueError(f"kinds: unknown kind {name!r}{nearest(name, known)}; known: {known}")
        try:
            value = float(share or "1")
        except ValueError:
            value = math.nan
        if not 0.0 < value < math.inf or name in shares:
            raise ValueError(f"kinds: expected each kind once with a positive share, e.g. expert:0.7, got {text!r}")
        shares[name] = value
    if not shares:
        raise ValueError("kinds: name at least one, e.g. expert:1")
    exact = {name: num_episodes * share / sum(shares.values()) for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: counts[n] - exact[n])[: num_episodes - sum(counts.values())]:
        counts[name] += 1
    return counts


def plan(args: Args) -> list[Any]:
    """Every episode that was asked for, in the order of the store.

    Raises:
        ValueError: an unknown task, kitchen or kind, none at all, a number out of range, or options that do not go
            together.
    """
    from ptr_robot.sim.demonstrators import FRAGMENTS
    from ptr_robot.sim.environment import check_cameras, check_observable, check_options
    from ptr_robot.sim.episodes import EpisodeKey
    from ptr_robot.sim.kitchens import find_kitchen
    from ptr_robot.sim.tasks import PUT_TASKS, find_task

    num_episodes = 40 if args.episodes is None else args.episodes
    for name, value, low in (("episodes", num_episodes, 1), ("workers", args.workers, 1), ("seed", args.seed, 0)):
        if value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")
    check_options(**{name: value for name, value in environment_options(args).items() if isinstance(value, int)})
    if args.observe == "frames":
        check_cameras(args.cameras)
    elif args.cameras != Args(out=args.out).cameras:
        raise ValueError(f"cameras {' '.join(args.cameras)}: observe state stores no frame; leave one of the two out")
    if not 1 <= args.jpeg_quality <= 100:
        raise ValueError(f"jpeg-quality must lie in 1..100, got {args.jpeg_quality}")
    for name in ("task", "kitchens"):
        if not getattr(args, name):
            raise ValueError(f"{name}: name at least one")
    counts = parse_kinds(args.kinds, num_episodes)
    if args.only_success and "pick" in counts:
        raise ValueError("only-success: episodes of kind pick never end in success; leave one of the two out")
    tasks = dict.fromkeys(find_task(task).instruction for task in args.task)
    for task in tasks:
        check_observable(args.observe, find_task(task))
        halves = [kind for kind in counts if kind in FRAGMENTS]
        if halves and task not in PUT_TASKS:
            raise ValueError(f"kinds: {halves} are of tasks 'put <object> in|on <container>' alone, not of {task!r}")
    kitchens = dict.fromkeys(find_kitchen(name).name for name in args.kitchens)
    return [
        EpisodeKey(task=task, kitchen=kitchen, kind=kind, seed=args.seed, index=index)  # type: ignore[arg-type]
        for task in tasks
        for kitchen in kitchens
        for kind, count in counts.items()
        for index in range(count)
    ]


def episode_id(key: Any) -> str:
    """Name of an episode in the store."""
    return f"{key.task}/{key.kitchen}/{key.kind}/{key.seed}/{key.index:05d}"


def environment_options(args: Args) -> dict[str, Any]:
    """What the environment is made with; an episode depends on it and on its key."""
    return {
        "image_size": args.image_size,
        "action_repeat": args.action_repeat,
        "max_steps": args.max_steps,
        "start": args.start,
        "distractors": args.distractors,
        "observe": args.observe,
    }


def store_meta(args: Args) -> Any:
    """Meta of the store that these options make."""
    from dataclasses import replace

    from ptr_fast.data.store import StoreMeta
    from ptr_robot.sim.environment import action_spec, camera_spec, state_spec
    from ptr_robot.sim.worlds import World

    source: dict[str, Any] = {"format": "toy kitchens", **environment_options(args)}
    source["task_per_kitchen"] = args.task_per_kitchen
    source["only_success"] = args.only_success
    source["expert_stores"] = "executed"
    if args.observe == "frames" and args.encoding == "jpeg":
        source["jpeg_quality"] = args.jpeg_quality
    names = args.cameras if args.observe == "frames" else ()
    return StoreMeta(
        cameras=tuple(replace(camera_spec(args.image_size, name), encoding=args.encoding) for name in names),
        action=action_spec(args.action_repeat),
        state=state_spec(args.observe),
        control_hz=World.STEP_HZ / args.action_repeat,
        source=source,
    )


def _check_same_options(path: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    stored = {"observe": "frames", "only_success": False, **stored}  # stores from before there was a choice
    for name in sorted({*stored, *wanted} - {"expert_stores"}):  # see _check_same_labels
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"{path}: cannot add to this store, {name} differs: "
                f"it has {stored.get(name)!r}, asked for {wanted.get(name)!r}"
            )


def _check_same_labels(args: Args, stored: dict[str, Any]) -> None:
    """Refuses to mix clean and executed commands under one name."""
    experts = [kind for kind in parse_kinds(args.kinds, 1) if kind in ("expert", "expert-clean")]
    if experts and stored.get("expert_stores") != "executed":
        raise ValueError(
            f"{args.out}: cannot add episodes of kind {experts[0]} to this store: it was made when kind expert stored "
            "the clean command, which is kind expert-clean now; collect into another store"
        )


def _recorded(args: Args, keys: Sequence[Any]) -> Iterator[Any]:
    """The episodes of ``keys``, in their order, made by the worker processes."""
    from ptr_fast.data.store import Episode
    from ptr_robot.sim.episodes import RecordingJob, run_job
    from ptr_robot.sim.tasks import store_task_name
    from ptr_robot.sim.workers import ordered_map

    quality = args.jpeg_quality if args.encoding == "jpeg" else None
    options: dict[str, Any] = {**environment_options(args), "cameras": args.cameras}
    jobs = [
        RecordingJob(keys=tuple(chunk), options=options, only_success=args.only_success, jpeg_quality=quality)
        for chunk in _chunks(keys)
    ]
    for job, recorded in zip(jobs, ordered_map(run_job, jobs, args.workers), strict=True):
        for key, episode in zip(job.keys, recorded, strict=True):
            yield Episode(
                episode_id=episode_id(key),
                task=store_task_name(key.task, key.kitchen, per_kitchen=args.task_per_kitchen),
                states=episode.states,
                actions=episode.actions,
                frames=episode.frames,
                outcome=episode.outcome,
                kind=key.kind,
                domain=key.kitchen,
                source=", ".join(filter(None, ["toy kitchens", f"attempt {episode.attempt}", episode.who])),
            )


def _chunks(keys: Iterable[Any], size: int = 4) -> Iterator[list[Any]]:
    """Runs of at most ``size`` keys of one task and kitchen: a worker makes one environment for each change."""
    chunk: list[Any] = []
    for key in keys:
        if chunk and (len(chunk) == size or (chunk[0].task, chunk[0].kitchen) != (key.task, key.kitchen)):
            yield chunk
            chunk = []
        chunk.append(key)
    if chunk:
        yield chunk


def _print_summary(path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from ptr_fast.data.store import EpisodeStore

    store = EpisodeStore.open(path)
    rows: dict[tuple[str, str, str], Counter[str]] = {}
    table = store.episodes
    for task, kitchen, kind, outcome, steps in zip(
        table.task, table.domain, table.kind, table.outcome, table.num_steps, strict=True
    ):
        row = rows.setdefault((task, kitchen, kind), Counter())
        row.update({"episodes": 1, "steps": int(steps), outcome: 1})
    out = Table(title=f"{path}: {store.num_episodes} episodes, {store.num_steps} steps")
    for column in ("task", "kitchen", "kind", "episodes", "succeeded", "mean steps"):
        out.add_column(column, justify="right" if column in ("episodes", "succeeded", "mean steps") else "left")
    for (task, kitchen, kind), row in rows.items():
        n = row["episodes"]
        out.add_row(task, kitchen, kind, str(n), str(row["success"]), f"{row['steps'] / n:.1f}")
    Console(markup=False).print(out)
