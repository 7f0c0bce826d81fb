"""Where proposals come from: one of our checkpoints, a file of ``ptr-fast export``, or a policy server.

Policies of LeRobot's have a module of their own.

Each says what it sees and commands, as far as it is known, and gives K chunks of actions for an observation.

Shapes: K proposals, T observations, H actions of a chunk, A action.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ptr_fast.config import PolicySpec
from ptr_fast.runtime.observation import Observation
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec, Window
from ptr_robot.serving.client import RemotePolicy
from ptr_robot.serving.metadata import acting_of, images_of, spec_of, window_of

__all__ = [
    "CheckpointProposals",
    "NoProposalError",
    "Offer",
    "OnnxProposals",
    "ProposalSource",
    "ServerProposals",
    "offer_of",
    "refuse_one_answer",
]

NO_NOISE = ("mean", "ema_mean")
"""Acting modes whose answer to one observation is always the same."""

FIRST_ANSWER_S = 120.0
"""A server may compile its policy before its first answer, s."""


class NoProposalError(RuntimeError):
    """No proposal came in time; the message says from where and why."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a proposing policy sees and commands; None is what it does not say.

    Attributes:
        cameras: None: frames are sent as the server's keys name them.
        tasks: names that it knows; None: any text.
        window: T and H.
    """

    cameras: tuple[CameraSpec, ...] | None
    state: StateSpec | None
    action: ActionSpec | None
    tasks: tuple[str, ...] | None
    control_hz: float | None
    window: Window


class ProposalSource(Protocol):
    """A policy that proposes."""

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        ...

    @property
    def offer(self) -> Offer:
        """What it sees and commands."""
        ...

    @property
    def identity(self) -> dict[str, str | int]:
        """What tells it from another one of the same name, e.g. the digest of its weights."""
        ...

    def propose(self, past: Sequence[Observation], seeds: Sequence[int]) -> list[np.ndarray]:
        """A chunk float32 ``[H, A]`` for each seed, or fewer where the time was too short.

        Args:
            past: its T observations, the oldest first, in its own names of cameras.

        Raises:
            NoProposalError: there is none at all. ValueError: the observation is not what it takes.
        """
        ...


class CheckpointProposals:
    """One of our own checkpoints.

    Args:
        path: run or checkpoint. mode: of acting; empty takes ``sample`` where it has it, else its own.
        num_proposals: K; above 1 only of a policy that draws noise.

    Raises:
        ValueError: K proposals would all be the same.
    """

    def __init__(self, path: Path, mode: str, num_proposals: int, device: Any = "cpu") -> None:
        from ptr_fast.checkpoint import read_checkpoint, weights_digest
        from ptr_fast.learners.registry import traits_of
        from ptr_fast.runtime.policy import Policy
        from ptr_fast.runtime.steering import Proposer

        modes = traits_of(read_checkpoint(path).config).modes
        policy = Policy.load(path, device, mode or ("sample" if "sample" in modes else None))
        self._proposer = Proposer(policy)
        self.name = f"{policy.info.path} ({policy.mode})"
        self.identity: dict[str, str | int] = {"step": policy.info.step, "weights": weights_digest(policy.info)}
        refuse_one_answer(self.name, self._proposer.draws_noise, num_proposals)
        self.offer = offer_of(policy.spec, policy.window)

    def propose(self, past: Sequence[Observation], seeds: Sequence[int]) -> list[np.ndarray]:
        """See :class:`ProposalSource`."""
        return list(self._proposer.propose(past, seeds))


class OnnxProposals:
    """A file of ``ptr-fast export``, by ONNX Runtime on the CPU.

    Raises:
        ValueError: it is no such file, it is damaged, or K proposals would all be the same.
        RuntimeError: the packages of the extra ``export`` are missing.
    """

    def __init__(self, path: Path, num_proposals: int) -> None:
        try:
            import onnxruntime

            from ptr_fast.runtime.export import read_exported

            model, _ = read_exported(path, {})
        except ImportError as error:
            raise RuntimeError(f"{path}: {error}: pip install 'ptr-fast[export]'") from error
        self.name = str(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.identity: dict[str, str | int] = {"sha256": hashlib.sha256(model).hexdigest()}
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._shapes = {item.name: item.shape for item in self._session.get_inputs()}
        refuse_one_answer(self.name, "noise" in self._shapes, num_proposals)
        self.offer = self._offer(self._session.get_modelmeta().custom_metadata_map)
        assert self.offer.cameras is not None
        names = [camera.name for camera in self.offer.cameras]
        self._frames = {"frame" if len(names) == 1 else f"frame_{name}": name for name in names}

    def _offer(self, told: Mapping[str, str]) -> Offer:
        def read(key: str) -> Any:
            return json.loads(told[f"ptr_fast.{key}"])

        try:
            cameras, frames = read("camera"), read("frame")
            cameras, frames = (each if isinstance(each, list) else [each] for each in (cameras, frames))
            self._tasks = tuple(read("tasks"))
            fixed = told["ptr_fast.task"]
            return Offer(
                cameras=tuple(
                    CameraSpec(name=camera["name"], height=frame["height"], width=frame["width"])
                    for camera, frame in zip(cameras, frames, strict=True)
                ),
                state=StateSpec(names=tuple(read("state.names")), units=tuple(read("state.units"))),
                action=ActionSpec(
                    names=tuple(read("action.names")),
                    units=tuple(read("action.units")),
                    low=tuple(read("action.low")),
                    high=tuple(read("action.high")),
                ),
                tasks=(fixed,) if fixed else self._tasks,
                control_hz=float(read("control_hz")),
                window=Window(**read("window")) if "ptr_fast.window" in told else Window(),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.name}: its metadata does not say what it sees and commands ({error!r})") from error

    def propose(self, past: Sequence[Observation], seeds: Sequence[int]) -> list[np.ndarray]:
        """See :class:`ProposalSource`."""
        from ptr_fast.resize import resize
        from ptr_fast.runtime.graph import noise_for

        given: dict[str, np.ndarray] = {}
        window = self.offer.window
        for key, camera in self._frames.items():
            height, width = self._shapes[key][-3:-1]
            rows = [resize(np.asarray(each.images[camera]), height, width) for each in past]
            given[key] = np.stack(rows) if window.num_observations > 1 else rows[0]
        states = np.stack([np.asarray(each.state, np.float32) for each in past])
        given["state"] = states if window.num_observations > 1 else states[0]
        if "task_id" in self._shapes:
            given["task_id"] = np.array([self._tasks.index(past[-1].task)])
        answers = []
        for seed in seeds:
            if "noise" in self._shapes:
                given["noise"] = noise_for(seed, tuple(self._shapes["noise"])).numpy()
            (actions,) = self._session.run(["action"], given)
            answers.append(actions.reshape(window.num_actions, -1))
        return answers


class ServerProposals:
    """A policy behind a server of openpi's protocol, asked once for each proposal.

    Args:
        remote: connected. keys: camera of the critic -> key of its frames, for a server that does not say its own.
        timeout_s: for all proposals of a decision together, s.
        state_dim: numbers of the state that it is asked with first, where it does not say its own.
        task: what it is asked with first.
        camera_sizes: of the frames that it is asked with first, by the names in ``keys``.

    Raises:
        RuntimeError: it does not answer a first request. ValueError: its metadata is ours and does not fit together.
    """

    def __init__(
        self,
        remote: RemotePolicy,
        *,
        num_proposals: int,
        timeout_s: float,
        keys: Mapping[str, str],
        camera_sizes: Mapping[str, tuple[int, int]],
        state_dim: int,
        task: str,
    ) -> None:
        self._remote, self._timeout_s, self.name = remote, timeout_s, remote.url
        about = remote.metadata
        self.says_itself = about.get("policy") == "ptr-fast"
        self.identity: dict[str, Any] = acting_of(about) if self.says_itself else {}
        if self.says_itself:
            spec = spec_of(remote.url, about)
            told = offer_of(spec, window_of(about))
            self._keys = {image["camera"]: image["key"] for image in images_of(about)}
            refuse_one_answer(
                f"{self.name} (mode {about.get('mode')})", about.get("mode") not in NO_NOISE, num_proposals
            )
            camera_sizes = {camera.name: (camera.height, camera.width) for camera in spec.cameras}
            state_dim, task = spec.state.dim, spec.tasks.names[0]
        else:
            told = Offer(cameras=None, state=None, action=None, tasks=None, control_hz=None, window=Window())
            self._keys = dict(keys)
        self._takes_past = told.window.num_observations > 1
        images = {name: np.zeros((*size, 3), np.uint8) for name, size in camera_sizes.items()}
        black = Observation(images, np.zeros(state_dim, np.float32), task)
        first = self._ask((black,) * told.window.num_observations, 0, FIRST_ANSWER_S)
        if self.says_itself and len(first) != told.window.num_actions:
            expected = f"expected {told.window.num_actions} actions in an answer, as its metadata says"
            raise ValueError(f"{self.name}: {expected}, got {len(first)}")
        self.action_dim = first.shape[1]
        window = Window(num_observations=told.window.num_observations, num_actions=len(first))
        self.offer = Offer(**{**vars(told), "window": window})

    def propose(self, past: Sequence[Observation], seeds: Sequence[int]) -> list[np.ndarray]:
        """See :class:`ProposalSource`."""
        deadline = time.monotonic() + self._timeout_s
        answers: list[np.ndarray] = []
        shape = (self.offer.window.num_actions, self.action_dim)
        for seed in seeds:
            left_s = deadline - time.monotonic()
            if left_s <= 0.0:
                break
            try:
                answer = self._ask(past, seed, left_s)
            except RuntimeError as error:
                if not answers:
                    raise NoProposalError(f"no proposal: {error}") from error
                break
            if answer.shape != shape:
                told = f"expected actions {list(shape)}, as in its first answer, got {list(answer.shape)}"
                raise NoProposalError(f"{self.name}: {told}")
            answers.append(answer)
        return answers

    def _ask(self, past: Sequence[Observation], seed: int, timeout_s: float) -> np.ndarray:
        newest = past[-1]
        if self._takes_past:
            images = {key: np.stack([each.images[name] for each in past]) for name, key in self._keys.items()}
            state = np.stack([each.state for each in past])
        else:
            images, state = {key: newest.images[name] for name, key in self._keys.items()}, newest.state
        # Another's server draws its own noise; a key that it does not know is not sent to it.
        return self._remote.act(images, state, newest.task, seed if self.says_itself else None, timeout_s)


def offer_of(spec: PolicySpec, window: Window) -> Offer:
    """Of a policy that says all of it."""
    return Offer(
        cameras=spec.cameras,
        state=spec.state,
        action=spec.action,
        tasks=spec.tasks.names,
        control_hz=spec.control_hz,
        window=window,
    )


def refuse_one_answer(name: str, draws_noise: bool, num_proposals: int) -> None:
    """Refuses several proposals of a policy that would make them all the same.

    Raises:
        ValueError: names the policy.
    """
    if num_proposals > 1 and not draws_noise:
        raise ValueError(f"{name} draws no noise: all {num_proposals} proposals would be the same")
