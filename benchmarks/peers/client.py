"""The asking side of ``protocol.py``: starts a worker with the interpreter that has its packages, and talks to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["PEERS_PYTHON", "Worker", "interpreter_with"]

ROOT = Path(__file__).resolve().parents[2]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"


def interpreter_with(*packages: str) -> str | None:
    """The interpreter that can import all these: this one, or the peers' own (``make peers``); None: neither."""
    for python in (sys.executable, str(PEERS_PYTHON)):
        if not Path(python).exists():
            continue
        found = f"import importlib.util, sys; sys.exit(any(importlib.util.find_spec(p) is None for p in {packages!r}))"
        if subprocess.run([python, "-c", found], capture_output=True).returncode == 0:
            return python
    return None


class Worker:
    """A running worker; a context manager that ends it.

    Args:
        module: of the worker, e.g. ``benchmarks.peers.jax_worker``.
        python: interpreter with its packages.
        environment: variables on top of this process's.
    """

    def __init__(self, module: str, python: str, environment: dict[str, str] | None = None) -> None:
        self.module = module
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'python'}", **(environment or {})}
        self.process = subprocess.Popen(
            [python, "-W", "ignore", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env,
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            RuntimeError: the worker answered with an error or ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.module} ended with code {self.process.wait()} at {do!r}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.module} {do}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the worker."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
