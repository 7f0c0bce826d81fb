"""One of our policies as a LeRobot policy: it acts, and in ``lerobot-train`` its own learner does the updates.

Shapes: B samples, T observations, H actions of a chunk, S state, A action.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from functools import cached_property
from itertools import count
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor, nn

from lerobot_policy_ptr.configuration_ptr import PTRConfig
from lerobot_policy_ptr.data_ptr import CAMERA, SUPPORTED, Labels, frames_of, labels_of, spec_of, training_data
from ptr_fast.config import ActConfig, PolicySpec, from_dict, to_dict
from ptr_fast.learners.registry import acts_of, make_networks
from ptr_fast.runtime.graph import noise_for
from ptr_fast.runtime.preprocess import to_unit
from ptr_fast.types import Batch

__all__ = ["PTRPolicy"]


class PTRPolicy(PreTrainedPolicy):
    """See the module.

    Args:
        config: with a checkpoint of ours in ``ptr``, or a recipe that is to be trained on ``dataset_meta``.

    Raises:
        ValueError: there is neither; or the data set has not what the learner needs.
    """

    config_class = PTRConfig
    name = "ptr"

    def __init__(self, config: PTRConfig, dataset_stats: Any = None, dataset_meta: Any = None, **_: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self._meta, self._learner = dataset_meta, None
        if not config.ptr:
            if dataset_meta is None:
                raise ValueError("policy ptr: there is no checkpoint to load and no data set to train on")
            self._refuse_other_columns()
            learner, act = config.learner, _act_of(config)
            spec = to_dict(spec_of(dataset_meta, config.image_size))
            config.ptr = json.dumps({"learner": to_dict(learner), "spec": spec, "act": to_dict(act)})
        told = json.loads(config.ptr)
        self.spec: PolicySpec = from_dict(PolicySpec, told["spec"], "spec")
        self.act_config: ActConfig = from_dict(ActConfig, told["act"], "act")
        self.networks = nn.ModuleDict(make_networks(config.learner, self.spec, list(config.traits.networks)))
        self.networks.requires_grad_(False)
        self.unread = nn.Parameter(torch.zeros(1))
        self.num_updates: Tensor
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self.reset()

    def get_optim_params(self) -> list[nn.Parameter]:
        """The parameter that nothing reads: the learner has optimisers of its own."""
        return [self.unread]

    def reset(self) -> None:
        """The start of an episode."""
        self._past: deque[tuple[dict[str, Tensor], Tensor]] = deque(maxlen=self.config.traits.window.num_observations)
        self._chunk: deque[Tensor] = deque()
        self._seeds = count(self.config.seed)

    # Acting

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """The action ``[B, A]`` of this control period, raw units: the next one of the last chunk."""
        if not self._chunk:
            self._chunk.extend(self.predict_action_chunk(batch).unbind(dim=1))
        else:
            self._observe(batch)
        return self._chunk.popleft()

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """Actions float32 ``[B, H, A]``, raw units, of the newest observations."""
        self._observe(batch)
        past = [self._past[0]] * (self._past.maxlen - len(self._past)) + list(self._past)
        state_BTS = torch.stack([state for _, state in past], dim=1)
        images = {}
        for camera in self.spec.cameras:
            frames = torch.stack([frames[camera.name] for frames, _ in past], dim=1)
            images[camera.name] = to_unit(frames.flatten(0, 1))
        return self._unscaled(self._acted(images, state_BTS, self._task_id(batch, len(state_BTS))))

    def _observe(self, batch: dict[str, Any]) -> None:
        frames = {c.name: frames_of(batch[_key(batch, c.name)], c) for c in self.spec.cameras}
        self._past.append((frames, batch["observation.state"].float()))

    def _acted(self, images: dict[str, Tensor], state_BTS: Tensor, task_id_B: Tensor) -> Tensor:
        acts = acts_of(self.config.learner)
        module = acts.acting_module(dict(self.networks), self.act_config, self.spec)
        shape, noise = acts.noise_shape(self.act_config, self.spec), []
        if shape is not None:
            rows = [noise_for(next(self._seeds), shape) for _ in range(len(state_BTS))]
            noise = [torch.stack(rows).to(state_BTS.device)]
        return module(images, state_BTS, task_id_B, *noise)

    def _unscaled(self, scaled: Tensor) -> Tensor:
        low, high = (scaled.new_tensor(bound) for bound in (self.spec.action.low, self.spec.action.high))
        return (scaled + 1.0) * (0.5 * (high - low)) + low

    def _task_id(self, batch: dict[str, Any], num: int) -> Tensor:
        tasks = batch.get("task", [])
        tasks = [tasks] * num if isinstance(tasks, str) else list(tasks)
        if len(tasks) != num:
            raise ValueError(f"policy ptr: expected the task of {num} observations, got {len(tasks)}")
        slots = [self.spec.tasks.slot(str(task)) for task in tasks]
        return torch.tensor(slots, device=self.unread.device)

    # Training

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """In training one update of the learner on the batch; else the error of the actions. Both tell their loss.

        Returns:
            The learner's losses, summed, whose gradient is zero as the update is done; and what it reports.
        """
        seen = self._batch(batch)
        if not self.training:
            with torch.no_grad():
                images = {name: to_unit(frames.flatten(0, 1)) for name, frames in seen.images.items()}
                acted = self._acted(images, seen.state, seen.task_id)
                error = (acted[:, 0] - seen.actions[:, 0]).square().mean()
            return error, {"action_error": float(error)}
        if self._learner is None:
            self._learner = self._begin()
        with torch.enable_grad():
            info = self._learner.update(seen.to(self.unread.device), int(self.num_updates))
        self.num_updates += 1
        losses = [value for key, value in info.items() if key.startswith("train/") and key.endswith("_loss")]
        told = {key: float(value) for key, value in info.items()}
        return torch.stack(losses).sum().detach() + 0.0 * self.unread.sum(), told

    def _begin(self) -> Any:
        """The learner on the device where the policy is, with its weights; a fresh one looks at the data first."""
        from ptr_fast.learners import make_learner
        from ptr_fast.learners.distributed import Ranks
        from ptr_fast.learners.preparation import prepare

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise ValueError("policy ptr: trains in one process; start lerobot-train without several of them")
        if self._meta is None:
            raise ValueError("policy ptr: to train it needs the data set's metadata, which nobody gave it")
        self._refuse_other_columns()
        learner = make_learner(self.config.learner, self.spec, self.config.seed, self.unread.device)
        networks = learner.networks()
        if self.num_updates > 0:
            logging.warning("policy ptr: goes on from update %d with fresh moments of its optimisers", self.num_updates)
            for name, module in networks.items():
                module.load_state_dict(self.networks[name].state_dict())
        else:
            prepare(learner, lambda: training_data(self._meta, self.spec, self._labels), Ranks())
        self.networks = nn.ModuleDict(networks)
        return learner

    def _refuse_other_columns(self) -> None:
        if others := self.config.traits.columns - SUPPORTED:
            told = f"{self.config.traits.name} needs {', '.join(sorted(others))}"
            raise ValueError(f"policy ptr: {told}, which are not made of LeRobot data sets")
        _ = self._labels

    @cached_property
    def _labels(self) -> Labels | None:
        """Of the data set; None where it has rewards of its own, or the learner needs none."""
        config = self.config
        if not config.needs_next:
            return None
        labels = labels_of(self._meta, config.rewards, config.traits.discount, config.outcome)
        if labels is None and (config.rewards.num_steps > 1 or config.rewards.lower_bound_returns):
            logging.warning(
                "policy ptr: the data set's own rewards are looked at one step ahead, not as the recipe does"
            )
        return labels

    def _batch(self, batch: dict[str, Any]) -> Batch:
        """A LeRobot batch as one of ours."""
        past, needs_next = self.config.traits.window.num_observations, self.config.needs_next and self.training
        state = batch["observation.state"].float()
        frames = {c.name: frames_of(batch[_key(batch, c.name)], c) for c in self.spec.cameras}
        pad = batch.get("observation.state_is_pad", torch.zeros(state.shape[:2], dtype=torch.bool))
        scaled = self.spec.action.scale(batch["action"].float().cpu().numpy())
        action_pad = batch.get("action_is_pad", torch.zeros(scaled.shape[:2], dtype=torch.bool))
        columns: dict[str, Any] = {
            "images": {name: each[:, :past] for name, each in frames.items()},
            "state": state[:, :past],
            "observation_mask": ~pad[:, :past],
            "task_id": self._task_id(batch, len(state)),
            "actions": torch.from_numpy(scaled).to(state.device),
            "action_mask": ~action_pad,
        }
        if needs_next:
            columns |= self._ahead(batch, frames, state)
        wanted = self.config.traits.columns if self.training else {"images", "state", "task_id", "actions"}
        wanted = wanted | ({"returns"} if needs_next else set())
        return Batch(**{name: value for name, value in columns.items() if name in wanted})

    def _ahead(self, batch: dict[str, Any], frames: dict[str, Tensor], state: Tensor) -> dict[str, Any]:
        """Next observations, rewards and masks: of the data set, or the recipe's where the outcome was stated."""
        past, labels = self.config.traits.window.num_observations, self._labels
        if labels is None:
            done = batch.get("next.done", torch.zeros(len(state))).reshape(-1)
            columns = {"rewards": batch["next.reward"].reshape(-1).float(), "masks": 1.0 - done.float()}
            steps = torch.ones(len(state), dtype=torch.int64)
        else:
            index = batch["index"].reshape(-1).cpu().numpy()
            columns = {
                "rewards": torch.from_numpy(labels.rewards[index]),
                "masks": torch.from_numpy(labels.masks[index]),
            }
            columns |= {} if labels.returns is None else {"returns": torch.from_numpy(labels.returns[index])}
            steps = torch.from_numpy(labels.steps[index])
        # Frames past the end of an episode repeat its last one.
        seen_BT = steps[:, None] + torch.arange(past)
        rows_B1 = torch.arange(len(state))[:, None]
        columns = {name: value.to(state.device) for name, value in columns.items()}
        next_images = {name: each[rows_B1, seen_BT] for name, each in frames.items()}
        return {**columns, "next_images": next_images, "next_state": state[rows_B1, seen_BT]}


def _key(batch: dict[str, Any], camera: str) -> str:
    key = CAMERA + camera
    return key if key in batch or camera not in batch else camera


def _act_of(config: PTRConfig) -> ActConfig:
    from ptr_robot.recipes import recipe_named

    return recipe_named(config.recipe).act
