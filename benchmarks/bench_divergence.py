"""Why the recipe of the toy kitchens left the range of returns, and which change keeps it there.

    ptr-fast collect --out KITCHENS --kitchens A B C --episodes 150 --kinds expert-clean:1.0 --encoding jpeg --seed 1
    python -m benchmarks.bench_divergence --stores KITCHENS --out FOLDER [--seconds 540] [--runs before,alpha]
    python -m benchmarks.bench_divergence --stores KITCHENS --unpack FOLDER
    PTR_FAST_BENCH_RECORD=1 python -m benchmarks.bench_divergence --rows FOLDER

Trains the runs of :mod:`benchmarks.divergence.variants`, several at a time on one GPU, each on a stream of its own.
``FOLDER/divergence.jsonl`` gets the curves of a run when it ends, ``FOLDER/weights-N.safetensors`` the weights that act
of the recipes' runs; a short table comes last. What the limit of time cuts off is written as far as it came. The third
line makes checkpoints of the weights that ``ptr-fast rollout`` takes, the fourth appends a row of every run, with its
curves at every 500 updates, to ``benchmarks/results/divergence.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from benchmarks.divergence.training import ACT, BATCH_SIZE, Demonstrations, Training
from benchmarks.divergence.variants import GRID, Variant
from benchmarks.harness import environment, record
from ptr_fast import native
from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import to_dict
from ptr_fast.learners import make_learner
from ptr_robot.training.config import PretrainConfig
from ptr_robot.training.precision import set_matmul_precision
from ptr_robot.training.processes import choose_kernels
from ptr_robot.training.run_record import RunRecord

SPLIT_SEED = 1
RUNS_A_FILE = 12  # weights of one run are 1.1 MB
CURVES = (
    "q/data",
    "q/policy",
    "q/random",
    "sink/best_sample_minus_data",
    "sink/data_minus_target",
    "temperature/value",
    "actor/entropy",
    "actor/std",
)
HELD_OUT = ("score", "rank_correlation_averaged", "preference", "return_correlation", "return_bias", "action_error")
ROW_EVERY = 500  # updates between the points of a row's curves
RESERVE_SECONDS = 20.0  # to judge and write what runs at the limit


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=Path, nargs="+", default=[])
    parser.add_argument("--out", type=Path, default=Path("outputs/divergence"))
    parser.add_argument("--seconds", type=float, default=540.0, help="limit of everything")
    parser.add_argument("--in-flight", type=int, default=12, help="runs at a time")
    parser.add_argument("--runs", default="", help="names or their beginnings, with commas; all by default")
    parser.add_argument("--num-steps", type=int, default=0, help="updates of every run, for a try")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--unpack", type=Path, help="results folder whose weights become checkpoints")
    parser.add_argument("--rows", type=Path, help="results folder whose runs become rows")
    args = parser.parse_args(argv)
    if args.rows:
        return make_rows(args.rows)
    if not args.stores:
        parser.error("--stores is needed")
    data = Demonstrations.open(tuple(args.stores), SPLIT_SEED)
    if args.unpack:
        return unpack(args.unpack, data)
    asked = [name for name in args.runs.split(",") if name]
    grid = [variant for variant in GRID if not asked or any(str(variant).startswith(name) for name in asked)]
    if args.num_steps:
        grid = [replace(variant, num_steps=args.num_steps) for variant in grid]
    native.keep_freed_memory()
    set_matmul_precision("fp32")  # as on the CPU, where it was seen
    if args.device != "cpu":
        choose_kernels(deterministic=False)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = train_all(grid, data, torch.device(args.device), args.in_flight, time.monotonic() + args.seconds, args.out)
    print_table(rows, grid)
    return 0 if len(rows) == len(grid) else 1


def train_all(
    grid: list[Variant], data: Demonstrations, device: torch.device, in_flight: int, end: float, out: Path
) -> list[dict[str, Any]]:
    """Trains the runs in order, ``in_flight`` at a time, until all are done or the time is over; returns their rows."""
    waiting, running, rows = list(grid), [], []
    weights: dict[str, torch.Tensor] = {}
    begin = told = time.monotonic()
    with open(out / "divergence.jsonl", "a") as file:
        file.write(json.dumps({"environment": environment(), "demonstrations": _sizes(data)}) + "\n")
        while (waiting or running) and time.monotonic() < end - RESERVE_SECONDS:
            while waiting and len(running) < in_flight:
                running.append(Training(waiting.pop(0), data, device))
                running[-1].launch()  # compiles, alone
            for _ in range(min(run.until_look for run in running)):
                for run in running:
                    run.launch()
            for run in running:
                if run.until_look == 0:
                    run.look()
            for run in [run for run in running if run.done]:
                running.remove(run)
                rows.append(_finish(run, file, weights, out))
            if time.monotonic() - told > 15:
                told = time.monotonic()
                steps = ", ".join(f"{run.variant} {run.step.num_done}" for run in running)
                print(f"{told - begin:.0f} s, {len(rows)} of {len(grid)} runs ended: {steps}", flush=True)
        for run in running:
            rows.append(_finish(run, file, weights, out))
    if weights:
        _write_weights(weights, out)
    return rows


def _sizes(data: Demonstrations) -> dict[str, Any]:
    return {
        "stores": [source.store.path.name for source in data.sources],
        "episodes": [len(source.train) for source in data.sources],
        "transitions": [int(source.store.episodes.num_steps[source.train].sum()) for source in data.sources],
    }


def _finish(run: Training, file: Any, weights: dict[str, torch.Tensor], out: Path) -> dict[str, Any]:
    """Judges a run and writes its row and, for a recipe, its weights; returns the row without its curves."""
    variant = run.variant
    row = {
        "run": str(variant),
        **asdict(variant),
        "updates": run.step.num_done,
        "alarm": run.alarm,
        "why_eager": run.step.why_eager,
        "held_out": run.judge(),
        "curve": {key: [point[key] for point in run.curve] for key in run.curve[0]} if run.curve else {},
    }
    file.write(json.dumps(row) + "\n")
    file.flush()
    if variant.keeps_weights:
        weights |= {f"{variant}/{key}": value for key, value in run.acting_weights().items()}
        if len({key.rpartition("/")[0] for key in weights}) == RUNS_A_FILE:
            _write_weights(weights, out)
            weights.clear()
    return row


def _write_weights(weights: dict[str, torch.Tensor], out: Path) -> None:
    number = len(list(out.glob("weights-*.safetensors")))
    safetensors.torch.save_file(weights, out / f"weights-{number}.safetensors")


def print_table(rows: list[dict[str, Any]], grid: list[Variant]) -> None:
    """One line a run, in the grid's order."""
    order = {str(variant): place for place, variant in enumerate(grid)}
    head = f"{'run':34} {'updates':>7} {'alarm':>6} {'Q data':>7} {'lowest':>7} {'sample':>7} {'push':>6} {'temp':>7}"
    print(head + f" {'entropy':>7} {'score':>6} {'rank':>6} {'prefer':>6} {'bias':>6}")
    for row in sorted(rows, key=lambda row: order[row["run"]]):
        curve, metrics = row["curve"], row["held_out"]
        last = {key: values[-1] for key, values in curve.items()}
        print(
            f"{row['run']:34} {row['updates']:7} {row['alarm'] or '-':>6} {last.get('q/data', 0):7.2f} "
            f"{min(curve.get('q/data', [0])):7.2f} {last.get('sink/best_sample_minus_data', 0):7.2f} "
            f"{last.get('sink/data_minus_target', 0):6.2f} {last.get('temperature/value', 0):7.3f} "
            f"{last.get('actor/entropy', 0):7.2f} {metrics['score']:6.3f} {metrics['rank_correlation_averaged']:6.3f} "
            f"{metrics['preference']:6.3f} {metrics['return_bias']:6.2f}"
        )
    if missing := len(grid) - len(rows):
        print(f"no time was left for {missing} of {len(grid)} runs")


def unpack(folder: Path, data: Demonstrations) -> int:
    """Makes a run folder with one checkpoint of every run whose weights were kept."""
    variants = {(variant.name, variant.seed): variant for variant in GRID}
    for path in sorted(folder.glob("weights-*.safetensors")):
        tensors = safetensors.torch.load_file(path)
        for name in sorted({key.rpartition("/")[0] for key in tensors}):
            kind, seed, num_steps = name.rsplit("/", 2)
            variant = replace(variants[kind, int(seed.removeprefix("seed"))], num_steps=int(num_steps))
            learner = make_learner(variant.config, data.spec, variant.seed)
            own = {key.rpartition("/")[2]: value for key, value in tensors.items() if key.startswith(name + "/")}
            for acting, online in (("ema_actor", "actor"), ("target_critic", "critic")):
                mine = {k.removeprefix(f"{acting}."): v for k, v in own.items() if k.startswith(f"{acting}.")}
                for net in (acting, online):  # the online networks do not act in a search
                    loaded = learner.networks()[net].load_state_dict(mine, strict=False)
                    assert not loaded.unexpected_keys, loaded
                    assert all(key.startswith("encoder.") for key in loaded.missing_keys), loaded
            run = folder / "runs" / name.replace("/", "-").replace(" ", "_").replace(",", "")
            config = PretrainConfig(out=run, data=data.config, learner=variant.config, rewards=data.rewards, act=ACT)
            sources = tuple(source.record() for source in data.sources)
            record = RunRecord(verb="pretrain", config=to_dict(config), spec=data.spec, mix=1.0, sources=sources)
            print(save_checkpoint(run, variant.num_steps, learner, data.spec, ACT, record.to_json()))
    return 0


def make_rows(folder: Path) -> int:
    """Records every run of a results folder as a row, where and when it was trained, with thinned curves."""
    where: dict[str, Any] = {}
    for line in (folder / "divergence.jsonl").read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        if "environment" in run:
            where = run
            continue
        curve = run["curve"]
        kept = [place for place, step in enumerate(curve["step"]) if step % ROW_EVERY == 0 or step == run["updates"]]
        record(
            {
                "name": "divergence",
                "case": run["run"],
                "updates": run["updates"],
                "alarm": run["alarm"],
                "last": {key: curve[key][-1] for key in CURVES},
                "lowest q/data": min(curve["q/data"]),
                "held_out": {key: run["held_out"][key] for key in HELD_OUT},
                "curves": {key: [curve[key][place] for place in kept] for key in ("step", *CURVES)},
                "demonstrations": {**where["demonstrations"], "batch_size": BATCH_SIZE},
                "environment": where["environment"],
            }
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
