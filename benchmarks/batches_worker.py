"""Loading and updates of one camera, in a process that imports one state of the package; see ``bench_batches``.

It is run by its path with the state's folders on the search path, and works with both: before, a frame source was given
to a loader as it is, and a batch had neither cameras nor axes of time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench_loader import write_store
from benchmarks.cases import StepCase, make_batch
from benchmarks.peers.protocol import serve
from ptr_fast import native, types
from ptr_fast.config import PolicySpec, RewardConfig, TaskTable
from ptr_fast.data.device_frames import DeviceFrames
from ptr_fast.data.frames import open_frames
from ptr_fast.data.loader import Loader
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.transitions import Transitions
from ptr_fast.learners import make_learner

TODAY = hasattr(types, "Window")
if TODAY:
    from ptr_fast.learners import BcConfig, CqlConfig
else:
    from ptr_fast.config import BcConfig, CqlConfig
CAMERA = types.CameraSpec(name="image_0", height=64, width=64)
BATCH = 64
CLONING = frozenset({"images", "state", "task_id", "actions"})


class Worker:
    """One state of the package: batches from a store, updates of a learner."""

    def versions(self) -> dict[str, Any]:
        """Whether the native module is there."""
        return {"native": native.module() is not None}

    def open(self, folder: str, tier: str, learner: str) -> dict[str, Any]:
        """Opens a store for a learner; answers the digest of a batch, without what one of both states leaves out."""
        path = Path(folder) / ("raw" if tier == "map" else "jpeg")
        store = EpisodeStore.open(path) if path.exists() else write_store(path, path.name)
        camera = {} if TODAY else {"camera": "image_0"}
        table = Transitions(
            store,
            task_table=TaskTable(names=("bench",), num_slots=1),
            action=store.meta.action,
            rewards=RewardConfig(),
            **camera,
        )
        frames: Any = open_frames(store, "image_0", 0 if tier == "jpeg" else None)
        sampler = MixtureSampler([[len(table)]], 1.0, BATCH, 0)
        columns = {"columns": CLONING} if TODAY and learner == "bc" else {}
        make: Any = DeviceFrames if tier == "device" else Loader
        self.batches = make([table], [{"image_0": frames} if TODAY else frames], sampler, **columns)
        return {"digest": self._digest(self.batches.batch(0))}

    def load(self, step: int, count: int) -> dict[str, Any]:
        """Time of all threads for some batches, whose frames are read."""
        begin = time.process_time()
        for number in range(step, step + count):
            batch = self.batches.batch(number)
            if isinstance(self.batches, DeviceFrames):
                self.batches._make(number)
            del batch
        return {"ms": 1e3 * (time.process_time() - begin)}

    def learn(self, learner: str, encoder: str, num_batch: int) -> dict[str, Any]:
        """Makes a learner and a batch; answers the digest of its weights after three updates."""
        case = StepCase(encoder=encoder, num_batch=num_batch, num_filters=16 if encoder == "conv3" else 64)
        names, units = tuple("xyzrpyg"), ("1",) * 7
        spec = PolicySpec(
            state=types.StateSpec(names=names, units=units),
            action=types.ActionSpec(names=names, units=units, low=(-1.0,) * 7, high=(1.0,) * 7),
            tasks=TaskTable(names=("bench",), num_slots=16),
            control_hz=5.0,
            **({"cameras": (CAMERA,)} if TODAY else {"camera": CAMERA}),
        )
        config = CqlConfig(encoder=case.config.encoder) if learner == "cql" else BcConfig(encoder=case.config.encoder)
        self.learner, self.batch = make_learner(config, spec, seed=0), make_batch(case)
        for step in range(3):
            self.learner.update(self.batch, step)
        digest = hashlib.sha256()
        for network in self.learner.networks().values():
            for value in network.state_dict().values():
                digest.update(value.detach().contiguous().numpy().tobytes())
        return {"digest": digest.hexdigest()}

    def update(self, step: int, count: int) -> dict[str, Any]:
        """Time of this thread for some updates."""
        begin = time.thread_time()
        for number in range(step, step + count):
            self.learner.update(self.batch, number)
        return {"ms": 1e3 * (time.thread_time() - begin)}

    def _digest(self, batch: Any) -> str:
        """Of the columns that cloning reads, one after another."""
        digest = hashlib.sha256()
        for name in sorted(CLONING):
            value = getattr(batch, name)
            value = value["image_0"] if TODAY and name == "images" else value
            if dataclasses.is_dataclass(value):
                value = value.pool[value.index]
            digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    worker = Worker()
    serve({name: getattr(worker, name) for name in ("versions", "open", "load", "learn", "update")})
