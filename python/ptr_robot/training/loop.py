"""The training loop: batches in, updates, log lines and checkpoints out; interruptible and exactly resumable."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptr_fast.checkpoint import (
    CheckpointInfo,
    list_checkpoints,
    load_training_state,
    read_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)
from ptr_fast.config import RewardConfig
from ptr_fast.cuda_graph import CapturedStep, EagerStep, why_not_captured
from ptr_fast.diagnostics import ALARM_SLACK
from ptr_fast.errors import DataError
from ptr_fast.learners import make_learner
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.divergence import Divergence, reported_divergence
from ptr_fast.learners.encoder_transfer import take_encoder
from ptr_fast.learners.preparation import prepare
from ptr_fast.learners.registry import traits_of
from ptr_fast.run_folder import picked_step, remove_leftovers
from ptr_fast.value_reach import describe_reach
from ptr_robot.training.batches import Batches, open_batches
from ptr_robot.training.config import LoopConfig
from ptr_robot.training.divergence import last_sound_checkpoint, remedies
from ptr_robot.training.familiarity import ranking_of
from ptr_robot.training.log import RunLog, check_wandb
from ptr_robot.training.precision import encoder_dtype
from ptr_robot.training.processes import StopRequest, branch_command, is_lost_contact, prepare_process, resume_command
from ptr_robot.training.run_folder import write_record
from ptr_robot.training.run_record import RunRecord
from ptr_robot.training.sources import Source, training_data

__all__ = ["Run", "open_run", "train"]

Numbers = dict[str, float]


@dataclass(kw_only=True)
class Run:
    """One training run, ready to go.

    Attributes:
        out: run folder.
        record: all that the run is (note "Record of a run").
        sources: its stores, open, and its episodes.
        learner: a fresh learner, or one that carries the weights to go on from.
    """

    out: Path
    record: RunRecord
    sources: Sequence[Source]
    learner: Any

    @property
    def loop(self) -> LoopConfig:
        """Length, saving, reporting."""
        return self.record.loop

    @property
    def rewards(self) -> RewardConfig:
        """Labels of the transitions."""
        return self.record.rewards


def open_run(
    out: Path,
    record: RunRecord,
    sources: Sequence[Source],
    ranks: Ranks,
    weights: Callable[[], CheckpointInfo] | None = None,
) -> Run:
    """Makes a run from its record, and settles what depends on this machine (precision).

    Args:
        weights: the checkpoint that a run without checkpoints of its own starts from, or takes the image encoder of
            where its record says so; None: from fresh weights.
    """
    traits = traits_of(record.learner)
    if traits.modes and record.act.mode not in traits.modes:
        told = f"{traits.name} acts in the modes {', '.join(traits.modes)}"
        raise ValueError(f"act.mode: expected a mode of the learner ({told}), got {record.act.mode!r}")
    traits.check_rewards(record.rewards)
    loop, device = prepare_process(record.loop, traits.bfloat16)
    record = record.with_config(loop=loop)
    learner: Any = make_learner(record.learner, record.spec, loop.seed, device, encoder_dtype(loop.precision), ranks)
    is_new = not list_checkpoints(out)
    if is_new and (weights is None or record.takes_encoder_alone):
        prepare(learner, lambda: training_data(sources, record.spec, record.rewards, traits.discount), ranks)
    if is_new and weights is not None:
        (take_encoder if record.takes_encoder_alone else load_training_state)(weights(), learner)
    return Run(out=out, record=record, sources=sources, learner=learner)


def train(
    run: Run, best_first: Callable[[Path, str], list[str]], held_out_metrics: Callable[[Run], Callable[[], Numbers]]
) -> int:
    """Trains until ``loop.num_steps`` updates are done, from the newest checkpoint in ``run.out`` where there is one.

    Args:
        best_first: names of a run's checkpoints by its folder and a device, ranked; asked which to keep
            (:func:`ptr_robot.evaluation.ranking.best_first`).
        held_out_metrics: what measures the learner as it is at the moment on held-out episodes; asked where
            ``loop.evaluate_every`` says so (:func:`ptr_robot.evaluation.during_training.held_out_metrics`).

    Returns:
        0; 128 plus the signal's number where one stopped the run after saving; 3 where the divergence alarm did.
    """
    ranks, loop, record = run.learner.ranks, run.loop, run.record
    check_wandb(loop.wandb)
    first_step = _load_newest(run)
    if first_step >= loop.num_steps:
        print(f"{run.out}: already at step {first_step} of {loop.num_steps}; nothing to do")
        return 0
    # Asked before any rank can have saved: all of them have to get the same answer. A few demonstrations can make a
    # policy worse, so what fine-tuning begins with is a checkpoint too.
    saves_start = record.is_finetuning and not list_checkpoints(run.out)
    _tell_reach(run, first_step)
    with _explained(run), contextlib.ExitStack() as stack:
        ranks.check_equal(run.learner.networks())
        batches, tier = open_batches(
            run.sources,
            record.mix,
            record.spec,
            run.rewards,
            loop,
            run.learner.device,
            ranks,
            is_new=first_step == 0,
            traits=traits_of(record.learner),
            critic_mix=record.config.get("critic_mix"),
        )
        stack.enter_context(contextlib.closing(batches))
        if tier == "device-yuv420":  # its pixels are its own: a resumed run learns from the same
            run.record = record.with_config(loop=replace(loop, frames="device-yuv420"))
        if loop.wandb and not record.wandb:
            run.record = replace(run.record, wandb=secrets.token_hex(4))  # of rank 0, which logs and saves
        measure = held_out_metrics(run) if loop.evaluate_every else None  # what it refuses leaves no run behind
        ranks.on_first(lambda: remove_leftovers(run.out))
        ranks.on_first(lambda: write_record(run.out, run.record))
        log = RunLog(
            run.out,
            first_step,
            loop.num_steps,
            loop.wandb,
            run.record.wandb,
            run.record.config,
            ranks,
            traits_of(record.learner),
        )
        stack.enter_context(contextlib.closing(log))
        if saves_start:
            print(f"saved {_save(run, 0)}, what fine-tuning begins with", flush=True)
        return _loop(run, batches, log, stack.enter_context(StopRequest(ranks)), first_step, best_first, measure)


def _tell_reach(run: Run, first_step: int) -> None:
    """Says how far the value of success reaches, of a learner that has a discount; from fresh weights also how fast."""
    traits = traits_of(run.learner.config)
    discount, tau = traits.discount, traits.target_rate
    if discount is None:
        return
    lengths = [
        source.store.episodes.num_steps[i]
        for source in run.sources
        for i in source.train
        if source.store.episodes.outcome[i] != "failure"
    ]
    is_fresh = first_step == 0 and run.record.parent is None
    for told in describe_reach(np.array(lengths), run.rewards, discount, tau if is_fresh else None, run.loop.num_steps):
        print(f"value: {told}")


@contextlib.contextmanager
def _explained(run: Run) -> Iterator[None]:
    """Says what to do about errors that training alone meets: no memory, or another process that is gone."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        what = str(error).partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in what:
            raise RuntimeError(f"out of memory on {run.learner.device}; {_less_memory(run)} ({what})") from error
        if is_lost_contact(error):
            found = list_checkpoints(run.out)
            kept = f"checkpoints up to step {int(found[-1].name)} are kept" if found else "there is no checkpoint yet"
            raise RuntimeError(
                "lost contact with another process of this run: it has died or does not answer (its own message or "
                f"torchrun's summary says why; here: {what}); {kept}; go on with: {resume_command(run.out)}"
            ) from error
        raise


def _less_memory(run: Run) -> str:
    loop = run.loop
    advice = [f"take a --batch-size below {loop.batch_size}"]
    if loop.precision != "bf16" and run.learner.device.type == "cuda":
        advice.append("--precision bf16")
    if loop.frames in ("auto", "device", "device-yuv420"):
        advice.append(f"--frames {'host' if loop.frames == 'device-yuv420' else 'device-yuv420, host'} or map")
    return ", or ".join([*advice, "a smaller encoder, or more GPUs (torchrun)"])


def _load_newest(run: Run) -> int:
    found = list_checkpoints(run.out)
    if not found:
        return run.record.first_step
    info = read_checkpoint(found[-1])
    load_training_state(info, run.learner)
    print(f"going on from {info.path}")
    return info.step


def _make_step(run: Run, batches: Batches, first_step: int) -> EagerStep:
    """Replayed from a CUDA graph where that is possible, else op by op, which is told on a GPU."""
    clock_every = max(1, run.loop.log_every // 64)
    why_not = why_not_captured(run.learner, run.learner.ranks.world_size)
    if why_not is None:
        return CapturedStep(run.learner, batches, first_step, clock_every)
    step = EagerStep(run.learner, batches, first_step, clock_every)
    step.why_eager = why_not
    return step


def _loop(
    run: Run,
    batches: Batches,
    log: RunLog,
    stop: StopRequest,
    first_step: int,
    best_first: Callable[[Path, str], list[str]],
    measure: Callable[[], Numbers] | None,
) -> int:
    ranks = run.learner.ranks
    loop, step, told = run.loop, _make_step(run, batches, first_step), None
    while step.num_done < loop.num_steps:
        step.run()
        done = step.num_done
        if step.why_eager != told:
            told = step.why_eager
            print(f"steps are launched op by op: {told}")
        is_measured = measure is not None and (done % loop.evaluate_every == 0 or done == loop.num_steps)
        if done % loop.log_every == 0 or done == loop.num_steps or is_measured:
            rates, busy = run.learner.learning_rates(done - 1), step.clock.seconds_per_step()
            numbers = log.report(done, step.info, rates, batches.wait_seconds, busy, measure if is_measured else None)
            found = _diverged(step, numbers, run)
            if ranks.largest(found is not None) and loop.stop_on_divergence:
                _alarm(run, found or ELSEWHERE, numbers, done)
                return 3
        signal = stop.agreed()
        if done % loop.checkpoint_every == 0 or done == loop.num_steps or signal:
            ranks.check_equal(run.learner.networks())
            path = _save(run, done)
            ranks.on_first(lambda: _prune(run, best_first))
            print(f"saved {path}", flush=True)
        if signal:
            _warn(run, f"stopped at step {done} of {loop.num_steps}; go on with: {resume_command(run.out)}")
            return 128 + signal
    return 0


def _diverged(step: EagerStep, numbers: dict[str, float], run: Run) -> Divergence | None:
    """What has gone wrong since the last report, by the numbers of every update and of the last one, or None."""
    broken = step.not_finite()
    if broken is None:
        return reported_divergence(numbers, run.rewards, run.learner.config, ALARM_SLACK)
    name, when = broken
    return Divergence(kind="not_finite", name=name, reason=f"{name} was not finite at step {when}")


def _alarm(run: Run, found: Divergence, numbers: dict[str, float], done: int) -> None:
    """Saves a run that has diverged beside its checkpoints and tells what was seen and what to change."""
    path, config = _save(run, done, folder="diverged"), run.learner.config
    lines = [f"divergence alarm at step {done}: {found.reason}", f"saved {path} for a look"]
    action_dim, precision = run.record.spec.action.dim, run.loop.precision
    what = remedies(found, numbers, done, run.rewards, config, action_dim, precision)
    lines += [f"- {remedy}" for remedy in what]
    sound = last_sound_checkpoint(run.out, run.rewards, config)
    again = f"{resume_command(run.out)} would do the same again"
    where = "no checkpoint is from before it: begin anew"
    if sound:
        options = next((remedy.options() for remedy in what if remedy.settings), [])
        where = "go on from the newest checkpoint from before it, in a new run:\n"
        where += branch_command(run.record.verb, sound, run.out, options)
    _warn(run, "\n".join([*lines, f"{again}; {where}"]))


ELSEWHERE = Divergence(kind="not_finite", name="", reason="a number of another process was not finite")


def _warn(run: Run, text: str) -> None:
    if run.learner.ranks.is_first:
        print(text, file=sys.stderr)


def _save(run: Run, step: int, folder: str = "checkpoints") -> Path:
    record = run.record
    save = partial(save_checkpoint, run.out, step, run.learner, record.spec, record.act, record.to_json(), folder)
    run.learner.ranks.on_first(save)
    return run.out / folder / f"{step:06d}"


def _prune(run: Run, best_first: Callable[[Path, str], list[str]]) -> None:
    """Keeps the newest checkpoints, the one that ``ptr-fast select`` picked, and the best by the score it ranks by."""
    loop = run.loop
    if not loop.keep_last:
        return
    older = list_checkpoints(run.out)[: -loop.keep_last]
    if not older:
        return
    try:
        picked = picked_step(run.out)
    except DataError as error:
        print(f"no checkpoint is removed: {error}")
        return
    best = set() if picked is None else {f"{picked:06d}"}
    if loop.keep_best and ranking_of(traits_of(run.learner.config), run.record.familiarity):
        best |= set(best_first(run.out, str(run.learner.device))[: loop.keep_best])
    for path in older:
        if path.name not in best:
            remove_checkpoint(path)
