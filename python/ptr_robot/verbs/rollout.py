"""Try a policy: in a simulated toy kitchen (as fast as it goes), or with --robot on a robot in real time.

The starts depend on the seed alone, so two policies tried with one seed meet the same starts. Trials that are on disk
already are not run again. On a robot every command passes the safety filter; s, f and space on the keyboard judge and
stop a trial, Ctrl-C stops the arm and keeps what is finished.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ptr_fast.types import MAX_SEED
from ptr_robot.acting_options import ActingOptions
from ptr_robot.steering.log import SteeringLog
from ptr_robot.steering.options import NOT_WITH_STEER, SteeringOptions

__all__ = ["Args", "main", "rollout"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        run: Run to try (the checkpoint that select picked, else the newest that has not diverged), or one checkpoint.
        checkpoint: The same as --run, as other verbs call it, e.g. RUN or RUN/checkpoints/000500.
        policy: What to try; random and expert need no checkpoint.
        task: Instruction, also what the policy is told unless policy-task says otherwise.
        kitchen: Toy kitchen, a letter from A to H.
        trials: How many trials.
        seed: Seed of the starting positions, and of the noise of modes that draw any.
        policy_task: Task name that the policy is told, where it differs from the instruction.
        task_per_kitchen: Tell the policy "put block on plate [kitchen E]", as collect with this option calls it.
        start: Range of the starting positions of put tasks: easy; wide; left, as wide with the object in the left
            third; far, as easy with the hand far off.
        distractors: Other objects on the table, 0 to 5 (put tasks).
        max_steps: Decisions per trial, at most.
        frame_delay: How old the frame is that the policy sees, in decisions, as with a late camera.
        state_delay: How old the state is that the policy sees, in decisions; with the same frame-delay, actions act so
            late.
        play: How chunks of actions are played, of a policy that answers with several: receding one after the other, and
            the policy is asked again after --execute of them; ensemble asks in every step and plays the weighted mean
            of what all its chunks want for it (ACT); latency lets the policy compute beside the loop and plays the
            entry that belongs to the moment when the command reaches the arm.
        execute: Steps (control periods) between two requests to the policy, at least. Default: a whole chunk
            with --play receding, else 1.
        ensemble_decay: m of the ensemble's weights exp(-m i), i = 0 for the oldest chunk; 0 weighs all alike, below 0
            the newest weigh most. The default is ACT's.
        video: Film trials at half speed, into a folder beside the result.
        videos: How many trials to film, with --videos-of outcomes so many of each.
        videos_of: The first trials, or outcomes: the first successes and the first failures, played once more.
        video_size: Height and width of the videos, pixels.
        label: Name in tables. Default: the run's name, random or expert.
        out: Result, a JSON file; with --robot a folder. Default: in the run's rollouts, or in outputs/rollouts.
        workers: Processes that try side by side in toy kitchens; each acts on one CPU thread.
        robot: Try it on this robot in real time: simulated, replay, widowx or lerobot:TYPE.
        robot_options: NAME=VALUE options of the robot, e.g. kitchen=H latency_ms=50 cameras=front,wrist (simulated),
            store=DIR episode=3 (replay), host=ADDRESS (widowx), port=/dev/ttyACM0 use_degrees=false (lerobot:TYPE).
        against: Other runs or checkpoints that are tried in turns with the first, in blinded random
            order (with --robot).
        remote: Ask the policy server at this URL (ws://HOST:PORT or wss://) instead of loading a
            checkpoint (with --robot). The environment's PTR_FAST_TOKEN is sent to it.
        ca_file: Certificates (PEM) that the server's may be signed by, or its own, instead of the system's (wss://).
        device: Where the policy runs on a robot; auto takes a GPU where there is one and the engine runs on it.
        engine: What computes the actions on a robot: auto the fastest installed one that agrees with eager, and says
            which; eager the very numbers of training; onnxruntime, openvino, compile, cuda_graph on a GPU, or a file of
            ptr-fast export (with --int8 the fastest on a CPU).
        camera_map: ROBOT=CHECKPOINT pairs: which camera of the robot (or toy kitchen) shows what the checkpoint calls
            by another name.
        limits: File of safety limits instead of the robot's own; a LeRobot robot needs one. The module
            python/ptr_robot/robots/limits_file.py tells the format, and examples/limits_so101.json is one to fill in.
        record: Store that the trials on a robot are added to as episodes, to train on; made where there is none.
        dry_run: Everything runs, and the robot gets no commands.
        realtime_priority: SCHED_FIFO priority of the control loop, 1 to 98; 0 leaves it as it is. Needs the right
            to (CAP_SYS_NICE).
        stop_file: The arm stops as soon as this file exists, and no trial begins while it does (with --robot).
        acting: How all checkpoints act that are tried, where it is to be otherwise than they say themselves.
        steering: Another policy proposes, the checkpoint's critic chooses.
    """

    run: Path | None = None
    checkpoint: Path | None = None
    policy: Literal["checkpoint", "random", "expert"] = "checkpoint"
    task: str = "put block on plate"
    kitchen: str = "A"
    trials: int = 20
    seed: int = 0
    policy_task: str = ""
    task_per_kitchen: bool = False
    start: Literal["easy", "wide", "left", "far"] = "easy"
    distractors: int = 0
    max_steps: int = 60
    frame_delay: int = 0
    state_delay: int = 0
    play: Literal["receding", "ensemble", "latency"] = "receding"
    execute: int = 0
    ensemble_decay: float = 0.01
    video: Literal["gif", "mp4", "none"] = "none"
    videos: int = 5
    videos_of: Literal["first", "outcomes"] = "first"
    video_size: int = 256
    label: str = ""
    out: Path | None = None
    workers: int = 2
    robot: str = ""
    robot_options: tuple[str, ...] = ()
    against: tuple[Path, ...] = ()
    remote: str = ""
    ca_file: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: str = "auto"
    camera_map: tuple[str, ...] = ()
    limits: Path | None = None
    record: Path | None = None
    dry_run: bool = False
    realtime_priority: int = 0
    stop_file: Path | None = None
    acting: Annotated[ActingOptions, tyro.conf.arg(name="")] = ActingOptions()
    steering: Annotated[SteeringOptions, tyro.conf.arg(name="")] = SteeringOptions()


ON_A_ROBOT = (
    *("against", "remote", "ca_file", "robot_options", "device", "engine", "limits", "record", "dry_run"),
    *("realtime_priority", "stop_file"),
)
IN_A_KITCHEN = (
    *("policy", "kitchen", "task_per_kitchen", "start", "distractors", "frame_delay", "state_delay", "videos"),
    *("videos_of", "video_size", "workers"),
)
NOT_STEERED = ("policy", "engine", "against", "remote")
OF_A_CHECKPOINT = ("run", "checkpoint", "against", "device", "engine", "label")
OF_NO_SERVER = "is of a checkpoint, not with --remote"


def main(args: Args) -> int:
    """Runs the trials, prints and writes the result."""
    for name, lowest, highest in (
        ("trials", 1, 10_000),
        ("max_steps", 1, 1_000_000),
        ("execute", 0, 1024),
        ("seed", 0, MAX_SEED),
        ("frame_delay", 0, 1000),
        ("state_delay", 0, 1000),
        ("videos", 0, 10_000),
        ("video_size", 16, 4096),
    ):
        if not lowest <= getattr(args, name) <= highest:
            option = name.replace("_", "-")
            raise ValueError(f"{option} must lie in {lowest} to {highest}, got {getattr(args, name)}")
    if args.play != "ensemble" and args.ensemble_decay != Args.ensemble_decay:
        raise ValueError("--ensemble-decay does nothing without --play ensemble")
    args.steering.check()
    if args.steering.steer:
        _refuse(args, NOT_STEERED, NOT_WITH_STEER)
        args.acting.refuse(NOT_WITH_STEER)
    if args.robot:
        _refuse(args, IN_A_KITCHEN, "does nothing with --robot (a robot's own are --robot-options NAME=VALUE)")
        return _on_robot(args)
    _refuse(args, ON_A_ROBOT, "needs --robot")
    from ptr_robot.report.runs import told_search

    result = rollout(args)
    low, high = result["interval95"]
    print(
        f"{result['policy']} ({result['mode']}{told_search(result)}), {result['task']}, kitchen {result['kitchen']}: "
        f"{result['successes']}/{result['num_trials']} succeeded (95 % interval {low:.0%} to {high:.0%}), "
        f"mean {result['mean_steps']:.1f} steps"
    )
    if result["reached"] is not None:
        print(f"reached the object {result['reached']}, lifted it {result['lifted']} times")
    if "steering" in result:
        print(f"steering: {SteeringLog(**result['steering']).line()}")
    print(f"wrote {result['file']}")
    return 0


def _refuse(args: Args, names: tuple[str, ...], why: str) -> None:
    """Options that would do nothing are errors: nobody shall believe that one was heeded."""
    default = Args()
    for name in names:
        if getattr(args, name) != getattr(default, name):
            raise ValueError(f"--{name.replace('_', '-')} {why}")


def rollout(args: Args) -> dict[str, Any]:
    """The trials of the verb.

    Returns:
        What was written as JSON: ``policy`` (label), ``mode``, ``checkpoint``, ``step``, ``task``, ``kitchen``,
        ``successes``, ``num_trials``, ``interval95``, ``mean_steps``, ``reached``, ``lifted``, ``plan``, ``trials``;
        ``steered`` and ``steering`` (by what, and its counts) of a steered one; and ``file``, where it was written.

    Raises:
        ValueError: an unknown task or kitchen, a policy that does not fit, or contradicting options.
    """
    from ptr_fast.diagnostics import wilson_interval
    from ptr_fast.files import write_atomically
    from ptr_robot.console.progress import Progress
    from ptr_robot.sim.kitchens import find_kitchen
    from ptr_robot.sim.tasks import find_task, store_task_name
    from ptr_robot.sim.trials import Filming, Trial, TrialPlan, run_trials

    task, kitchen = find_task(args.task).instruction, find_kitchen(args.kitchen).name
    told = args.policy_task or store_task_name(task, kitchen, per_kitchen=args.task_per_kitchen)
    source, about, seen = _source(args, told)
    plan = TrialPlan(
        task=task,
        kitchen=kitchen,
        seed=args.seed,
        policy_task=told,
        max_steps=args.max_steps,
        start=args.start,
        distractors=args.distractors,
        frame_delay=args.frame_delay,
        state_delay=args.state_delay,
        play=args.play,
        execute=args.execute,
        ensemble_decay=args.ensemble_decay,
        **seen,
    )
    out = args.out or _default_out(args, about, plan)
    out.parent.mkdir(parents=True, exist_ok=True)
    filming = None
    if args.video != "none":
        filming = Filming(
            folder=out.with_suffix(""), kind=args.video, number=args.videos, of=args.videos_of, size=args.video_size
        )
    successes = 0
    with Progress(args.trials, "rollout", "trials") as progress:

        def count(trial: Trial) -> None:
            nonlocal successes
            successes += trial.success
            progress.advance(1, succeeded=successes)

        trials = run_trials(
            source, plan, args.trials, num_workers=args.workers, log=out.with_suffix(".jsonl"), about=about,
            filming=filming, each=count,
        )  # fmt: skip
    successes = sum(trial.success for trial in trials)  # a film's trial is played once more, and counts as it went then
    put = trials[0].reached is not None
    logs = [trial.steering for trial in trials if trial.steering is not None]
    result = {
        **about,
        "task": task,
        "kitchen": kitchen,
        "successes": successes,
        "num_trials": len(trials),
        "interval95": wilson_interval(successes, len(trials)),
        "mean_steps": sum(trial.num_steps for trial in trials) / len(trials),
        "reached": sum(bool(trial.reached) for trial in trials) if put else None,
        "lifted": sum(bool(trial.lifted) for trial in trials) if put else None,
        **({"steering": SteeringLog.of(logs).as_dict()} if logs else {}),
        "plan": asdict(plan),
        "trials": [trial.as_dict() for trial in trials],
    }
    write_atomically(out, (json.dumps(result, indent=1) + "\n").encode())
    return {**result, "file": str(out)}


def _on_robot(args: Args) -> int:
    from ptr_fast.runtime.playing import PlayConfig
    from ptr_robot.chosen_checkpoint import chosen_checkpoint
    from ptr_robot.trials.contenders import load_contenders, remote_contender
    from ptr_robot.trials.run import RobotTrials, robot_options, run_robot_trials

    if args.remote:
        _refuse(args, OF_A_CHECKPOINT, OF_NO_SERVER)
        args.acting.refuse(OF_NO_SERVER)
    elif (named := _named(args, " or --remote")) is None:
        raise ValueError("name one of --run, --checkpoint or --remote")
    if args.ca_file and not args.remote:
        raise ValueError("--ca-file needs --remote")
    if args.dry_run and args.record:
        raise ValueError("--dry-run sends no commands, so there is nothing to --record")
    if args.stop_file is not None and not args.stop_file.parent.is_dir():
        raise ValueError(f"stop-file: there is no folder {args.stop_file.parent}")
    if args.remote:
        contenders = [remote_contender(args.remote, os.environ.get("PTR_FAST_TOKEN", ""), args.ca_file)]
    elif args.steering.steer:
        assert named is not None
        contenders = [_steered_contender(args, named)]
    else:
        assert named is not None
        paths = [named, *args.against]
        labels, chosen = _labels(paths, args.label), [chosen_checkpoint(path, moves_an_arm=True) for path in paths]
        contenders = load_contenders(chosen, labels, args.acting, args.device, args.engine)
    words = [args.robot, args.task, *(contender.label for contender in contenders)]
    folder = args.out or Path("outputs/rollouts") / "-".join(w.replace(" ", "_").replace("/", "_") for w in words)
    code = run_robot_trials(
        RobotTrials(
            robot=args.robot,
            options=robot_options(args.robot_options),
            task=args.policy_task or args.task,
            camera_map=args.camera_map,
            play=PlayConfig(play=args.play, execute=args.execute, ensemble_decay=args.ensemble_decay),
            num_trials=args.trials,
            max_steps=args.max_steps,
            seed=args.seed,
            dry_run=args.dry_run,
            realtime_priority=args.realtime_priority,
            video=args.video,
            stop_file=args.stop_file,
            limits=args.limits,
            record=args.record,
            out=folder,
        ),
        contenders,
    )
    if args.steering.steer:
        print(f"steering: {contenders[0].policy.log.line()}")
    return code


def _steered_contender(args: Args, named: Path) -> Any:
    from ptr_robot.chosen_checkpoint import chosen_checkpoint
    from ptr_robot.device import pick_device
    from ptr_robot.steering.steered import load_steered, resolved
    from ptr_robot.trials.contenders import Contender

    path = chosen_checkpoint(named, moves_an_arm=True)
    options = resolved(args.steering, moves_an_arm=True)
    policy = load_steered(path, options, pick_device(args.device))
    label = args.label or f"{_labels([path], '')[0]} steers {_proposer(args)}"
    about = {"label": label, "checkpoint": str(path), "step": policy.info.step, "mode": policy.mode}
    about["steered"] = options.told(policy.source.identity)
    return Contender(label=label, policy=policy, spec=policy.spec, about=about)


def _proposer(args: Args) -> str:
    """Short name of the policy that proposes."""
    name = args.steering.steer
    return name.partition("://")[2] if "://" in name else _labels([Path(name)], "")[0]


def _labels(paths: list[Path], first: str) -> list[str]:
    """Short names, the first one given or made like the others: as many last folders as tell the paths apart.

    Raises:
        ValueError: two are the same path, and no label tells them apart.
    """
    parts = [[part for part in path.resolve().parts if part != "checkpoints"] for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        # A checkpoint's own folder is a number: its run's name goes with it.
        labels = [str(Path(*p[-depth - p[-1].isdecimal() :])) for p in parts]
        labels[0] = first or labels[0]
        if len(set(labels)) == len(labels):
            return labels
    twice = next(label for label in labels if labels.count(label) > 1)
    raise ValueError(f"{twice}: is named twice; --label gives the first one another name")


def _source(args: Args, told: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The policy's source, what identifies it, and what the kitchen shows and takes: fields of the plan of trials."""
    from ptr_robot.sim.environment import FULL_STATE_SPEC
    from ptr_robot.sim.policies import CheckpointSource, ExpertSource, RandomSource

    named = _named(args, ", --policy random or --policy expert")
    if args.policy != "checkpoint":
        if named is not None or args.acting != ActingOptions():
            raise ValueError(f"policy {args.policy!r} takes no run, checkpoint, mode, candidates or elites")
        about: dict[str, Any] = {"policy": args.label or args.policy, "mode": "-", "checkpoint": None, "step": None}
        return (RandomSource() if args.policy == "random" else ExpertSource()), about, {}
    if named is None:
        raise ValueError("name one of --run, --checkpoint, --policy random or --policy expert")
    from ptr_robot.chosen_checkpoint import chosen_checkpoint
    from ptr_robot.evaluation.held_out import run_folder
    from ptr_robot.sim.worlds import World
    from ptr_robot.steering.kitchen import SteeredSource
    from ptr_robot.steering.steered import resolved

    path = chosen_checkpoint(named)
    steered = args.steering.steer
    source: CheckpointSource | SteeredSource
    options = args.steering
    if steered:
        options = resolved(options)
        source = SteeredSource(str(path), options)
    else:
        source = CheckpointSource(str(path), args.acting)
    policy: Any = source.load()
    policy.spec.tasks.slot(told)
    repeat = World.STEP_HZ / policy.spec.control_hz
    if repeat != round(repeat):
        raise ValueError(f"{path}: control rate {policy.spec.control_hz} Hz does not divide {World.STEP_HZ} Hz")
    about = {
        "policy": args.label or run_folder(path).name + (f" steers {_proposer(args)}" if steered else ""),
        "mode": policy.mode,
        "checkpoint": str(policy.info.path),
        "step": policy.info.step,
        "weights": _weights_digest(policy.info.path),
        **({"steered": options.told(policy.source.identity)} if steered else policy.act_config.told()),
    }
    seen: dict[str, Any] = {"action_repeat": round(repeat)}
    if policy.spec.state.names == FULL_STATE_SPEC.names:
        if (units := policy.spec.state.units) != FULL_STATE_SPEC.units:
            told = f"its state is in {', '.join(units)}, the kitchen's in {', '.join(FULL_STATE_SPEC.units)}"
            raise ValueError(f"{path}: {told}: collect the data again and train on them")
        return source, about, {**seen, "observe": "state"}
    size = max((max(camera.height, camera.width) for camera in policy.spec.cameras), default=64)
    cameras = _cameras(args, [camera.name for camera in policy.spec.cameras])
    return source, about, {**seen, "image_size": size, "cameras": cameras}


def _cameras(args: Args, wanted: list[str]) -> tuple[str, ...]:
    """Of the kitchen, in the checkpoint's order. A single camera of an unknown name is the view of the table."""
    from ptr_robot.robots.interface import match_cameras
    from ptr_robot.sim.environment import CAMERA_NAME, CAMERAS

    if len(wanted) == 1 and wanted[0] not in CAMERAS and not args.camera_map:
        return (CAMERA_NAME,)
    return tuple(match_cameras("a toy kitchen", list(CAMERAS), wanted, args.camera_map).values())


def _named(args: Args, others: str) -> Path | None:
    """What --run or --checkpoint names; they mean the same.

    Raises:
        ValueError: both are given.
    """
    if args.run is not None and args.checkpoint is not None:
        raise ValueError(f"name one of --run, --checkpoint{others}")
    return args.run or args.checkpoint


def _weights_digest(checkpoint: Path) -> str:
    """Short digest of a checkpoint's list of files and their checksums."""
    import hashlib

    return hashlib.sha256((checkpoint / "files.json").read_bytes()).hexdigest()[:16]


def _default_out(args: Args, about: dict[str, Any], plan: Any) -> Path:
    from ptr_robot.report.runs import told_plan, told_search

    folder = Path("outputs/rollouts")
    if about["checkpoint"] is not None and Path(about["checkpoint"]).parent.name == "checkpoints":
        folder = Path(about["checkpoint"]).parent.parent / "rollouts"
    words = [about["policy"], *([f"{about['step']}"] if about["step"] is not None else []), about["mode"]]
    words += [plan.task, f"kitchen {plan.kitchen}", f"seed {plan.seed}"]
    usual = Args()
    words += [f"{plan.start} starts"] * (plan.start != usual.start)
    words += [f"{plan.distractors} distractors"] * bool(plan.distractors)
    words += [f"{plan.max_steps} decisions"] * (plan.max_steps != usual.max_steps)
    words += [told_search(about).removeprefix(", ")] * bool(args.acting.candidates or args.acting.elites)
    words += told_plan({"plan": asdict(plan)}).split(", ")[1:]
    return folder / ("-".join(w.replace(" ", "_").replace("/", "_") for w in words if w != "-") + ".json")
