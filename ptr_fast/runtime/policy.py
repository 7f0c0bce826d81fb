"""A checkpoint that acts: frame, state and task in, an action in the robot's own units out.

Shapes: N frames, K candidate actions, S state, A action, E critics. Training, acting and export share one preprocessing
(:mod:`ptr_fast.runtime.preprocess`); acting neither crops nor jitters.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ptr_fast import native
from ptr_fast.checkpoint import CheckpointInfo, load_networks, read_checkpoint, weights_digest
from ptr_fast.config import ActConfig, ActMode, PolicySpec
from ptr_fast.learners.registry import make_networks, traits_of
from ptr_fast.nets.critic import Critic
from ptr_fast.nets.policy import Actor
from ptr_fast.runtime.control import PythonPolicy
from ptr_fast.runtime.engine import (
    BOUND,
    RESIZES,
    EagerEngine,
    Engine,
    OpenVinoEngine,
    first_choice,
    make_engine,
    native_executor,
    why_not,
)
from ptr_fast.runtime.export import describe, read_exported, to_onnx
from ptr_fast.runtime.graph import ActingGraph, search_noise
from ptr_fast.runtime.preprocess import fit_frame, to_unit

__all__ = ["Policy"]

ACTOR_NETWORKS = ("actor", "ema_actor")
CRITIC_NETWORKS = ("critic", "target_critic")


class Policy:
    """The net that acts, and nothing else: other nets of the checkpoint are read when they are first asked for.

    Args:
        info: the checkpoint.
        device: where the nets run.
        act: acting mode and number of candidates; None takes the checkpoint's own.
        engine: what runs a single action: ``eager`` (the same numbers as in training), a name of
            :data:`ptr_fast.runtime.engine.ENGINES`, ``auto`` for the fastest that is installed, or a file of
            ``ptr-fast export`` of this checkpoint (``policy.onnx``; with 8-bit convolutions, the fastest). It is made
            by :meth:`warm_up`, or by the first action: this takes seconds.

    Raises:
        ValueError: the checkpoint does not act, or not in this mode; an unknown engine.
        RuntimeError: the engine cannot run here.
        DataError: the weights are missing, broken, or do not match the configuration.
    """

    def __init__(
        self,
        info: CheckpointInfo,
        device: torch.device | str = "cpu",
        act: ActConfig | None = None,
        engine: str = "eager",
    ) -> None:
        self.info = info
        self.act_config = act or info.act
        self.device = torch.device(device)
        modes = traits_of(info.config).modes
        if self.mode not in modes:
            name = traits_of(info.config).name
            told = f"{name} acts in the modes {', '.join(modes)}" if modes else f"{name} does not act"
            raise ValueError(f"{info.path}: no acting mode {self.mode!r}: {told}")
        self._graph_resizes = first_choice(engine, self.device) in RESIZES
        self._engine_wanted, self._acts_by_file = engine, engine.endswith(".onnx")
        self._engines: dict[tuple[int, int], tuple[str, Engine, list[str]]] = {}  # by size of the frame
        self._networks: dict[str, nn.Module] = {}
        self._load("actor" if self.mode == "mean" else "ema_actor", *(["target_critic"] * (self.mode == "search")))

    @staticmethod
    def load(
        checkpoint: Path | str,
        device: torch.device | str = "cpu",
        mode: str | None = None,
        num_candidates: int | None = None,
        engine: str = "eager",
    ) -> Policy:
        """Reads a checkpoint (a run, a step's folder, or its ``pretrained_model``) and overrides its acting mode."""
        info = read_checkpoint(checkpoint)
        if mode is not None and mode not in typing.get_args(ActMode):
            raise ValueError(f"mode: expected one of {typing.get_args(ActMode)}, got {mode!r}")
        act = replace(
            info.act,
            mode=typing.cast(ActMode, mode or info.act.mode),
            num_candidates=num_candidates or info.act.num_candidates,
            num_elites=min(info.act.num_elites, num_candidates or info.act.num_candidates),
        )
        return Policy(info, device, act, engine)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """``actor`` and ``ema_actor``; where the checkpoint has critics, ``critic`` and ``target_critic`` too."""
        names = (*ACTOR_NETWORKS, *(CRITIC_NETWORKS if self.has_critic else ()))
        self._load(*names)
        return {name: self._networks[name] for name in names}

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the nets that are in memory."""
        return tuple(self._networks)

    @property
    def has_critic(self) -> bool:
        return "values" in traits_of(self.info.config).capabilities

    @property
    def spec(self) -> PolicySpec:
        return self.info.spec

    @property
    def mode(self) -> str:
        return self.act_config.mode

    def act(self, image: np.ndarray, state: np.ndarray, task: str, seed: int = 0) -> np.ndarray:
        """One action.

        Args:
            image: uint8 ``[H, W, 3]`` RGB of any size; resized as the training frames were.
            state: float32 ``[S]``, in the units of ``spec.state``.
            task: a name in ``spec.tasks``.
            seed: determines the candidates of ``search``; unused by the other modes.

        Returns:
            float32 ``[A]`` in the units of ``spec.action``.

        Raises:
            ValueError: unknown task, or a frame or state of the wrong shape or type.
        """
        image, state = np.asarray(image), np.asarray(state, np.float32)
        # Some engines resize in their graph; the others get the pixels that training saw, by the same function.
        frame = image if self._resizes(image) else fit_frame(image, self.spec.camera)
        self._check_states(state[None], 1)
        inputs = [frame, state, np.array([self.spec.tasks.slot(task)])]
        if self.mode == "search":
            inputs.append(search_noise(seed, self.act_config.num_candidates, self.spec.action.dim)[0].numpy())
        return self._engine(frame.shape[:2]).run(*inputs)

    def warm_up(self, frame_size: tuple[int, int] | None = None, num_runs: int = 3) -> None:
        """Makes the engine and acts a few times on a black frame, so that the first action is as fast as the others.

        Args:
            frame_size: height and width of the camera's frames, pixels; None takes the checkpoint's own.
        """
        height, width = frame_size or (self.spec.camera.height, self.spec.camera.width)
        frame, state = np.zeros((height, width, 3), np.uint8), np.zeros(self.spec.state.dim, np.float32)
        for _ in range(num_runs):
            self.act(frame, state, self.spec.tasks.names[0])

    def reset(self) -> None:
        """The start of an episode. An action depends on one observation alone: nothing of an episode is kept."""

    def explain(self) -> str:
        """Which engine acts, and why not those that would be preferred; of :meth:`warm_up` or the first action."""
        if not self._engines:
            return f"{self._engine_wanted} (not made yet)"
        name, _, reasons = next(iter(self._engines.values()))
        return f"{name} ({'; '.join(reasons)})" if reasons else name

    def graph(self, frame_size: tuple[int, int] | None = None, task: str | None = None) -> ActingGraph:
        """All of acting as one module, for frames of one size; see :class:`ptr_fast.runtime.graph.ActingGraph`."""
        camera = self.spec.camera
        actor = typing.cast(Actor, self._network("actor" if self.mode == "mean" else "ema_actor"))
        critic = typing.cast(Critic, self._network("target_critic")) if self.mode == "search" else None
        size = frame_size or (camera.height, camera.width)
        return ActingGraph(actor, critic, self.spec, self.act_config, size, task).to(self.device).eval()

    def to_onnx(self, frame_size: tuple[int, int] | None = None, task: str | None = None) -> bytes:
        """The policy as an ONNX file; see :mod:`ptr_fast.runtime.export`.

        Raises:
            RuntimeError: the packages of the extra ``export`` are missing, or the policy is not on the CPU.
            ValueError: an unknown task, or a policy that cannot be exported.
        """
        if self.device.type != "cpu":
            raise RuntimeError(f"export: load the policy on the CPU, it is on the {self.device.type}")
        metadata = {"ptr_fast.checkpoint": str(self.info.path), **self._identity()}
        return to_onnx(self.graph(frame_size, task), self.spec, metadata)

    def _identity(self) -> dict[str, str]:
        """What an exported file tells of the checkpoint that it was made of."""
        return {"ptr_fast.step": str(self.info.step), "ptr_fast.weights": weights_digest(self.info)}

    def _exported(self) -> tuple[bytes, str]:
        """The file that was named as the engine, made of this checkpoint for frames of its size and for all tasks."""
        return read_exported(Path(self._engine_wanted), {**describe(self.graph(), self.spec), **self._identity()})

    def make_executor(self, frame_sizes: Mapping[str, tuple[int, int]], task: str, seed: int = 0) -> typing.Any:
        """What :class:`ptr_fast.runtime.control.ControlLoop` takes as a policy, for one task.

        With the engine ``openvino``, ``auto`` or a file on the CPU, outside of ``search``, it is OpenVINO behind the
        loop's native interface and takes no GIL; else it is a :class:`ptr_fast.runtime.control.PythonPolicy`. A file
        was compared with the eager engine when it was made; the others are now.

        Args:
            frame_sizes: camera -> height and width of its frames, pixels.
            seed: of the first ``search``; the next ones count on from it.

        Raises:
            RuntimeError: the engine that was asked for cannot run, or acts differently.
        """
        ((camera, size),) = frame_sizes.items()
        wants_native = self._acts_by_file or self._engine_wanted in ("auto", "openvino")
        can_native = native.module() is not None and why_not("openvino", self.device) is None
        if wants_native and can_native and self.mode != "search":
            model = self._exported()[0] if self._acts_by_file else self.to_onnx()
            executor = native_executor(self.graph(), model, size, self.spec.tasks.slot(task))
            difference = 0.0 if self._acts_by_file else self._difference(executor, size, task)
            if difference <= BOUND:
                return executor
            if self._engine_wanted != "auto":
                raise RuntimeError(f"engine 'openvino' acts differently: by {difference:.2g}, allowed are {BOUND:g}")
        self.warm_up(size)
        seeds = count(seed)

        def act(images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
            return self.act(images[camera][-1], state[-1], task, seed=next(seeds))

        return PythonPolicy(act=act)

    def _difference(self, executor: typing.Any, frame_size: tuple[int, int], task: str) -> float:
        """Of a native executor's action on a made-up frame from the eager one's, of the action's half range."""
        graph, state = self.graph(), np.zeros(self.spec.state.dim, np.float32)
        frame = np.random.default_rng(0).integers(0, 256, (*frame_size, 3), np.uint8)
        inputs = fit_frame(frame, self.spec.camera), state, np.array([self.spec.tasks.slot(task)])
        action = executor.run([frame], state)[0]
        difference = np.abs(action - EagerEngine(graph, bytes).run(*inputs)) / graph.half_range.cpu().numpy()
        return float(np.max(np.nan_to_num(difference, nan=np.inf)))

    def _resizes(self, image: np.ndarray) -> bool:
        """Whether the engine takes frames of the camera's size."""
        is_frame = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and 0 not in image.shape
        return is_frame and self._graph_resizes

    def _engine(self, frame_size: tuple[int, int]) -> Engine:
        made = self._engines.get(frame_size)
        if made is None:
            graph = self.graph(frame_size)
            if self._acts_by_file:
                model, checked = self._exported()
                made = self._engine_wanted, OpenVinoEngine(graph, lambda: model), [f"by OpenVINO, {checked}"]
            else:
                made = make_engine(self._engine_wanted, graph, lambda: self.to_onnx(frame_size))
            self._engines[frame_size] = made
        return made[1]

    def _load(self, *names: str) -> None:
        """Reads those of the nets that are not in memory yet."""
        fresh = make_networks(self.info.config, self.spec, [name for name in names if name not in self._networks])
        load_networks(self.info, fresh)
        for module in fresh.values():
            module.to(self.device).requires_grad_(False).eval()
        self._networks |= fresh

    def _network(self, name: str) -> nn.Module:
        self._load(name)
        return self._networks[name]

    def actions(self, images: np.ndarray, states: np.ndarray, task: str, averaged: bool = False) -> np.ndarray:
        """Mean actions on many frames: uint8 ``[N, H, W, 3]`` and float32 ``[N, S]`` to raw float32 ``[N, A]``."""
        with torch.inference_mode():
            inputs = self._inputs(images, states, task)
            actor = typing.cast(Actor, self._network("ema_actor" if averaged else "actor"))
            scaled = actor.mean_action(*inputs)
        return self.spec.action.unscale(scaled.cpu().numpy())

    def log_prob(self, images: np.ndarray, states: np.ndarray, task: str, actions: np.ndarray) -> np.ndarray:
        """Log density float32 ``[N]`` (nats, in scaled action space) of raw actions ``[N, A]``."""
        with torch.inference_mode():
            distribution = self._network("actor")(*self._inputs(images, states, task))
            return distribution.log_prob(self._scaled(actions)).cpu().numpy()

    def predict_value(
        self, images: np.ndarray, states: np.ndarray, task: str, actions: np.ndarray, averaged: bool = False
    ) -> np.ndarray:
        """Q float32 ``[E, N]`` of raw actions ``[N, A]``, by the online critics or their averages.

        Raises:
            ValueError: the checkpoint has no critic.
        """
        if not self.has_critic:
            raise ValueError(f"{self.info.path}: {traits_of(self.info.config).name} has no critic")
        critic = typing.cast(Critic, self._network("target_critic" if averaged else "critic"))
        with torch.inference_mode():
            hoisted = critic.hoist(*self._inputs(images, states, task))
            return critic.head.q(hoisted, self._scaled(actions)[:, None, :])[..., 0].cpu().numpy()

    def _scaled(self, actions: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.spec.action.scale(actions)).to(self.device)

    def _inputs(
        self, images: np.ndarray, states: np.ndarray, task: str
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        camera = self.spec.camera
        states = np.asarray(states, np.float32)
        if images.dtype != np.uint8 or images.shape[1:] != (camera.height, camera.width, 3):
            expected = f"uint8 [N, {camera.height}, {camera.width}, 3]"
            raise ValueError(f"images: expected {expected}, got {images.dtype} {list(images.shape)}")
        self._check_states(states, len(images))
        slot = self.spec.tasks.slot(task)
        frames = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self.device)
        task_id = torch.full((len(images),), slot, dtype=torch.int64, device=self.device)
        return {camera.name: to_unit(frames)}, torch.from_numpy(states).to(self.device), task_id

    def _check_states(self, states: np.ndarray, num_frames: int) -> None:
        num_state = self.spec.state.dim
        if states.shape != (num_frames, num_state):
            raise ValueError(f"state: expected [{num_state}] per frame, got {list(states.shape[1:])}")
        if not np.isfinite(states).all():
            raise ValueError("state: expected finite numbers, got NaN or infinity")
