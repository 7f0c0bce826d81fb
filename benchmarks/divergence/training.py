"""One training run of the comparison: the product's learner, frames and step, with numbers that tell what runs away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.divergence.variants import Variant
from ptr_fast import losses
from ptr_fast.checkpoint import CheckpointInfo
from ptr_fast.config import ActConfig, PolicySpec, RewardConfig
from ptr_fast.cuda_graph import CapturedStep, EagerStep, why_not_captured
from ptr_fast.data.device_frames import DeviceFrames
from ptr_fast.data.frames import FrameSource, open_frames
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import EpisodeStore
from ptr_fast.diagnostics import ALARM_SLACK, selection_score, summarize, value_range
from ptr_fast.learners import CqlLearner, Draws
from ptr_fast.learners.cql.terms import cql_info
from ptr_fast.learners.divergence import reported_divergence
from ptr_fast.types import TRANSITION, Batch
from ptr_fast.valuation import value_episode
from ptr_robot.evaluation.metrics import record_of
from ptr_robot.training.config import DataConfig
from ptr_robot.training.episode_choice import select_prior
from ptr_robot.training.matching import make_spec
from ptr_robot.training.sources import Source, transitions_of

__all__ = ["Demonstrations", "Training"]

BATCH_SIZE, LOG_EVERY = 64, 100
GO_ON = 1_000  # updates after the alarm, so that the way out of the range is seen
ACT = ActConfig(mode="search", num_elites=10)
SHOWN = (
    "q/data",
    "q/data_min",
    "q/data_max",
    "q/policy",
    "q/random",
    "q/target",
    "train/critic_loss",
    "train/bellman_loss",
    "train/cql_loss",
    "actor/loss",
    "actor/entropy",
    "actor/log_prob_data",
    "actor/std",
    "temperature/value",
    "data/mask",
)


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """The stores of the comparison, frames decoded once, split as pre-training splits them with one seed."""

    config: DataConfig
    sources: list[Source]
    frames: list[dict[str, FrameSource]]
    spec: PolicySpec
    rewards: RewardConfig

    @staticmethod
    def open(stores: tuple[Path, ...], seed: int) -> Demonstrations:
        config = DataConfig(stores=tuple(store.resolve() for store in stores))
        sources = select_prior(config, seed)
        spec = make_spec(sources, [], 0)
        frames = [{spec.camera.name: open_frames(source.store, spec.camera.name, num_threads=4)} for source in sources]
        return Demonstrations(config=config, sources=sources, frames=frames, spec=spec, rewards=RewardConfig())

    def held_out(self, most: int) -> list[tuple[EpisodeStore, int]]:
        """At most so many episodes that nothing is trained on, with their stores."""
        found = [(source.store, int(episode)) for source in self.sources for episode in source.validation]
        return found[:: max(1, len(found) // most)][:most]


def _batches(data: Demonstrations, variant: Variant, device: torch.device) -> DeviceFrames:
    """The run's batches, frames on the device, with the variant's targets."""
    is_bounded = variant.backup == "return"
    rewards = replace(data.rewards, num_steps=variant.num_backup_steps, lower_bound_returns=is_bounded)
    discount = variant.config.discount
    tables = [transitions_of(source, data.spec, rewards, source.train, discount) for source in data.sources]
    sampler = MixtureSampler([[len(table) for table in tables]], 1.0, BATCH_SIZE, variant.seed)
    columns = TRANSITION | ({"returns"} if is_bounded else set())
    return DeviceFrames(tables, data.frames, sampler, device, columns=columns)


class _ProbedLearner(CqlLearner):
    """The learner with another rule for the target, and with numbers that show where a target sinks."""

    def __init__(self, variant: Variant, data: Demonstrations, device: torch.device) -> None:
        super().__init__(variant.config, data.spec, variant.seed, device)
        self._backup = variant.backup
        self._limits = value_range(data.rewards, variant.config.discount)

    def update(self, batch: Batch, step: int, draws: Draws | None = None) -> dict[str, torch.Tensor]:
        with self._other_target():
            terms = self.update_with_terms(batch, step, draws)
        target, best = terms.target_B, terms.q_policy_EBK.amin(dim=0).amax(dim=1)
        low, high = self._limits
        return {
            **cql_info(batch, terms),
            "target/min": target.min(),
            "target/max": target.max(),
            "target/share_below": (target < low).float().mean(),
            "target/share_above": (target > high).float().mean(),
            # Per step of an episode the target loses the first (times discount and mask) and gains the second.
            "sink/best_sample_minus_data": (best - terms.q_data_EB.amin(dim=0)).mean(),
            "sink/data_minus_target": (terms.q_data_EB - target).mean(),
        }

    @contextmanager
    def _other_target(self) -> Iterator[None]:
        """Puts this run's rule in the place of the learner's for one update (runs take turns in one process)."""
        own = losses.td_target
        losses.td_target = self._target
        try:
            yield
        finally:
            losses.td_target = own

    def _target(
        self,
        next_q_EBK: torch.Tensor,
        rewards_B: torch.Tensor,
        masks_B: torch.Tensor,
        discount: float,
        returns_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        least_BK = next_q_EBK.amin(dim=0)
        value_B = least_BK.mean(dim=1) if self._backup == "mean" else least_BK.amax(dim=1)
        target_B = rewards_B + discount * masks_B * value_B
        if self._backup == "clipped":
            return target_B.clamp(*self._limits)
        if self._backup == "return":
            assert returns_B is not None
            return torch.maximum(target_B, returns_B)
        return target_B


class Training:
    """One run, a hundred updates at a time.

    Args:
        variant: what is trained.
        data: the demonstrations; only frames are shared with other runs.
        device: a GPU replays the step from a CUDA graph, on a stream of the run's own.

    Attributes:
        done: whether it has ended: all updates made, or ``GO_ON`` updates after the alarm, or not finite.
        alarm: the first update after which the product's own alarm rang, or None.
        curve: what was seen every ``LOG_EVERY`` updates.
    """

    def __init__(self, variant: Variant, data: Demonstrations, device: torch.device) -> None:
        self.variant, self.data, self.device = variant, data, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        with self._on_stream():
            batches = _batches(data, variant, device)
            self.learner = _ProbedLearner(variant, data, device)
            make = EagerStep if why_not_captured(self.learner) else CapturedStep
            self.step = make(self.learner, batches, 0, variant.num_steps + 1)
        self.done, self.alarm = False, None
        self.curve: list[dict[str, Any]] = []
        self._next_look = min(LOG_EVERY, variant.num_steps)

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            yield

    @property
    def until_look(self) -> int:
        """Updates until :meth:`look` is due."""
        return self._next_look - self.step.num_done

    def launch(self) -> None:
        """One update; on a GPU it is only launched."""
        with self._on_stream():
            self.step.run()

    def look(self) -> None:
        """Waits for the updates and writes down what they show; says whether the run has ended."""
        with self._on_stream():
            info, broken = self.step.info, self.step.not_finite()
            numbers = dict(zip(info, torch.stack(list(info.values())).tolist(), strict=True))
        done = self.step.num_done
        found = reported_divergence(numbers, self.data.rewards, self.variant.config, ALARM_SLACK)
        if self.alarm is None and (broken or found):
            self.alarm = broken[1] if broken else done
        shown = {key: value for key, value in numbers.items() if key in SHOWN or key.startswith(("target/", "sink/"))}
        self.curve.append({"step": done, **{key: float(f"{value:.5g}") for key, value in shown.items()}})
        gone = self.alarm is not None and (broken is not None or done >= self.alarm + GO_ON)
        self.done = gone or done >= self.variant.num_steps
        self._next_look = min(done + LOG_EVERY, self.variant.num_steps)

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """What ``ptr-fast evaluate`` says of the final weights on held-out demonstrations, by the averaged networks."""
        config = self.variant.config
        info = CheckpointInfo(
            path=Path(str(self.variant)), step=self.step.num_done, config=config, spec=self.data.spec, act=ACT, run={}
        )
        with self._on_stream():
            values = [
                value_episode(
                    config,
                    self.learner.networks(),
                    record_of(info, store, episode, self.data.rewards),
                    info.spec,
                    averaged=True,
                )
                for store, episode in self.data.held_out(15)
            ]
        metrics = summarize(values, value_range(self.data.rewards, config.discount))
        metrics["score"] = selection_score(metrics, averaged=True)
        return {key: float(f"{value:.4g}") for key, value in metrics.items()}

    def acting_weights(self) -> dict[str, torch.Tensor]:
        """What the search acts by: averaged policy and averaged critic (whose encoder the policy looks through)."""
        nets = {"ema_actor.policy": self.learner.ema_actor.policy, "target_critic": self.learner.target_critic}
        return {
            f"{name}.{key}": value.detach().cpu().contiguous()
            for name, net in nets.items()
            for key, value in net.state_dict().items()
        }
