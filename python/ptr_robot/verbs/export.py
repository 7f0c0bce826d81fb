"""Write a checkpoint as one ONNX file: cameras' uint8 frames and the state in, actions in the robot's units out.

Resize, division by 255, nets, choice of the action and un-scaling are inside the file; nothing else has to be known.
Before it is written it acts on held-out frames beside the checkpoint itself, and must agree within --bound.
TensorRT takes the same file: trtexec --onnx=policy.onnx --saveEngine=policy.plan (not tested here; check its actions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from ptr_robot.acting_options import ActingOptions

if TYPE_CHECKING:
    from ptr_fast.runtime.observation import Carry, Observation
    from ptr_fast.runtime.policy import Policy

__all__ = ["Args", "largest_difference", "main"]

Sizes = Mapping[str, tuple[int, int]]

LARGEST = 8192  # pixels, of a camera's height and width


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        checkpoint: Run (the checkpoint that select picked, else the newest that has not diverged), or one checkpoint.
        out: The file; an old one is replaced when the new one has passed its check.
        camera: Size of the cameras' frames as HEIGHTxWIDTH, e.g. 480x640. Default: the checkpoint's own, nothing is
            resized.
        task: Fix the task. Default: the task is an input (task_id).
        store: Store with the frames to check on. Default: the run's own, its held-out episodes; OLD=NEW for one of the
            run's stores that has moved, repeat for several.
        camera_map: STORE=CHECKPOINT for every camera of that other store whose name in the checkpoint is another.
        num_frames: Frames to check on.
        bound: Largest difference from the checkpoint's own action, of the action's half range. Default: 0.01,
            int8 0.05.
        int8: Convolutions in 8-bit integers, about three times as fast on a CPU with VNNI; calibrated on other episodes
            of the store than those of the check. rollout and serve take the file as --engine, made without --camera
            and --task, with the same --mode, --candidates and --elites.
        num_calibration: Frames that int8 is calibrated on.
        acting: How the checkpoint acts, where it is to be otherwise than it says itself; the files of modes sample and
            search have their noise as an input.
    """

    checkpoint: Path
    out: Path = Path("policy.onnx")
    camera: str = ""
    task: str = ""
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    camera_map: tuple[str, ...] = ()
    num_frames: int = 64
    bound: float = 0.0
    int8: bool = False
    num_calibration: int = 64
    acting: Annotated[ActingOptions, tyro.conf.arg(name="")] = ActingOptions()


def main(args: Args) -> int:
    """Exports, checks, writes."""
    from ptr_fast.files import write_atomically
    from ptr_fast.runtime.export import CHECKED, add_metadata
    from ptr_fast.runtime.int8 import to_int8
    from ptr_robot.chosen_checkpoint import chosen_checkpoint
    from ptr_robot.report.runs import told_search

    bound = args.bound or (0.05 if args.int8 else 0.01)
    if args.num_frames < 1 or args.num_calibration < 1 or not bound > 0.0:
        given = f"{args.num_frames}, {args.num_calibration} and {args.bound:g}"
        raise ValueError(f"num-frames, num-calibration and bound must be positive, got {given}")
    policy = args.acting.load(chosen_checkpoint(args.checkpoint))
    sizes = _camera_sizes(args.camera, policy)
    samples = _samples(args, policy)
    model = policy.to_onnx(sizes, args.task or None)
    if args.int8:
        calibration = _samples(args, policy, for_calibration=True)
        names = policy.graph(sizes, args.task or None).input_names
        # One observation at a time, its frames in the cameras' sizes.
        model = to_int8(model, (_inputs(policy, names, sizes, i, past) for i, past in enumerate(calibration)))
    difference = largest_difference(policy, model, samples, args.task)
    shapes = " and ".join(dict.fromkeys(f"{height}x{width}" for height, width in sizes.values()))
    told = f"{len(samples)} frames of {shapes}: {difference:.1e} of the action's half range"
    if not difference <= bound:
        raise RuntimeError(f"{args.out} is not written: it differs from the checkpoint on {told}, allowed {bound:g}")
    kind = "8-bit convolutions" if args.int8 else "float32"
    model = add_metadata(model, {CHECKED: f"{kind}, largest difference on {told}, allowed {bound:g}"})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out, model)
    inputs = ", ".join(policy.graph(sizes, args.task or None).input_names)
    mode = policy.mode + told_search(policy.act_config.told())
    print(f"{args.out}: {len(model) / 1e6:.1f} MB, mode {mode}, inputs {inputs}; largest difference on {told}")
    return 0


def largest_difference(policy: Policy, model: bytes, samples: list[Carry], task: str) -> float:
    """Between an ONNX file's answers and :meth:`Policy.act` on past observations, of the action's half range.

    Frames are resized to the sizes that the file takes.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(f"export: {error}; the check needs it: pip install 'ptr-fast[export]'") from error

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    shapes = {item.name: item.shape for item in session.get_inputs()}
    frames = [shapes[name] for name in policy.graph().frame_names]
    sizes = {name: (shape[-3], shape[-2]) for name, shape in zip(policy.frame_sizes, frames, strict=True)}
    half_range = 0.5 * (np.asarray(policy.spec.action.high) - np.asarray(policy.spec.action.low))
    worst = 0.0
    for seed, past in enumerate(samples):
        seen = [fitted(each, sizes, task or each.task) for each in past]
        (answer,) = session.run(["action"], _inputs(policy, tuple(shapes), sizes, seed, seen))
        chunk, _ = policy.act(seen[-1], tuple(seen[:-1]), seed=seed)
        gap = np.abs(answer.reshape(chunk.shape) - chunk) / half_range
        worst = max(worst, float(np.nan_to_num(gap, nan=np.inf).max()))
    return worst


def fitted(observation: Observation, sizes: Sizes, task: str) -> Observation:
    """An observation as cameras of other sizes would have shown it."""
    from ptr_fast.resize import resize

    images = {name: resize(image, *sizes[name]) for name, image in observation.images.items()}
    return replace(observation, images=images, task=task)


def _inputs(
    policy: Policy, names: tuple[str, ...], sizes: Sizes, seed: int, past: Sequence[Observation]
) -> dict[str, np.ndarray]:
    """What an exported file takes, frames in its sizes."""
    short = policy.window.num_observations - len(past)
    given = policy.inputs([past[0]] * short + list(past), seed, sizes)
    return {name: given[name] for name in names}


def _camera_sizes(text: str, policy: Policy) -> dict[str, tuple[int, int]]:
    """Of all cameras alike, or the checkpoint's own."""
    if not text:
        return policy.frame_sizes
    height, x, width = text.partition("x")
    if not (x and height.isdecimal() and width.isdecimal() and int(height) > 0 and int(width) > 0):
        raise ValueError(f"camera: expected HEIGHTxWIDTH, e.g. 480x640, got {text!r}")
    if max(int(height), int(width)) > LARGEST:
        raise ValueError(f"camera: expected at most {LARGEST} pixels, got {text!r}")
    return dict.fromkeys(policy.frame_sizes, (int(height), int(width)))


def _samples(args: Args, policy: Policy, for_calibration: bool = False) -> list[Carry]:
    """Observations spread over episodes, each after those that a policy needs before it; frames in the store's size."""
    from ptr_robot.evaluation.held_out import episodes_of, observed
    from ptr_robot.training.matching import check_matches
    from ptr_robot.training.store_places import StorePlaces

    places = StorePlaces.parse(args.store, takes_given=True, camera_map=args.camera_map)
    store, episodes, _ = episodes_of(places, (), policy.info, any_task=True)
    check_matches(store, policy.spec, with_bounds=False)
    wanted = args.num_frames
    if for_calibration:
        others = np.setdiff1d(np.arange(store.num_episodes), episodes)
        if not len(others):
            raise ValueError(f"int8: {store.path} has no episode to calibrate on beside those of the check")
        wanted = args.num_calibration
        episodes = others[np.unique(np.linspace(0, len(others) - 1, wanted).round().astype(int))].tolist()
    steps = [(episode, t) for episode in episodes for t in range(int(store.episodes.num_steps[episode]))]
    samples = []
    for i in np.linspace(0, len(steps) - 1, min(wanted, len(steps))).round().astype(int):
        episode, t = steps[i]
        own = store.episodes.task[episode]
        known = own if own in policy.spec.tasks.names else policy.spec.tasks.names[0]
        newest, before = observed(store, policy, episode, t, known)
        samples.append((*before, newest))
    return samples
