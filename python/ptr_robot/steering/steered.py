"""A proposing policy and a critic together, as one policy: for simulators, the control loop and servers.

What does not fit is refused before anything acts: actions and states of other names, order or units, other rates,
no task in common, cameras that nobody shows.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.runtime.choice import proposal_seed
from ptr_fast.runtime.control import PythonPolicy
from ptr_fast.runtime.observation import Carry, Observation, past_of
from ptr_fast.runtime.steering import SteeringCritic
from ptr_fast.types import CameraSpec, Window
from ptr_robot.chosen_checkpoint import chosen_checkpoint
from ptr_robot.serving.client import RemotePolicy
from ptr_robot.serving.request_keys import image_keys
from ptr_robot.steering.lerobot import LEROBOT, LeRobotProposals
from ptr_robot.steering.log import SteeringLog
from ptr_robot.steering.options import SteeringOptions
from ptr_robot.steering.proposals import (
    CheckpointProposals,
    NoProposalError,
    Offer,
    OnnxProposals,
    ProposalSource,
    ServerProposals,
)

__all__ = ["SteeredPolicy", "load_steered", "resolved"]

SERVERS = ("ws://", "wss://")


class SteeredPolicy:
    """See :class:`ptr_fast.runtime.playing.ChunkPolicy`.

    Args:
        critic: chooses. source: proposes.
        num_proposals: K.
        camera_map: ``PROPOSER=CRITIC`` pairs of cameras.

    Raises:
        ValueError: the two do not fit together; says in what.
    """

    GIVE_UP_S = 2.0
    """So long the control loop goes on without a proposal, s."""

    takes_any_size = True
    """Whether frames of a new size cost nothing: critic and proposing policy each resize them as they need."""

    def __init__(
        self, critic: SteeringCritic, source: ProposalSource, num_proposals: int, camera_map: Sequence[str] = ()
    ) -> None:
        offer, spec = source.offer, critic.spec
        _check_same(source.name, offer, spec)
        self.critic, self.source, self._num = critic, source, num_proposals
        self._shown = {} if offer.cameras is None else _matched(source.name, offer.cameras, spec, camera_map)
        self.spec = replace(spec, cameras=_cameras(spec, offer, self._shown), tasks=_tasks(source.name, offer, spec))
        past = max(critic.window.num_observations, offer.window.num_observations)
        self.window = Window(num_observations=past, num_actions=offer.window.num_actions)
        self.log = SteeringLog()

    @property
    def info(self) -> Any:
        """The critic's checkpoint."""
        return self.critic.info

    @property
    def mode(self) -> str:
        """How it chooses."""
        config = self.critic.config
        how = {
            "max": "best",
            "softmax": f"softmax {config.temperature:g}",
            "average": f"mean of best {config.num_best}",
        }
        return f"{how[config.choose]} of {self._num}"

    def explain(self) -> str:
        """Who proposes."""
        return f"{self.source.name} proposes"

    def reset(self) -> Carry:
        """See :class:`ptr_fast.runtime.playing.ChunkPolicy`."""
        return ()

    def observe(self, observation: Observation, carry: Carry) -> Carry:
        """See :class:`ptr_fast.runtime.playing.ChunkPolicy`."""
        return past_of(observation, carry, self.window.num_observations)[1:]

    def act(self, observation: Observation, carry: Carry, seed: int = 0) -> tuple[np.ndarray, Carry]:
        """The chosen chunk float32 ``[H, A]`` and the new carry.

        Args:
            seed: of the proposals' noise, the first as the proposing policy alone has it, and of ``softmax``.

        Raises:
            NoProposalError: none came in time. RuntimeError: none is finite.
            ValueError: an observation that does not fit, or an unknown task.
        """
        self.spec.tasks.slot(observation.task)
        past = past_of(observation, carry, self.window.num_observations)
        seeds = [proposal_seed(seed, k) for k in range(self._num)]
        own = past[-self.source.offer.window.num_observations :]
        try:
            proposals = self.source.propose([self._for_proposer(each) for each in own], seeds)
        except NoProposalError:
            self.log.unanswered += 1
            raise
        if not any(np.isfinite(each).all() for each in proposals):
            raise RuntimeError(f"{self.source.name}: none of {len(proposals)} proposals is finite")
        choice = self.critic.choose(past[-self.critic.window.num_observations :], proposals, seed)
        self.log.add(choice, self._num)
        return choice.actions, past[1:]

    def warm_up(self, frame_sizes: Mapping[str, tuple[int, int]] | None = None, num_runs: int = 3) -> None:
        """Acts a few times on black frames; the log does not count them."""
        sizes = frame_sizes or {camera.name: (camera.height, camera.width) for camera in self.spec.cameras}
        images = {name: np.zeros((*size, 3), np.uint8) for name, size in sizes.items()}
        black = Observation(images, np.zeros(self.spec.state.dim, np.float32), self.spec.tasks.names[0])
        for _ in range(num_runs):
            self.act(black, self.reset())
        self.log = SteeringLog()

    def make_executor(self, frame_sizes: Mapping[str, tuple[int, int]], task: str, seed: int = 0) -> PythonPolicy:
        """As :meth:`ptr_fast.runtime.policy.Policy.make_executor`.

        Without a proposal the rest of the last chunk is played, then the arm stands still; none for ``GIVE_UP_S`` is an
        error.
        """
        self.spec.tasks.slot(task)
        seeds, failing_since = count(seed), math.inf

        def act(images: dict[str, np.ndarray], states: np.ndarray) -> np.ndarray | None:
            nonlocal failing_since
            past = [
                Observation({name: frames[t] for name, frames in images.items()}, state, task)
                for t, state in enumerate(states)
            ]
            try:
                actions, _ = self.act(past[-1], tuple(past[:-1]), next(seeds))
            except NoProposalError:
                now = time.monotonic()
                failing_since = min(failing_since, now)
                if now - failing_since > self.GIVE_UP_S:
                    raise
                return None
            failing_since = math.inf
            return actions

        window = self.window
        return PythonPolicy(act=act, num_actions=window.num_actions, num_observations=window.num_observations)

    def _for_proposer(self, observation: Observation) -> Observation:
        if self.source.offer.cameras is None:
            return observation
        return replace(observation, images={own: observation.images[name] for own, name in self._shown.items()})


def resolved(options: SteeringOptions, *, moves_an_arm: bool = False) -> SteeringOptions:
    """The options with the checkpoint in place of a run that proposes, which is told in a line.

    Args:
        moves_an_arm: as :func:`ptr_robot.chosen_checkpoint.chosen_checkpoint` takes it.

    Raises:
        ValueError: a URL that is none of a server. DataError: there is no such checkpoint.
    """
    if "://" in options.steer and not options.steer.startswith(SERVERS):
        raise ValueError(f"{options.steer}: expected ws://HOST:PORT or wss://HOST:PORT, or a file, run or checkpoint")
    if options.steer.startswith((*SERVERS, LEROBOT)) or options.steer.endswith(".onnx"):
        return options
    return replace(options, steer=str(chosen_checkpoint(Path(options.steer), moves_an_arm=moves_an_arm)))


def load_steered(
    checkpoint: Path,
    options: SteeringOptions,
    device: Any = "cpu",
) -> SteeredPolicy:
    """The policy that some options describe.

    Args:
        checkpoint: of the critic.
        device: of critic and proposing checkpoint.

    Raises:
        ValueError: the two do not fit together, or contradicting options.
        RuntimeError: nobody answers. DataError: no such checkpoint.
    """
    config, num = options.config(), options.steer_proposals
    critic = SteeringCritic(read_checkpoint(checkpoint), config, device)
    source: ProposalSource
    if options.steer.startswith(SERVERS):
        source, camera_map = _server(critic, options)
        return SteeredPolicy(critic, source, num, camera_map)
    if options.steer_timeout_s != SteeringOptions.steer_timeout_s:
        raise ValueError(f"steer-timeout-s is of a server, {options.steer} is asked here")
    is_lerobot, is_onnx = options.steer.startswith(LEROBOT), options.steer.endswith(".onnx")
    if options.steer_same_spaces and not is_lerobot:
        raise ValueError(f"steer-same-spaces: {options.steer} says its spaces itself")
    if options.steer_mode and (is_lerobot or is_onnx):
        raise ValueError(f"steer-mode is of a checkpoint that proposes, {options.steer} has its mode inside")
    if is_lerobot:
        _want_same_spaces(critic.spec, options)
        folder = Path(options.steer.removeprefix(LEROBOT))
        source = LeRobotProposals(folder, num, critic.spec, device)
    elif is_onnx:
        source = OnnxProposals(Path(options.steer), num)
    else:
        source = CheckpointProposals(Path(options.steer), options.steer_mode, num, device)
    return SteeredPolicy(critic, source, num, options.steer_camera_map)


def _server(critic: SteeringCritic, options: SteeringOptions) -> tuple[ServerProposals, tuple[str, ...]]:
    """The server, connected, and the pairs of cameras that are left to match."""
    if options.steer_mode:
        raise ValueError(f"steer-mode is of a checkpoint that proposes, {options.steer} has its own mode")
    remote = RemotePolicy(options.steer, os.environ.get("PTR_FAST_STEER_TOKEN", ""), timeout_s=options.steer_timeout_s)
    says_itself = remote.metadata.get("policy") == "ptr-fast"
    spec = critic.spec
    if says_itself and options.steer_same_spaces:
        raise ValueError(f"steer-same-spaces: {options.steer} says its spaces itself")
    if not says_itself:
        _want_same_spaces(spec, options)
    names = [camera.name for camera in spec.cameras]
    keys = {} if says_itself else image_keys(names, options.steer_camera_map, option="steer-camera-map")
    source = ServerProposals(
        remote,
        num_proposals=options.steer_proposals,
        timeout_s=options.steer_timeout_s,
        keys=keys,
        camera_sizes=critic.frame_sizes,
        state_dim=spec.state.dim,
        task=spec.tasks.names[0],
    )
    if source.action_dim != spec.action.dim:
        told = (
            f"expected actions of {spec.action.dim} numbers, as the critic knows them ({', '.join(spec.action.names)})"
        )
        raise ValueError(f"{options.steer}: {told}, got {source.action_dim}")
    return source, options.steer_camera_map if says_itself else ()


def _want_same_spaces(spec: PolicySpec, options: SteeringOptions) -> None:
    """Asks for the statement that a policy which does not say so acts in the critic's spaces."""
    if not options.steer_same_spaces:
        told = "does not say what its actions and state are; if they are the critic's in names, order, units and rate"
        raise ValueError(
            f"{options.steer}: {told} ({', '.join(f'{n} in {u}' for n, u in _axes(spec))}; {spec.control_hz:g} Hz), "
            f"state so with --steer-same-spaces"
        )


def _axes(spec: PolicySpec) -> list[tuple[str, str]]:
    return list(zip(spec.action.names, spec.action.units, strict=True))


def _check_same(name: str, offer: Offer, spec: PolicySpec) -> None:
    for what, theirs, ours in (("state", offer.state, spec.state), ("action", offer.action, spec.action)):
        if theirs is None:
            continue
        for part in ("names", "units"):
            if getattr(theirs, part) != getattr(ours, part):
                told = f"expected {what} {part} {list(getattr(ours, part))}, as the critic has them"
                raise ValueError(f"{name}: {told}, got {list(getattr(theirs, part))}")
    if offer.control_hz is not None and not math.isclose(offer.control_hz, spec.control_hz, rel_tol=1e-3):
        told = f"expected {spec.control_hz:g} decisions per second, as the critic was trained for"
        raise ValueError(f"{name}: {told}, got {offer.control_hz:g}")


def _matched(name: str, cameras: tuple[CameraSpec, ...], spec: PolicySpec, pairs: Sequence[str]) -> dict[str, str]:
    """Camera of the proposing policy -> name at the critic; one that the critic does not look through keeps its own."""
    ours, theirs = [camera.name for camera in spec.cameras], [camera.name for camera in cameras]
    named: dict[str, str] = {}
    for pair in pairs:
        proposer, equals, critic = pair.partition("=")
        if not equals or proposer not in theirs or critic not in ours or proposer in named or critic in named.values():
            both = f"{name} sees {theirs}, the critic {ours}"
            raise ValueError(f"steer-camera-map: expected PROPOSER=CRITIC, each once, got {pair!r}: {both}")
        named[proposer] = critic
    if not pairs and len(ours) == len(theirs) == 1:
        return {theirs[0]: ours[0]}
    matched = {own: named.get(own, own) for own in theirs}
    if len(set(matched.values())) != len(matched):
        raise ValueError(f"steer-camera-map: two cameras of {name} would be one: {matched}")
    return matched


def _cameras(spec: PolicySpec, offer: Offer, shown: Mapping[str, str]) -> tuple[CameraSpec, ...]:
    """All cameras that either looks through, each as large as the one that wants it larger."""
    cameras = {camera.name: camera for camera in spec.cameras}
    for camera in offer.cameras or ():
        name = shown[camera.name]
        known = cameras.get(name, replace(camera, name=name))
        height, width = max(known.height, camera.height), max(known.width, camera.width)
        cameras[name] = replace(known, height=height, width=width)
    return tuple(cameras.values())


def _tasks(name: str, offer: Offer, spec: PolicySpec) -> TaskTable:
    """The tasks that both know."""
    if offer.tasks is None:
        return spec.tasks
    both = tuple(task for task in spec.tasks.names if task in offer.tasks)
    if not both:
        raise ValueError(f"{name} knows the tasks {list(offer.tasks)}, the critic {list(spec.tasks.names)}: none alike")
    return TaskTable(names=both, num_slots=len(both))
