"""bfloat16 activations against float32: do they learn the same, and what does a step cost?

``python -m benchmarks.bench_precision train bf16 0 FILE`` trains CQL on a task that has to be read off the image (where
a square is decides which action is rewarded) in a precision from a seed, and appends its curves to a file; ``curves
FILE`` makes a row of them. Two seeds of one precision say how far runs differ anyway. ``steps`` times a step.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import cases
from benchmarks.harness import compare, environment, record, rounds
from ptr_fast import native
from ptr_fast.config import AugmentConfig, CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners import CqlLearner
from ptr_fast.types import ActionSpec, Batch, CameraSpec, StateSpec

SIZE, NUM_FRAMES, BATCH = 64, 1024, 8
NUM_STEPS, WINDOW = 2000, 50
DTYPES = {"fp32": None, "bf16": torch.bfloat16}
CURVES = ("train/critic_loss", "train/bellman_loss", "q/data", "q/policy", "q/random", "actor/loss", "error")


def make_data(seed: int) -> Batch:
    """Frames with a bright square at a random place; the rewarded action points at it, half of them are wrong."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(8, SIZE - 8, (NUM_FRAMES, 2))
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    near = np.maximum(np.abs(rows - place[:, :1, None]), np.abs(columns - place[:, 1:, None])) < 6
    frames = rng.integers(40, 120, (NUM_FRAMES, SIZE, SIZE, 3)) + 130 * near[..., None]
    pointing = (place / (SIZE / 2) - 1.0).astype(np.float32) * 0.9
    is_right = rng.random(NUM_FRAMES) < 0.5
    actions = np.where(is_right[:, None], pointing, rng.uniform(-0.9, 0.9, pointing.shape)).astype(np.float32)
    images = torch.from_numpy(np.clip(frames, 0, 255).astype(np.uint8))[:, None]
    return Batch(
        images={"image_0": images},
        next_images={"image_0": images.roll(1, 0)},
        state=torch.zeros(NUM_FRAMES, 1, 2),
        next_state=torch.zeros(NUM_FRAMES, 1, 2),
        task_id=torch.zeros(NUM_FRAMES, dtype=torch.int64),
        actions=torch.from_numpy(actions)[:, None],
        rewards=torch.from_numpy(np.where(is_right, 10.0, -1.0).astype(np.float32)),
        masks=torch.from_numpy(np.where(is_right, 0.0, 1.0).astype(np.float32)),
    )


def rows_of(data: Batch, rows: np.ndarray) -> Batch:
    return data.map(lambda value: value[rows])


def make_learner(dtype: torch.dtype | None, seed: int, encoder: str = "conv3", device: str = "cpu") -> CqlLearner:
    names, units = ("x", "y"), ("1", "1")
    spec = PolicySpec(
        cameras=(CameraSpec(name="image_0", height=SIZE, width=SIZE),),
        state=StateSpec(names=names, units=units),
        action=ActionSpec(names=names, units=units, low=(-1.0,) * 2, high=(1.0,) * 2),
        tasks=TaskTable(names=("point",), num_slots=4),
        control_hz=5.0,
    )
    config = CqlConfig(
        encoder=EncoderConfig(name=encoder, num_filters=8, embedding_dim=64),
        hidden_dims=(64, 64),
        cql_alpha=1.0,
        discount=0.5,
        actor_lr=1e-3,
        critic_lr=1e-3,
        augment=AugmentConfig(crop_padding=0, jitter_probability=0.0),  # a shift would move the target
    )
    return CqlLearner(config, spec, seed, device=device, encoder_dtype=dtype)


@torch.no_grad()
def action_error(learner: CqlLearner, held_out: Batch) -> float:
    """Mean squared error of the mean action on held-out frames whose recorded action is the right one, in float32."""
    right = held_out.rewards > 0
    images = held_out.images["image_0"][right, 0].permute(0, 3, 1, 2).float().div_(255.0)
    actions = learner.actor.mean_action({"image_0": images}, held_out.state[right, 0], held_out.task_id[right])
    return float((actions - held_out.actions[right, 0]).square().mean())


def train(dtype: torch.dtype | None, seed: int, num_steps: int) -> dict[str, list[float]]:
    """Means over ``WINDOW`` updates of every curve; ``error`` at the end of the window."""
    data, held_out = make_data(0), rows_of(make_data(1), np.arange(256))
    learner, rng = make_learner(dtype, seed), np.random.default_rng(seed)
    sums, curves = dict.fromkeys(CURVES, 0.0), {name: [] for name in CURVES}
    for step in range(num_steps):
        info = learner.update(rows_of(data, rng.integers(0, NUM_FRAMES, BATCH)), step)
        for name in CURVES[:-1]:
            sums[name] += float(info[name]) / WINDOW
        if (step + 1) % WINDOW == 0:
            sums["error"] = action_error(learner, held_out)
            for name in CURVES:
                curves[name].append(round(sums[name], 5))
            sums = dict.fromkeys(CURVES, 0.0)
    return curves


def distance(a: list[float], b: list[float]) -> float:
    """Mean distance of two curves over its second half, in units of the range that the first one covers."""
    half = len(a) // 2
    gap = np.abs(np.array(a[half:]) - np.array(b[half:])).mean()
    return round(float(gap / (max(a) - min(a))), 4)


def run_curves(file: Path) -> None:
    runs = {(run["dtype"], run["seed"]): run for run in map(json.loads, file.read_text().splitlines())}
    curves = {key: run["curves"] for key, run in runs.items()}
    num_steps = len(curves["fp32", 0]["error"]) * WINDOW
    pairs = [(curves["fp32", seed], curves[dtype, seed]) for dtype, seed in curves if dtype == "bf16"]
    seeds = curves["fp32", 0], curves["fp32", 1]
    record(
        {
            "name": "precision_curves",
            "case": f"CQL conv3 {SIZE} px B={BATCH}, {num_steps} updates, means of {WINDOW}",
            "bf16_from_fp32": {n: max(distance(a[n], b[n]) for a, b in pairs) for n in CURVES},
            "fp32_from_fp32_of_another_seed": {n: distance(seeds[0][n], seeds[1][n]) for n in CURVES},
            "first_error": {f"{dtype} seed {seed}": c["error"][0] for (dtype, seed), c in curves.items()},
            "last_error": {f"{dtype} seed {seed}": c["error"][-1] for (dtype, seed), c in curves.items()},
            "seconds": {f"{dtype} seed {seed}": run["seconds"] for (dtype, seed), run in runs.items()},
            "curves": {f"{dtype} seed {seed}": c for (dtype, seed), c in curves.items()},
            "environment": environment(),
        }
    )


STEPS = {
    "conv3": cases.StepCase(encoder="conv3", num_batch=64, num_filters=16),
    "resnet_small": cases.StepCase(encoder="resnet_small", num_batch=64),
}


def run_steps(encoder: str) -> None:
    case = STEPS[encoder]
    batch = cases.make_batch(case)
    learners = {name: cases.make_learner(case, encoder_dtype=dtype) for name, dtype in DTYPES.items()}
    losses = {name: float(learner.update(batch, 0)["train/critic_loss"]) for name, learner in learners.items()}

    def gate() -> None:
        np.testing.assert_allclose(losses["bf16"], losses["fp32"], rtol=0.02)

    steps = {name: (lambda learner=learners[name]: learner.update(batch, 1)) for name in ("bf16", "fp32")}
    compare("precision", f"{case}, a step on the CPU", steps, gate, num_rounds=rounds(5))


if __name__ == "__main__":
    torch.set_num_threads(1)
    native.keep_freed_memory()
    if sys.argv[1:2] == ["train"]:
        dtype, seed, file = sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
        begin = time.perf_counter()
        row = {"dtype": dtype, "seed": seed, "curves": train(DTYPES[dtype], seed, NUM_STEPS)}
        with open(file, "a") as out:
            out.write(json.dumps({**row, "seconds": round(time.perf_counter() - begin, 1)}) + "\n")
    elif sys.argv[1:2] == ["curves"]:
        run_curves(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["steps"]:
        for name in sys.argv[2:] or ("conv3", "resnet_small"):
            run_steps(name)
    else:
        sys.exit(__doc__)
