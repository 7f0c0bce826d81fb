"""CQL as other packages run it beside ours: d3rlpy (pixels, states) and torchrl (states), each from its own package.

``python -m benchmarks.bench_peers [d4rl d4rl_small pixels]``. Packages that are not installed are named in the row
(``make peers``). Same sizes, hyperparameters, optimiser and number of threads. What differs is in the row: both peers
sample the policy at s' too for the conservative term, so ours also runs with as many actions as they evaluate there
(``ours_equal_actions``), and then evaluates more of them in the target.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cases import StepCase, make_batch
from benchmarks.harness import Milliseconds, compare
from benchmarks.peers.client import Worker, interpreter_with
from ptr_fast import native
from ptr_fast.config import AugmentConfig, CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.kernels import dispatch
from ptr_fast.learners import CqlLearner
from ptr_fast.types import ActionSpec, Batch, CameraSpec, StateSpec

PEERS = {"d3rlpy": "benchmarks.peers.d3rlpy_worker", "torchrl": "benchmarks.peers.torchrl_worker"}
DIFFERENCES = {
    "d3rlpy": "K policy actions at s' in the conservative term as well; temperature stepped before the actor's loss; "
    "an encoder per Q function and copies of the observation before it (pixels); losses read back every step",
    "torchrl": "K policy actions at s' in the conservative term as well; sum instead of mean over the two critics",
}


@dataclass(frozen=True, kw_only=True)
class PeerCase:
    """One problem.

    Attributes:
        peers: who can run it.
        num_batch, action_dim, num_actions: B, A, K.
        state_dim: 0 for pixels.
        hidden_dims: of policy and Q functions.
        image_size: of pixels.
        num_rounds, num_steps: rounds, and steps in one.
    """

    peers: tuple[str, ...]
    num_batch: int
    action_dim: int
    num_actions: int
    state_dim: int = 0
    hidden_dims: tuple[int, ...] = (256, 256, 256)
    image_size: int = 64
    num_rounds: int = 7
    num_steps: int = 2

    def __str__(self) -> str:
        seen = f"{self.state_dim}-d state" if self.state_dim else f"conv3 {self.image_size}x{self.image_size}"
        return f"{seen}, {self.action_dim}-d action, batch {self.num_batch}, K={self.num_actions}, {self.hidden_dims}"

    def config(self, num_actions: int) -> CqlConfig:
        """Ours; D4RL's usual hyperparameters for states, the paper's for pixels."""
        encoder = EncoderConfig(name="conv3" if not self.state_dim else "none", num_filters=16)
        return CqlConfig(
            encoder=encoder,
            hidden_dims=self.hidden_dims,
            critic_head="plain",
            num_action_samples=num_actions,
            discount=0.99,
            cql_alpha=5.0,
            augment=AugmentConfig(crop_padding=0, jitter_probability=0.0),  # the peers have none
        )


CASES = {
    "d4rl": PeerCase(peers=("d3rlpy", "torchrl"), num_batch=256, action_dim=6, num_actions=10, state_dim=17),
    "d4rl_small": PeerCase(
        peers=("d3rlpy", "torchrl"),
        num_batch=256,
        action_dim=6,
        num_actions=10,
        state_dim=17,
        hidden_dims=(256, 256),
    ),
    "pixels": PeerCase(peers=("d3rlpy",), num_batch=16, action_dim=7, num_actions=4, num_rounds=5, num_steps=1),
}


class Ours:
    """Our learner on a case's sizes."""

    def __init__(self, case: PeerCase, num_actions: int, device: str = "cpu") -> None:
        names, units = tuple(f"x{i}" for i in range(case.action_dim)), ("1",) * case.action_dim
        state = tuple(f"s{i}" for i in range(max(case.state_dim, 1)))
        spec = PolicySpec(
            cameras=(CameraSpec(name="image_0", height=case.image_size, width=case.image_size),),
            state=StateSpec(names=state, units=("1",) * len(state)),
            action=ActionSpec(names=names, units=units, low=(-1.0,) * case.action_dim, high=(1.0,) * case.action_dim),
            tasks=TaskTable(names=("bench",), num_slots=1),
            control_hz=5.0,
        )
        self.learner = CqlLearner(case.config(num_actions), spec, seed=0, device=device)
        sizes = StepCase(encoder="conv3", num_batch=case.num_batch, image_size=case.image_size)
        self.batch: Batch = make_batch(sizes, device, case.action_dim, len(state))
        self.number, self.num_steps = 0, case.num_steps

    @property
    def num_parameters(self) -> int:
        nets = self.learner.networks()
        return sum(p.numel() for name in ("actor", "critic") for p in nets[name].parameters())

    def update(self) -> dict[str, torch.Tensor]:
        """One update."""
        self.number += 1
        return self.learner.update(self.batch, self.number)

    def step(self) -> Milliseconds:
        """The mean of ``num_steps`` updates."""
        begin = time.perf_counter()
        for _ in range(self.num_steps):
            info = self.update()
        assert bool(torch.isfinite(torch.stack([value.float() for value in info.values()])).all())
        return Milliseconds((time.perf_counter() - begin) * 1e3 / self.num_steps)


class Peer:
    """Another package's learner, in a process of its own."""

    def __init__(self, name: str, case: PeerCase, python: str, device: str = "cpu") -> None:
        config = case.config(case.num_actions)
        self.sizes = {
            "observation_shape": [case.state_dim] if case.state_dim else [3, case.image_size, case.image_size],
            "num_filters": config.encoder.num_filters,
            "embedding_dim": config.encoder.embedding_dim,
            "num_batch": case.num_batch,
            "action_dim": case.action_dim,
            "hidden_dims": list(case.hidden_dims),
            "device": device,
        }
        names = ("num_critics", "num_action_samples", "discount", "tau", "cql_alpha")
        self.sizes |= {key: getattr(config, key) for key in (*names, "actor_lr", "critic_lr", "temperature_lr")}
        self.worker = Worker(PEERS[name], python, {"PTR_FAST_BENCH_THREADS": str(torch.get_num_threads())})
        self.number, self.num_steps = 0, case.num_steps

    def setup(self) -> dict[str, Any]:
        """Its first step: finite losses, number of parameters, version."""
        return self.worker.ask("setup", sizes=self.sizes)

    def step(self) -> Milliseconds:
        """The mean of ``num_steps`` updates."""
        self.number += self.num_steps
        return Milliseconds(self.worker.ask("step", number=self.number, count=self.num_steps)["ms"])


def run(case: PeerCase, device: str = "cpu") -> dict[str, Any]:
    """The row of a case."""
    ours, equal = Ours(case, case.num_actions, device), Ours(case, case.num_actions * 3 // 2, device)
    peers, missing = {}, {}
    for name in case.peers:
        python = interpreter_with(name)
        if python is None:
            missing[name] = f"{name} is not installed (make peers)"
        else:
            peers[name] = Peer(name, case, python, device)

    def gate() -> dict[str, Any]:
        for learner in (ours, equal):
            assert all(bool(value.isfinite()) for value in learner.update().values())
        found = {name: peer.setup() for name, peer in peers.items()}
        parameters = {"ours": ours.num_parameters} | {name: answer["parameters"] for name, answer in found.items()}
        return {"parameters": parameters, "peers": {name: answer["versions"] for name, answer in found.items()}}

    try:
        return compare(
            "peers",
            str(case),
            {"ours": ours.step, "ours_equal_actions": equal.step} | {name: peer.step for name, peer in peers.items()},
            gate,
            num_rounds=case.num_rounds,
            not_installed=missing,
            differences={name: DIFFERENCES[name] for name in peers},
            kernels=sorted({f"{choice.op}: {choice.backend.name}" for choice in dispatch.explain()}),
        )
    finally:
        for peer in peers.values():
            peer.worker.close()


def main(argv: list[str]) -> None:
    torch.set_num_threads(int(os.environ.get("PTR_FAST_BENCH_THREADS", "1")))
    native.keep_freed_memory()
    unknown = set(argv) - set(CASES)
    if unknown:
        raise SystemExit(f"unknown case {sorted(unknown)}; known: {list(CASES)}")
    for name in argv or CASES:
        run(CASES[name])


if __name__ == "__main__":
    main(sys.argv[1:])
