"""The policies that are tried: of checkpoints, or behind a server."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.runtime.control import PythonPolicy
from ptr_robot.acting_options import ActingOptions
from ptr_robot.device import pick_device
from ptr_robot.serving.client import RemotePolicy
from ptr_robot.serving.metadata import acting_of, images_of, spec_of, window_of

__all__ = ["Contender", "RemoteActing", "load_contenders", "remote_contender"]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A policy that is tried: its label, its acting (``make_executor`` as in Policy), and what it was trained for.

    ``engine`` is what computes the actions of a :class:`ptr_fast.runtime.policy.Policy`; empty for any other policy.
    """

    label: str
    policy: Any
    spec: Any
    about: dict[str, Any]
    engine: str = ""


def load_contenders(
    checkpoints: Sequence[Path],
    labels: Sequence[str],
    acting: ActingOptions,
    device: str,
    engine: str,
) -> list[Contender]:
    """The policies of some checkpoints.

    Args:
        device: as :func:`ptr_robot.device.pick_device` takes it.
    """
    contenders = []
    for path, label in zip(checkpoints, labels, strict=True):
        policy = acting.load(path, pick_device(device, engine), engine)
        about = {"label": label, "checkpoint": str(policy.info.path), "step": policy.info.step, "mode": policy.mode}
        about |= {"engine": engine, "device": str(policy.device), **policy.act_config.told()}
        contenders.append(Contender(label=label, policy=policy, spec=policy.spec, about=about, engine=engine))
    return contenders


class RemoteActing:
    """A policy server as a policy. Without an answer the rest of the last chunk is played, then the arm stands still;
    none for ``GIVE_UP_S`` is an error.

    Args:
        url, token, ca_file: as :class:`ptr_robot.serving.client.RemotePolicy` takes them.
    """

    GIVE_UP_S = 2.0

    def __init__(self, url: str, token: str = "", ca_file: Path | None = None) -> None:
        self._remote = RemotePolicy(url, token, ca_file)
        self.metadata = self._remote.metadata
        self._failing_since: float | None = None

    def act(
        self, images: Mapping[str, np.ndarray], state: np.ndarray, task: str, seed: int | None = None
    ) -> np.ndarray | None:
        """As :meth:`ptr_robot.serving.client.RemotePolicy.act`; None where there is no answer."""
        try:
            actions = self._remote.act(images, state, task, seed)
        except RuntimeError:
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            if now - self._failing_since > self.GIVE_UP_S:
                raise
            return None
        self._failing_since = None
        return actions

    def make_executor(self, frame_sizes: Mapping[str, tuple[int, int]], task: str, seed: int = 0) -> PythonPolicy:
        """As :meth:`ptr_fast.runtime.policy.Policy.make_executor`; H and T are those of the server's metadata."""
        keys = {image["camera"]: image["key"] for image in images_of(self.metadata)}
        window, seeds = window_of(self.metadata), count(seed)
        past = window.num_observations

        def act(images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray | None:
            shown = {keys[name]: frames if past > 1 else frames[0] for name, frames in images.items()}
            return self.act(shown, state if past > 1 else state[0], task, seed=next(seeds))

        return PythonPolicy(act=act, num_actions=window.num_actions, num_observations=past)


def remote_contender(url: str, token: str = "", ca_file: Path | None = None) -> Contender:
    """The policy behind a server; what it sees and commands is in the server's metadata.

    Raises:
        RuntimeError: nobody answers. ValueError: the server is not one of ours.
    """
    acting = RemoteActing(url, token, ca_file)
    about = acting.metadata
    spec = spec_of(url, about)
    label = str(about.get("checkpoint", url))
    return Contender(label=label, policy=acting, spec=spec, about={"label": label, "server": url, **acting_of(about)})
