"""Rows A, A' and B: JAX steps on weights, batch and draws that another process wrote; see ``protocol.py``."""

from __future__ import annotations

import os
import time
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
if os.environ.get("PTR_FAST_BENCH_THREADS", "1") == "1":  # the other variants run on one thread
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.jax_nets import from_flax, to_flax
from benchmarks.peers.jax_step import JaxStep
from benchmarks.peers.protocol import serve


class Worker:
    """One variant: compiled once, stepped on request."""

    def setup(self, file: str, sizes: dict[str, Any], shared_forwards: bool, dtype: str) -> dict[str, Any]:
        """Load, compile and take the gate's step; answers the losses, the seconds of compilation and FLOPs."""
        arrays = dict(np.load(file))
        self.named = {name.partition("/")[2]: value for name, value in arrays.items() if name.startswith("weight/")}
        self.batch = {n.partition("/")[2]: jnp.array(v) for n, v in arrays.items() if n.startswith("batch/")}
        draws: dict[str, Any] = {}
        for name, value in arrays.items():
            _, *path = name.split("/")
            if not name.startswith("draws/"):
                continue
            node = draws
            for part in path[:-1]:
                node = node.setdefault(part, {})
            node[path[-1]] = jnp.array(value)
        step = JaxStep(sizes, shared_forwards, jnp.dtype(dtype))
        self.state = step.initial_state(to_flax(self.named))
        num_batch = self.batch["actions"].shape[0]
        self.draw = jax.jit(lambda number: step.draw(jax.random.fold_in(jax.random.key(0), number), num_batch))
        begin = time.perf_counter()
        lowered = jax.jit(step.update, donate_argnums=0).lower(self.state, self.batch, draws)
        self.update = lowered.compile()
        seconds = time.perf_counter() - begin
        cost = self.update.cost_analysis() or {}
        self.state, losses = self.update(self.state, self.batch, draws)
        return {
            "losses": {name: float(value) for name, value in losses.items()},
            "compile_s": round(seconds, 1),
            "gflop": round(float(cost.get("flops", 0.0)) / 1e9, 3),
            "device": str(jax.devices()[0]),
            "versions": {"jax": jax.__version__},
        }

    def weights(self, file: str) -> dict[str, Any]:
        """Write the present weights under our names."""
        np.savez(file, **from_flax(jax.device_get(self.state["weights"]), self.named))
        return {}

    def step(self, number: int, count: int = 1) -> dict[str, Any]:
        """``count`` steps; milliseconds until the last one's result is there, per step."""
        jax.block_until_ready(self.state)
        begin = time.perf_counter()
        for i in range(count):
            self.state, losses = self.update(self.state, self.batch, self.draw(number + i))
        jax.block_until_ready((self.state, losses))
        return {"ms": (time.perf_counter() - begin) * 1e3 / count, "critic_loss": float(losses["critic_loss"])}


if __name__ == "__main__":
    if cache := os.environ.get("PTR_FAST_BENCH_JAX_CACHE"):
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    worker = Worker()
    serve({"setup": worker.setup, "weights": worker.weights, "step": worker.step})
