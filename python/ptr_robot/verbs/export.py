"""Write a checkpoint as one ONNX file: a camera's uint8 frame and the state in, an action in the robot's units out.

Resize, division by 255, nets, choice of the action and un-scaling are inside the file; nothing else has to be known.
Before it is written it acts on held-out frames beside the checkpoint itself, and must agree within --bound.
TensorRT takes the same file: trtexec --onnx=policy.onnx --saveEngine=policy.plan (not tested here; check its actions).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

__all__ = ["Args", "largest_difference", "main"]

LARGEST = 8192  # pixels, of a camera's height and width


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb."""

    checkpoint: Path
    """Run (the checkpoint that select picked, else the newest that has not diverged), or one checkpoint."""
    out: Path = Path("policy.onnx")
    """The file; an old one is replaced when the new one has passed its check."""
    camera: str = ""
    """Size of the camera's frames as HEIGHTxWIDTH, e.g. 480x640. Default: the checkpoint's own, nothing is resized."""
    task: str = ""
    """Fix the task. Default: the task is an input (task_id)."""
    mode: Literal["", "mean", "ema_mean", "search"] = ""
    """Acting mode; the file of search has its noise as an input. Default: the checkpoint's own."""
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Store with the frames to check on. Default: the run's own, its held-out episodes; OLD=NEW for one of the run's
    stores that has moved, repeat for several."""
    num_frames: int = 64
    """Frames to check on."""
    bound: float = 0.0
    """Largest difference from the checkpoint's own action, of the action's half range. Default: 0.01, int8 0.05."""
    int8: bool = False
    """Convolutions in 8-bit integers, about three times as fast on a CPU with VNNI; calibrated on other episodes of the
    store than those of the check. rollout and serve take the file as --engine, made without --camera and --task."""
    num_calibration: int = 64
    """Frames that int8 is calibrated on."""


def main(args: Args) -> int:
    """Exports, checks, writes."""
    from ptr_fast.files import write_atomically
    from ptr_fast.runtime.export import CHECKED, add_metadata
    from ptr_fast.runtime.int8 import to_int8
    from ptr_fast.runtime.policy import Policy
    from ptr_robot.chosen_checkpoint import chosen_checkpoint

    bound = args.bound or (0.05 if args.int8 else 0.01)
    if args.num_frames < 1 or args.num_calibration < 1 or not bound > 0.0:
        given = f"{args.num_frames}, {args.num_calibration} and {args.bound:g}"
        raise ValueError(f"num-frames, num-calibration and bound must be positive, got {given}")
    policy = Policy.load(chosen_checkpoint(args.checkpoint), mode=args.mode or None)
    size = _camera_size(args.camera, policy)
    samples = _samples(args, policy)
    model = policy.to_onnx(size, args.task or None)
    if args.int8:
        calibration = _samples(args, policy, for_calibration=True)
        names = policy.graph(size, args.task or None).input_names
        # One frame of the camera's size at a time.
        model = to_int8(model, (_inputs(policy, names, size, i, *one) for i, one in enumerate(calibration)))
    difference = largest_difference(policy, model, samples, args.task)
    told = f"{len(samples)} frames of {size[0]}x{size[1]}: {difference:.1e} of the action's half range"
    if not difference <= bound:
        raise RuntimeError(f"{args.out} is not written: it differs from the checkpoint on {told}, allowed {bound:g}")
    kind = "8-bit convolutions" if args.int8 else "float32"
    model = add_metadata(model, {CHECKED: f"{kind}, largest difference on {told}, allowed {bound:g}"})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out, model)
    inputs = ", ".join(policy.graph(size, args.task or None).input_names)
    print(f"{args.out}: {len(model) / 1e6:.1f} MB, mode {policy.mode}, inputs {inputs}; largest difference on {told}")
    return 0


def largest_difference(
    policy: Any, model: bytes, samples: list[tuple[np.ndarray, np.ndarray, str]], task: str
) -> float:
    """Between an ONNX file's actions and :meth:`Policy.act` on (frame, state, task), of the action's half range.

    Frames are resized to the size that the file takes.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(f"export: {error}; the check needs it: pip install 'ptr-fast[export]'") from error

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    shapes = {item.name: item.shape for item in session.get_inputs()}
    names, (height, width, _) = tuple(shapes), shapes["frame"]
    half_range = 0.5 * (np.asarray(policy.spec.action.high) - np.asarray(policy.spec.action.low))
    worst = 0.0
    for seed, (frame, state, own_task) in enumerate(samples):
        wanted = task or own_task
        inputs = _inputs(policy, names, (height, width), seed, frame, state, wanted)
        (action,) = session.run(["action"], inputs)
        gap = np.abs(action - policy.act(inputs["frame"], state, wanted, seed=seed)) / half_range
        worst = max(worst, float(np.nan_to_num(gap, nan=np.inf).max()))
    return worst


def _inputs(
    policy: Any,
    names: tuple[str, ...],
    size: tuple[int, int],
    seed: int,
    frame: np.ndarray,
    state: np.ndarray,
    task: str,
) -> dict[str, np.ndarray]:
    """What an exported file takes, the frame in its size."""
    from ptr_fast.resize import resize
    from ptr_fast.runtime.graph import search_noise

    given = {
        "frame": resize(frame, *size),
        "state": state,
        "task_id": np.array([policy.spec.tasks.slot(task)]),
        "noise": search_noise(seed, policy.act_config.num_candidates, policy.spec.action.dim)[0].numpy(),
    }
    return {name: given[name] for name in names}


def _camera_size(text: str, policy: Any) -> tuple[int, int]:
    if not text:
        return policy.spec.camera.height, policy.spec.camera.width
    height, x, width = text.partition("x")
    if not (x and height.isdecimal() and width.isdecimal() and int(height) > 0 and int(width) > 0):
        raise ValueError(f"camera: expected HEIGHTxWIDTH, e.g. 480x640, got {text!r}")
    if max(int(height), int(width)) > LARGEST:
        raise ValueError(f"camera: expected at most {LARGEST} pixels, got {text!r}")
    return int(height), int(width)


def _samples(args: Args, policy: Any, for_calibration: bool = False) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Frames spread over episodes, in the store's size, with their states and tasks."""
    from ptr_robot.evaluation.held_out import episodes_of
    from ptr_robot.training.sources import check_matches

    store, episodes, _ = episodes_of(args.store, (), policy.info, any_task=True)
    check_matches(store, policy.spec, with_bounds=False)
    wanted = args.num_frames
    if for_calibration:
        others = np.setdiff1d(np.arange(store.num_episodes), episodes)
        if not len(others):
            raise ValueError(f"int8: {store.path} has no episode to calibrate on beside those of the check")
        wanted = args.num_calibration
        episodes = others[np.unique(np.linspace(0, len(others) - 1, wanted).round().astype(int))].tolist()
    records = np.concatenate([_records(store, episode) for episode in episodes])
    tasks = [task for episode in episodes for task in [store.episodes.task[episode]] * len(_records(store, episode))]
    samples = []
    for i in np.linspace(0, len(records) - 1, min(wanted, len(records))).round().astype(int):
        frame = store.frame(policy.spec.camera.name, int(records[i]))
        known = tasks[i] if tasks[i] in policy.spec.tasks.names else policy.spec.tasks.names[0]
        samples.append((frame, np.asarray(store.state[int(records[i])], np.float32), known))
    return samples


def _records(store: Any, episode: int) -> np.ndarray:
    first = int(store.episodes.first[episode])
    return np.arange(first, first + int(store.episodes.num_steps[episode]))
