"""Tiny untrained clones and critics for the toy kitchens, as checkpoints, and a policy server of another make."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
from websockets.asyncio.server import serve

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners import make_learner
from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.cql.config import CqlConfig
from ptr_fast.learners.mixture_bc.config import MixtureBcConfig
from ptr_fast.runtime.observation import Observation
from ptr_fast.types import CameraSpec
from ptr_robot.serving.protocol import pack, unpack
from ptr_robot.sim.environment import FULL_STATE_SPEC, STATE_SPEC, action_spec

TASK = "put block on plate"
SMALL = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)


def spec_of(size: int = 32, **changed) -> PolicySpec:
    """One camera of ``size`` pixels, or for 0 states alone."""
    cameras = (CameraSpec(name="image_0", height=size, width=size),) if size else ()
    seen = {"cameras": cameras, "state": STATE_SPEC if size else FULL_STATE_SPEC}
    tasks = TaskTable(names=(TASK, "open the drawer"), num_slots=2)
    return PolicySpec(**{**seen, "action": action_spec(4), "tasks": tasks, "control_hz": 20.0, **changed})


def save(folder: Path, config, spec: PolicySpec, mode: str = "mean", seed: int = 0) -> Path:
    """Saves a checkpoint; returns its folder."""
    learner = make_learner(config, spec, seed=seed)
    return save_checkpoint(folder, 1, learner, spec, ActConfig(mode=mode), {"split": {"sources": []}})


def clone(folder: Path, spec: PolicySpec) -> Path:
    """A clone of many modes."""
    encoder = SMALL if spec.cameras else EncoderConfig(name="none")
    return save(folder, MixtureBcConfig(encoder=encoder, hidden_dims=(16,), num_components=4), spec, "sample")


def plain_clone(folder: Path, spec: PolicySpec) -> Path:
    """A clone that acts by its mean."""
    return save(folder, BcConfig(encoder=SMALL, hidden_dims=(16,)), spec)


def critic(folder: Path, spec: PolicySpec) -> Path:
    """A critic that sees the state."""
    encoder = SMALL if spec.cameras else EncoderConfig(name="none")
    return save(folder, CqlConfig(encoder=encoder, hidden_dims=(16, 16), critic_head="reinject_action"), spec, seed=1)


def seen(spec: PolicySpec, seed: int = 0, size: int = 40) -> Observation:
    """A made-up observation."""
    rng = np.random.default_rng(seed)
    images = {camera.name: rng.integers(0, 256, (size, size, 3), np.uint8) for camera in spec.cameras}
    return Observation(images, rng.normal(size=spec.state.dim).astype(np.float32), TASK)


class OtherServer:
    """Speaks openpi's protocol and says nothing of itself; answers ``answer(number of the request, request)``."""

    def __init__(self, answer, metadata=None) -> None:
        self.requests: list[dict] = []
        self._answer, self._metadata = answer, metadata or {}
        self._loop, ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(5)
        self.url = f"ws://127.0.0.1:{self._port}"

    def _run(self, ready: threading.Event) -> None:
        async def talk(socket) -> None:
            await socket.send(pack(self._metadata))
            async for data in socket:
                self.requests.append(unpack(data))
                answer = self._answer(len(self.requests) - 1, self.requests[-1])
                if isinstance(answer, float):
                    await asyncio.sleep(answer)
                    answer = np.zeros((2, 4), np.float32)
                await socket.send(answer if isinstance(answer, str) else pack({"actions": answer}))

        async def main() -> None:
            self._stop = asyncio.Event()
            async with serve(talk, "127.0.0.1", 0, compression=None) as server:
                self._port = server.sockets[0].getsockname()[1]
                ready.set()
                await self._stop.wait()

        self._loop.run_until_complete(main())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)
