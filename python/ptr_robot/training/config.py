"""What a training run is told: data, learner, length, saving. Saved whole beside every checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ptr_fast.config import ActConfig, ActMode, LearnerConfig, RewardConfig
from ptr_robot.training.weights import parse_weights

__all__ = [
    "Branch",
    "DataConfig",
    "EncoderFinetuneConfig",
    "FinetuneBranch",
    "FinetuneConfig",
    "LoopConfig",
    "Outcome",
    "Precision",
    "PretrainBranch",
    "PretrainConfig",
    "TargetChoice",
    "TargetConfig",
    "check_mix",
]

Outcome = Literal["success", "failure", "unknown"]
Precision = Literal["auto", "bf16", "tf32", "fp32"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which episodes are trained on.

    Attributes:
        stores: store folders; they must agree in camera sizes, state and action space. None where a run trains on the
            demonstrations of a new task alone (``--target STORE --mix 0``).
        cameras: camera names, in the order of their embeddings; empty takes the first of the store.
        tasks: only these tasks (exact names); empty takes all.
        exclude_tasks: not these tasks.
        domains: only episodes of these domains (kitchens, scenes); empty takes all.
        outcomes: only episodes of these outcomes; empty takes all. Where a store does not say, it is ``unknown``.
        kinds: only episodes of these kinds (who acted: expert, noisy, ...), as the stores name them; empty takes all.
        weights: STORE=FACTOR or task:NAME=FACTOR: how often a step of that store or task is drawn compared with others.
        num_demos: a seeded subset of so many episodes per task; 0 takes all.
        validation_share: share of the episodes of each task held out for evaluation, in [0, 1).
    """

    stores: tuple[Path, ...] = ()
    cameras: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    exclude_tasks: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    kinds: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    num_demos: int = 0
    validation_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.validation_share < 1.0:
            raise ValueError(f"data.validation_share must lie in [0, 1), got {self.validation_share}")
        if self.num_demos < 0:
            raise ValueError(f"data.num_demos must not be negative, got {self.num_demos}")
        parse_weights(self.weights)
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"data.cameras: name each camera once, got {', '.join(self.cameras)}")

    @staticmethod
    def written_before(data: dict[str, Any]) -> dict[str, Any]:
        """JSON values of a run with one camera, as they were written when there could be no other."""
        if "camera" not in data:
            return data
        others = {key: value for key, value in data.items() if key != "camera"}
        return {**others, "cameras": [data["camera"]] if data["camera"] else []}


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Length, saving and reporting of a run.

    Attributes:
        num_steps: gradient updates of every network.
        batch_size: transitions per update, over all processes of the run; a multiple of their number.
        seed: seed of initial weights, sampling, noise, augmentation and the choice of demonstrations.
        log_every: updates between progress lines (nothing is read back from the device in between).
        checkpoint_every: updates between checkpoints; the last step is always saved.
        evaluate_every: updates between evaluations on held-out episodes, whose metrics become curves beside those of
            training; 0 makes none, because each costs time: it looks at most at 20 episodes and about 1000 frames, once
            per network (about a second of a busy core on states, up to minutes with a large encoder).
        keep_last: newest checkpoints that are kept; 0 keeps all.
        keep_best: best checkpoints by what ``ptr-fast select`` ranks by that are kept as well; none where it takes the
            newest.
        device: ``auto`` takes a GPU where there is one.
        precision: of the image encoders: ``bf16`` (activations; weights, norms, heads and losses stay
            float32), ``tf32`` (float32 whose products round their inputs; NVIDIA GPUs only) or ``fp32``. ``auto`` is
            bf16 on a GPU of compute capability 8 or above and fp32 elsewhere; the run keeps what it became.
        deterministic: on a GPU, two runs (and a resumed one) are equal bit by bit, as they always are on the CPU; else
            cuDNN takes the convolutions that are fastest when it tries them.
        num_threads: CPU threads of the learner; 0 takes torch's default.
        frames: where the frames lie: ``device`` (raw pixels, sampled and gathered there), ``device-yuv420`` (the same
            in half the memory: colour at half the resolution, as in most JPEG files), ``host`` (JPEG decoded once
            into memory), ``map`` (raw pixels in the store's memory map) or ``jpeg`` (decoded batch by batch). ``auto``
            takes the first of these that fits what is free.
        memory_gib: host memory for decoded frames, GiB, shared by the run's processes on a machine; 0 takes half of
            what is free.
        rank_timeout_s: in a run of several processes, how long one waits for another that lives and does not answer.
        wandb: Weights & Biases project to log to as well; empty logs to JSONL and TensorBoard only.
        stop_on_divergence: stop, save and explain when Q leaves its possible range or a loss is not finite.
    """

    num_steps: int = 160_000
    batch_size: int = 64
    seed: int = 0
    log_every: int = 100
    checkpoint_every: int = 20_000
    evaluate_every: int = 0
    keep_last: int = 5
    keep_best: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"
    deterministic: bool = False
    num_threads: int = 0
    frames: Literal["auto", "device", "device-yuv420", "device-jpeg", "host", "map", "jpeg"] = "auto"
    memory_gib: float = 0.0
    rank_timeout_s: float = 1800.0
    wandb: str = ""
    stop_on_divergence: bool = True

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.rank_timeout_s <= 1e6:
            raise ValueError(f"rank_timeout_s must lie in (0, 1e6], got {self.rank_timeout_s}")
        if not 0 <= self.memory_gib <= 1e6:
            raise ValueError(f"memory_gib must lie in [0, 1e6], got {self.memory_gib}")
        for name in ("evaluate_every", "keep_last", "keep_best", "num_threads", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


def check_mix(mix: float, critic_mix: float | None = None) -> None:
    """Refuses shares of the other data that batches, or the critic's loss, cannot have.

    Raises:
        ValueError: which of them, and where it has to lie.
    """
    if not 0.0 <= mix < 1.0:
        raise ValueError(f"mix must lie in [0, 1), got {mix}")
    if critic_mix is not None and not 0.0 < critic_mix < 1.0:
        raise ValueError(f"critic_mix must lie in (0, 1), got {critic_mix}")
    if critic_mix is not None and mix == 0.0:
        raise ValueError(f"critic_mix {critic_mix:g} needs a mix above 0: its loss needs samples of both kinds")


@dataclass(frozen=True, kw_only=True)
class TargetChoice:
    """Which demonstrations of a new task are trained on, and how much of the other data with them.

    Attributes:
        target: store with the new task.
        task: task name in the target store; empty where it has only one.
        domains: only target episodes of these domains (kitchens, scenes); empty takes all.
        outcomes: only target episodes of these outcomes; empty takes all.
        kinds: only target episodes of these kinds (who acted), as the store names them; empty takes all.
        num_demos: demonstrations taken from the target, a seeded choice; the others are held out for evaluation.
        mix: share of the other data in every batch, in [0, 1), exact over time; 0 trains on the new task alone.
        camera_map: STORE=POLICY for every camera of the target that the policy knows by another name.
    """

    target: Path | None = None
    task: str = ""
    domains: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    kinds: tuple[str, ...] = ()
    num_demos: int = 10
    mix: float = 0.9
    camera_map: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_demos < 1:
            raise ValueError(f"num_demos must be at least 1, got {self.num_demos}")
        check_mix(self.mix)
        if self.target is None:
            for f in fields(TargetChoice):
                if getattr(self, f.name) != f.default:
                    option = f.name.replace("_", "-")
                    raise ValueError(
                        f"--{option} is about demonstrations of a new task: name their store with --target"
                    )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Train from scratch on one or several stores, and where ``target`` is given on demonstrations of a new task too.

    Attributes:
        out: run folder; must be new or empty.
        data: which episodes.
        joint: the demonstrations of a new task.
        learner: the method and its nets.
        rewards: reward labels, made when the data is loaded.
        act: how the checkpoints act unless told otherwise.
        num_task_slots: width of the task vector; 0 takes the number of tasks plus as many spare ones, at least 8.
        loop: length, saving, reporting.
    """

    out: Path = tyro.MISSING
    data: DataConfig = DataConfig()
    joint: Annotated[TargetChoice, tyro.conf.arg(name="")] = TargetChoice()
    learner: LearnerConfig = tyro.MISSING
    rewards: RewardConfig = RewardConfig()
    act: ActConfig = ActConfig()
    num_task_slots: int = 0
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = LoopConfig()


@dataclass(frozen=True, kw_only=True)
class Branch:
    """What a branch of a run may change; all that is not named is as in the run that it leaves.

    Attributes:
        checkpoint: where it leaves: a run, or one of its checkpoints.
        out: run folder; must be new or empty.
        learner: the method. Its nets stay as they are.
        rewards: reward labels, made when the data is loaded.
        act: how the checkpoints act unless told otherwise.
        loop: length (updates of the run that it leaves included), saving, reporting.
        store: OLD=NEW for every store of the run that has moved; repeat for several.
    """

    checkpoint: Annotated[Path, tyro.conf.arg(name="from")] = tyro.MISSING
    out: Path = tyro.MISSING
    learner: LearnerConfig = tyro.MISSING
    rewards: RewardConfig = RewardConfig()
    act: ActConfig = ActConfig()
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = LoopConfig()
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class PretrainBranch(Branch):
    """A new run that goes on from a checkpoint of pre-training with changed settings.

    Attributes:
        data: which episodes. Where one of these options is given, they are chosen anew, from what the stores hold now;
            what was trained on and what was held out stays so.
    """

    data: DataConfig = DataConfig()


@dataclass(frozen=True, kw_only=True)
class FinetuneBranch(Branch):
    """A new run that goes on from a checkpoint of fine-tuning with changed settings.

    Attributes:
        num_demos: demonstrations taken from the target; more than before are taken from what it holds now.
        mix: share of the old data in every batch, in [0, 1), exact over time.
        critic_mix: share of the old data in the critic's loss, in (0, 1); as much as ``mix`` weighs all samples alike.
    """

    num_demos: int = 10
    mix: float = 0.9
    critic_mix: float | None = None

    def __post_init__(self) -> None:
        check_mix(self.mix, self.critic_mix)


@dataclass(frozen=True, kw_only=True)
class TargetConfig(TargetChoice):
    """Demonstrations of a new task, and the old data that is mixed in: what the checkpoint was trained on, as it was.

    Attributes:
        out: run folder; must be new or empty.
        store: OLD=NEW for every store of the checkpoint's run that has moved; repeat for several.
    """

    target: Path = tyro.MISSING
    out: Path = tyro.MISSING
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TargetConfig):
    """Train a checkpoint on with a few demonstrations of a new task; nothing is re-initialised.

    Attributes:
        checkpoint: run, or one of its checkpoints.
        critic_mix: share of the other data in the critic's loss, in (0, 1), where it is to be another than in the
            clone's, which is that of the batches (``--mix``, here above 0): samples then weigh more or less. For CQL
            with cloned proposals whose clone has its own encoder; None: the batches' own.
        lr_scale: factor on the checkpoint's learning rates.
        lr_schedule: ``constant``, ``cosine`` to zero over this run, or ``same`` as the checkpoint's kind.
        act_mode: how the new checkpoints act; ``same`` as the checkpoint; ``auto`` so too, but of a search among cloned
            proposals the best of few where the critic does not know the task of the demonstrations yet, unless
            act_candidates or act_elites say how many.
        act_candidates: among how many samples the critic chooses in mode ``search``, up to 65536; 0: as many as the
            checkpoint.
        act_elites: of how many of the best the mean is taken, 1 is the single best; 0: as the checkpoint, or 1 where
            those would be all candidates.
        references: NAME=RUN for every other run that the learner refers to and that is to be another one from now on,
            e.g. critic=RUN: one that was fine-tuned on the new task.
        loop: length, saving, reporting.
    """

    checkpoint: Path = tyro.MISSING
    critic_mix: float | None = None
    lr_scale: float = 1.0
    lr_schedule: Literal["same", "constant", "cosine"] = "same"
    act_mode: Literal["auto", "same", ActMode] = "auto"
    act_candidates: int = 0
    act_elites: int = 0
    references: tuple[str, ...] = ()
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = LoopConfig(num_steps=20_000, checkpoint_every=2_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.lr_scale < math.inf:
            raise ValueError(f"lr_scale must be positive and finite, got {self.lr_scale}")
        check_mix(self.mix, self.critic_mix)

    @property
    def names_search(self) -> bool:
        """Whether it says among how many candidates a search chooses."""
        return bool(self.act_candidates or self.act_elites)


@dataclass(frozen=True, kw_only=True)
class EncoderFinetuneConfig(TargetConfig):
    """Train a recipe's learner with the image encoder of another run's checkpoint, whatever learner trained that.

    Attributes:
        encoder_from: run, or one of its checkpoints: its encoder, cameras, state, action and tasks are taken.
        freeze_encoder: its weights stay as they are; else they are trained on. Of a run that has trained the trunk of
            its encoder alone (a masked autoencoder) only that is taken and stays.
        learner: the method and its nets; its encoder must have the shapes of the one that is taken.
        rewards: reward labels, made when the data is loaded.
        act: how the checkpoints act unless told otherwise.
        loop: length, saving, reporting.
    """

    encoder_from: Path = tyro.MISSING
    freeze_encoder: bool = False
    learner: LearnerConfig = tyro.MISSING
    rewards: RewardConfig = RewardConfig()
    act: ActConfig = ActConfig()
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = LoopConfig()
