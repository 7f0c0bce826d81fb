"""A checkpoint that acts: what cameras show, state and task in, a chunk of actions in the robot's own units out.

Shapes: T observations, H actions of a chunk, S state, A action. Training, acting and export share one preprocessing
(:mod:`ptr_fast.runtime.preprocess`); acting neither crops nor jitters.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch

from ptr_fast import native
from ptr_fast.checkpoint import CheckpointInfo, read_checkpoint, weights_digest
from ptr_fast.config import ActConfig
from ptr_fast.learners.registry import acts_of
from ptr_fast.runtime.captured import CapturedEngine
from ptr_fast.runtime.control import PythonPolicy
from ptr_fast.runtime.engine import (
    BOUND,
    RESIZES,
    EagerEngine,
    Engine,
    NotCompiledError,
    OpenVinoEngine,
    first_choice,
    make_engine,
    native_executor,
    why_not,
)
from ptr_fast.runtime.export import describe, read_exported, to_onnx
from ptr_fast.runtime.graph import ActingGraph, frame_names, noise_for
from ptr_fast.runtime.networks import CheckpointNetworks
from ptr_fast.runtime.observation import Carry, Observation, past_of
from ptr_fast.runtime.preprocess import arrays_of

__all__ = ["Policy"]

Sizes = Mapping[str, tuple[int, int]]


class Policy(CheckpointNetworks):
    """A checkpoint that acts.

    Args:
        info: the checkpoint.
        device: where the nets run.
        act: acting mode and number of candidates; None takes the checkpoint's own.
        engine: what computes an answer: ``eager`` (the same numbers as in training), a name of
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
        super().__init__(info, device)
        self.act_config = act or info.act
        modes, name = self.traits.modes, self.traits.name
        if self.mode not in modes:
            told = f"{name} acts in the modes {', '.join(modes)}" if modes else f"{name} does not act"
            raise ValueError(f"{info.path}: no acting mode {self.mode!r}: {told}")
        self._graph_resizes = first_choice(engine, self.device) in RESIZES
        self._engine_wanted, self._acts_by_file = engine, engine.endswith(".onnx")
        self._engines: dict[tuple, tuple[str, Engine, list[str]]] = {}  # by the sizes of the frames
        self._acts = acts_of(info.config)
        self._noise_shape = self._acts.noise_shape(self.act_config, self.spec)
        self._load(*self._acts.networks_for(self.mode))

    @staticmethod
    def load(
        checkpoint: Path | str,
        device: torch.device | str = "cpu",
        mode: str | None = None,
        num_candidates: int | None = None,
        engine: str = "eager",
        num_elites: int | None = None,
    ) -> Policy:
        """Reads a checkpoint (a run, a step's folder, or its ``pretrained_model``) and overrides how it acts."""
        info = read_checkpoint(checkpoint)
        act = info.act.changed(mode or "", num_candidates or 0, num_elites or 0)
        if (num_candidates or num_elites) and act.mode != "search":
            raise ValueError(f"candidates and elites are of mode search, and {info.path} is to act by {act.mode}")
        return Policy(info, device, act, engine)

    takes_any_size = False
    """Whether frames of a new size cost nothing; here an engine is made for each size, which takes seconds."""

    @property
    def mode(self) -> str:
        return self.act_config.mode

    def reset(self) -> Carry:
        """The start of an episode: what :meth:`act` keeps of the past, which is nothing yet."""
        return ()

    def act(self, observation: Observation, carry: Carry, seed: int = 0) -> tuple[np.ndarray, Carry]:
        """A chunk of actions.

        Args:
            observation: the newest.
            carry: of :meth:`reset`, or of the last call of this episode.
            seed: determines the noise of modes that draw any, such as ``search``; unused by the others.

        Returns:
            float32 ``[H, A]`` in the units of ``spec.action``: for this control period and the next ones; and the carry
            for the next call.

        Raises:
            ValueError: a missing camera, an unknown task, or a frame or state of the wrong shape or type.
        """
        past = past_of(observation, carry, self.window.num_observations)
        return self._answer(past, seed), past[1:]

    def observe(self, observation: Observation, carry: Carry) -> Carry:
        """The carry after a control period in which the policy is not asked, as its chunk is still being played."""
        return past_of(observation, carry, self.window.num_observations)[1:]

    def decide(self, image: np.ndarray, state: np.ndarray, task: str, seed: int = 0) -> np.ndarray:
        """One action float32 ``[A]`` of a policy of one camera that needs no past: the first of its chunk.

        Args:
            image, state, task: as in :class:`ptr_fast.runtime.observation.Observation`. seed: as in :meth:`act`.

        Raises:
            ValueError: as :meth:`act`; or the policy has several cameras, or needs past observations.
        """
        if self.window.num_observations > 1:
            raise ValueError(f"decide: this policy needs {self.window.num_observations} observations; use act")
        return self._answer((Observation({self.spec.camera.name: image}, state, task),), seed)[0]

    def _answer(self, past: Sequence[Observation], seed: int) -> np.ndarray:
        """Chunk ``[H, A]`` for T observations."""
        # Some engines resize in their graph; the others get the pixels that training saw, by the same function.
        newest = {name: np.asarray(image) for name, image in past[-1].images.items()}
        own = {name: image.shape[:2] for name, image in newest.items() if self._resizes(image)}
        sizes = {name: own.get(name, size) for name, size in self.frame_sizes.items()}
        answer = self._engine(sizes).run(*self.inputs(past, seed, sizes).values())
        return answer.reshape(-1, self.spec.action.dim)

    def inputs(
        self, past: Sequence[Observation], seed: int = 0, frame_sizes: Sizes | None = None
    ) -> dict[str, np.ndarray]:
        """What :meth:`graph` takes, by name: of T observations, frames resized to its sizes.

        Raises:
            ValueError: as :meth:`act`.
        """
        frames, states, task_id = arrays_of(past, self.spec, frame_sizes or self.frame_sizes)
        if self.window.num_observations == 1:
            frames, states = {name: each[0] for name, each in frames.items()}, states[0]
        given = {**dict(zip(frame_names(frames), frames.values(), strict=True)), "state": states, "task_id": task_id}
        if self._noise_shape is not None:
            given["noise"] = noise_for(seed, self._noise_shape).numpy()
        return given

    def warm_up(self, frame_sizes: Sizes | None = None, num_runs: int = 3) -> None:
        """Makes the engine and acts a few times on black frames, so that the first answer is as fast as the others.

        Args:
            frame_sizes: camera -> height and width of its frames, pixels; None takes the checkpoint's own.
        """
        images = {name: np.zeros((*size, 3), np.uint8) for name, size in (frame_sizes or self.frame_sizes).items()}
        black = Observation(images, np.zeros(self.spec.state.dim, np.float32), self.spec.tasks.names[0])
        for _ in range(num_runs):
            self.act(black, self.reset())

    def explain(self) -> str:
        """Which engine acts, and why not those that would be preferred; of :meth:`warm_up` or the first action."""
        if not self._engines:
            return f"{self._engine_wanted} (not made yet)"
        name, _, reasons = next(iter(self._engines.values()))
        return f"{name} ({'; '.join(reasons)})" if reasons else name

    def graph(self, frame_sizes: Sizes | None = None, task: str | None = None) -> ActingGraph:
        """All of acting as one module; see :class:`ptr_fast.runtime.graph.ActingGraph`."""
        acting = self._acts.acting_module(self._networks, self.act_config, self.spec)
        graph = ActingGraph(acting, self.spec, frame_sizes, self._noise_shape, self.window, task)
        return graph.to(self.device).eval()

    def to_onnx(self, frame_sizes: Sizes | None = None, task: str | None = None) -> bytes:
        """The policy as an ONNX file; see :mod:`ptr_fast.runtime.export`.

        Raises:
            RuntimeError: the packages of the extra ``export`` are missing, or the policy is not on the CPU.
            ValueError: an unknown task, or a policy that cannot be exported.
        """
        if self.device.type != "cpu":
            raise RuntimeError(f"export: load the policy on the CPU, it is on the {self.device.type}")
        if not self.traits.exports:
            encoder = getattr(self.info.config, "encoder", None)
            is_blind = encoder is not None and not encoder.sees_images
            why = ", it looks at states alone: only policies of frames can" if is_blind else ""
            raise ValueError(f"export: this policy ({self.traits.name}) cannot be written as an ONNX file{why}")
        metadata = {"ptr_fast.checkpoint": str(self.info.path), **self._identity()}
        return to_onnx(self.graph(frame_sizes, task), self.spec, self.act_config, metadata)

    def _identity(self) -> dict[str, str]:
        """What an exported file tells of the checkpoint that it was made of."""
        return {"ptr_fast.step": str(self.info.step), "ptr_fast.weights": weights_digest(self.info)}

    def _exported(self) -> tuple[bytes, str]:
        """The file that was named as the engine, made of this checkpoint for frames of its size and for all tasks."""
        expected = {**describe(self.graph(), self.spec, self.act_config), **self._identity()}
        return read_exported(Path(self._engine_wanted), expected)

    def make_executor(self, frame_sizes: Mapping[str, tuple[int, int]], task: str, seed: int = 0) -> typing.Any:
        """What :class:`ptr_fast.runtime.control.ControlLoop` takes as a policy, for one task.

        With the engine ``openvino``, ``auto`` or a file on the CPU, it is OpenVINO behind the loop's native interface
        and takes no GIL, unless the mode draws noise; with ``cuda_graph`` or ``auto`` on a GPU it is the captured graph
        behind it, where this PyTorch gives out its handle (:meth:`explain` tells where it does not); else it is a
        :class:`ptr_fast.runtime.control.PythonPolicy`. A file was compared with the eager engine when it was made; the
        others are now.

        Args:
            frame_sizes: camera -> height and width of its frames, pixels, in any order of the checkpoint's cameras.
            seed: of the first answer's noise; the next ones count on from it.

        Raises:
            RuntimeError: the engine that was asked for cannot run, or acts differently.
        """
        sizes = {name: frame_sizes[name] for name in self.frame_sizes}
        wants_native = self._acts_by_file or self._engine_wanted in ("auto", "openvino")
        can_native = native.module() is not None and why_not("openvino", self.device) is None
        if wants_native and can_native and self._noise_shape is None and self.traits.exports:
            model = self._exported()[0] if self._acts_by_file else self.to_onnx()
            try:
                executor = native_executor(self.graph(), model, sizes, self.spec.tasks.slot(task))
                difference = 0.0 if self._acts_by_file else self._difference(executor, sizes, task)
                if difference <= BOUND:
                    return executor
                why = f"engine 'openvino' acts differently: by {difference:.2g}, allowed are {BOUND:g}"
            except NotCompiledError as error:
                why = str(error)
            if self._engine_wanted != "auto":
                raise RuntimeError(why)
        captured = self._captured_executor(sizes, task)
        if captured is not None and not isinstance(captured, str):
            return captured
        self.warm_up(sizes)
        if captured is not None:
            self._engines[tuple(sizes.items())][2].append(f"through Python in the control loop: {captured}")
        seeds = count(seed)

        def act(images: dict[str, np.ndarray], states: np.ndarray) -> np.ndarray:
            past = [
                Observation({name: frames[t] for name, frames in images.items()}, state, task)
                for t, state in enumerate(states)
            ]
            return self._answer(past, next(seeds))

        window = self.window
        return PythonPolicy(act=act, num_actions=window.num_actions, num_observations=window.num_observations)

    def _captured_executor(self, frame_sizes: Sizes, task: str) -> typing.Any:
        """The captured graph behind the control loop's interface, or why not; None where it is not asked for."""
        if self.device.type != "cuda" or self._engine_wanted not in ("auto", "cuda_graph"):
            return None
        if self._noise_shape is not None:
            return "this acting mode draws its noise in Python"
        graph = self.graph(frame_sizes, task)
        try:
            executor = CapturedEngine(graph).executor()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return " ".join(str(error).split())
        difference = self._difference(executor, frame_sizes, task, graph)
        return executor if difference <= BOUND else f"its action differs by {difference:.2g}, allowed are {BOUND:g}"

    def _difference(
        self, executor: typing.Any, frame_sizes: Sizes, task: str, resizing: ActingGraph | None = None
    ) -> float:
        """Of a native executor's answer on made-up frames from the eager one's, of the action's half range.

        ``resizing``: the graph of the camera's frames and of the task, where the executor resizes as that does.
        """
        graph, state, rng = self.graph(), np.zeros(self.spec.state.dim, np.float32), np.random.default_rng(0)
        past = [
            Observation({n: rng.integers(0, 256, (*s, 3), np.uint8) for n, s in frame_sizes.items()}, state, task)
            for _ in range(self.window.num_observations)
        ]
        frames = [np.stack([each.images[name] for each in past]) for name in frame_sizes]
        answer = executor.run(frames, np.stack([each.state for each in past])).reshape(graph.output_shape)
        if resizing is None:
            expected = EagerEngine(graph, bytes).run(*self.inputs(past).values())
        else:
            given = self.inputs(past, frame_sizes=frame_sizes)
            expected = EagerEngine(resizing, bytes).run(*[given[name] for name in resizing.input_names])
        difference = np.abs(answer - expected) / graph.half_range.cpu().numpy()
        return float(np.max(np.nan_to_num(difference, nan=np.inf)))

    def _resizes(self, image: np.ndarray) -> bool:
        """Whether the engine takes frames of the camera's size."""
        is_frame = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and 0 not in image.shape
        return is_frame and self._graph_resizes

    def _engine(self, frame_sizes: Sizes) -> Engine:
        key = tuple(frame_sizes.items())
        made = self._engines.get(key)
        if made is None:
            graph = self.graph(frame_sizes)
            if self._acts_by_file:
                model, checked = self._exported()
                made = self._engine_wanted, OpenVinoEngine(graph, lambda: model), [f"by OpenVINO, {checked}"]
            else:
                made = make_engine(self._engine_wanted, graph, lambda: self.to_onnx(frame_sizes))
            self._engines[key] = made
        return made[1]
