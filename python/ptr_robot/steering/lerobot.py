"""Proposals of a policy of LeRobot's, in this process: ``lerobot:FOLDER``.

LeRobot is imported when such a policy is loaded, and nothing of it is needed otherwise.

Source: LeRobot ``policies/pretrained.py``, ``policies/factory.py``, and how ``lerobot-rollout`` asks a policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptr_fast.config import PolicySpec
from ptr_fast.resize import resize
from ptr_fast.runtime.observation import Observation
from ptr_fast.types import CameraSpec, Window
from ptr_robot.robots.lerobot import one_line
from ptr_robot.steering.proposals import NoProposalError, Offer, refuse_one_answer

__all__ = ["LEROBOT", "LeRobotProposals"]

LEROBOT = "lerobot:"
IMAGES, STATE, ACTION = "observation.images", "observation.state", "action"
WEIGHTS = "model.safetensors"


class LeRobotProposals:
    """A policy that LeRobot saved, asked for all proposals at once.

    The policy draws its own noise, from the first of the seeds. Of its chunk it proposes as many actions as it would
    play itself (``n_action_steps``).

    Args:
        folder: with config.json, model.safetensors and the processors, e.g. ``.../pretrained_model``.
        num_proposals: K; above 1 only of a policy that draws noise.
        spec: the critic's: sizes of state and action, and a task to ask with first.

    Raises:
        RuntimeError: LeRobot, or what it needs for that policy, is not installed, or it cannot load or ask it.
        ValueError: no such folder, other sizes than the critic's, or all proposals would be the same.
    """

    def __init__(self, folder: Path, num_proposals: int, spec: PolicySpec, device: Any = "cpu") -> None:
        self.name, self._device = f"{LEROBOT}{folder}", torch.device(device)
        for file in ("config.json", WEIGHTS):
            if not (folder / file).is_file():
                raise ValueError(f"{self.name}: expected a policy that LeRobot saved, there is no {folder / file}")
        with (folder / WEIGHTS).open("rb") as weights:
            self.identity: dict[str, str | int] = {"sha256": hashlib.file_digest(weights, "sha256").hexdigest()}
        try:
            self._policy, self._before, self._after = _load(folder, self._device)
        except ModuleNotFoundError as error:
            raise RuntimeError(f"{self.name}: {error}; pip install lerobot and what that policy needs") from error
        except Exception as error:
            raise RuntimeError(f"{self.name}: LeRobot cannot load it: {one_line(error)}") from error
        config = self._policy.config
        self._keys = {key.removeprefix(IMAGES + "."): key for key in config.image_features}
        cameras = tuple(
            CameraSpec(name=name, height=config.image_features[key].shape[1], width=config.image_features[key].shape[2])
            for name, key in self._keys.items()
        )
        _check_sizes(self.name, config, spec)
        self._num_actions = getattr(config, "n_action_steps", None)
        images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in cameras}
        black = Observation(images, np.zeros(spec.state.dim, np.float32), spec.tasks.names[0])
        first, second = self._ask([black] * config.n_obs_steps, [0, 1], {c.name: c for c in cameras})
        same = np.allclose(first, second, rtol=1e-5, atol=1e-5 * float(np.abs(first).max()))
        refuse_one_answer(f"{self.name} ({config.type})", not same, num_proposals)
        self.offer = Offer(
            cameras=cameras,
            state=None,
            action=None,
            tasks=None,
            control_hz=None,
            window=Window(num_observations=config.n_obs_steps, num_actions=len(first)),
        )

    def propose(self, past: Sequence[Observation], seeds: Sequence[int]) -> list[np.ndarray]:
        """See :class:`ptr_robot.steering.proposals.ProposalSource`."""
        assert self.offer.cameras is not None
        try:
            return self._ask(past, seeds, {camera.name: camera for camera in self.offer.cameras})
        except RuntimeError as error:
            raise NoProposalError(str(error)) from error

    def _ask(
        self, past: Sequence[Observation], seeds: Sequence[int], cameras: Mapping[str, CameraSpec]
    ) -> list[np.ndarray]:
        own_noise = torch.random.fork_rng([self._device] if self._device.type == "cuda" else [])
        try:
            with own_noise, torch.inference_mode():
                torch.manual_seed(seeds[0])
                batches = [self._before(self._batch(each, len(seeds), cameras)) for each in past]
                actions_KHA = self._after(self._chunks(batches)[:, : self._num_actions])
        except Exception as error:
            raise RuntimeError(f"{self.name}: LeRobot's policy failed: {one_line(error)}") from error
        return list(actions_KHA.float().cpu().numpy())

    def _batch(self, seen: Observation, num: int, cameras: Mapping[str, CameraSpec]) -> dict[str, Any]:
        """An observation K times, as LeRobot's programs hand it to a policy's processor."""
        batch: dict[str, Any] = {"task": [seen.task] * num, "robot_type": ""}
        for name, key in self._keys.items():
            frame = resize(np.asarray(seen.images[name]), cameras[name].height, cameras[name].width)
            unit = torch.from_numpy(np.array(frame)).to(self._device).permute(2, 0, 1).float() / 255.0
            batch[key] = unit.expand(num, -1, -1, -1).contiguous()
        state = torch.from_numpy(np.array(seen.state, np.float32)).to(self._device)
        return {**batch, STATE: state.expand(num, -1).contiguous()}

    def _chunks(self, batches: list[dict[str, Any]]) -> torch.Tensor:
        """Chunks ``[K, H, A]`` as the policy scales them. One that looks at the past keeps it in queues of its own."""
        from lerobot.policies.utils import populate_queues

        policy = self._policy
        policy.reset()
        queues = getattr(policy, "_queues", None) or {}
        for batch in batches:
            batch.pop(ACTION, None)  # the processor leaves a place for it
            if IMAGES in queues:
                batch[IMAGES] = torch.stack([batch[key] for key in self._keys.values()], dim=-4)
            populate_queues(queues, batch)
        return policy.predict_action_chunk(batches[-1])


def _load(folder: Path, device: torch.device) -> tuple[Any, Any, Any]:
    """The policy, and LeRobot's steps before and after it."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=[f"--device={device}"])
    policy = get_policy_class(config.type).from_pretrained(folder, config=config).to(device).eval()
    on_device = {"device_processor": {"device": str(device)}}
    return policy, *make_pre_post_processors(config, pretrained_path=str(folder), preprocessor_overrides=on_device)


def _check_sizes(name: str, config: Any, spec: PolicySpec) -> None:
    for what, feature, ours in (
        ("state", config.robot_state_feature, spec.state),
        ("action", config.action_feature, spec.action),
    ):
        shape = tuple(feature.shape) if feature is not None else ()
        if shape != (ours.dim,):
            told = f"expected {what} of {ours.dim} numbers, as the critic knows it ({', '.join(ours.names)})"
            raise ValueError(f"{name}: {told}, got {list(shape)}")
