"""The critic of another run, as it is: it says how much better a recorded action is than what its policy does.

Shapes: B states, K samples per state, A action, E critics.
"""

from __future__ import annotations

from typing import Any

import torch

from ptr_fast.checkpoint import load_networks, open_reference
from ptr_fast.config import ActConfig, PolicySpec, RunReference
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.registry import acts_of, make_networks, traits_of, values_of

__all__ = ["FrozenCritic"]


class FrozenCritic:
    """Averaged critics and averaged policy of a checkpoint, whatever learner trained it.

    Args:
        reference: the run.
        spec: what the asking learner sees and commands; the same as the run's, but that a task may have another slot.
        sees_images: whether the asking learner looks at images.
        num_samples: K.
        device: where the networks live.

    Raises:
        ValueError: the run knows no values, samples no actions, looks at what the asking learner does not see, or was
            trained for other surroundings.
        DataError: no checkpoint there, or a damaged one.
    """

    def __init__(
        self, reference: RunReference, spec: PolicySpec, sees_images: bool, num_samples: int, device: torch.device
    ) -> None:
        info = open_reference(reference)
        where = f"learner.critic {info.path}"
        self._values, self._acts = values_of(info.config), acts_of(info.config)
        _check_same(info.spec, spec, where)
        traits = traits_of(info.config)
        if "images" in traits.columns and not sees_images:
            raise ValueError(f"{where}: its critic looks at images, and this learner's encoder is none")
        if traits.window.num_observations > 1:
            raise ValueError(f"{where}: expected a critic of one observation, got {traits.window.num_observations}")
        shape = None
        if "search" in traits.modes:
            shape = self._acts.noise_shape(ActConfig(mode="search", num_candidates=num_samples), info.spec)
        if shape is None:
            raise ValueError(f"{where}: expected a critic with a policy whose samples it values, got {traits.name}")
        self.noise_shape = shape
        self._networks = make_networks(info.config, info.spec, traits.networks)
        load_networks(info, self._networks)
        for network in self._networks.values():
            network.requires_grad_(False).to(device)
        slots = [0] * spec.tasks.num_slots
        for name in spec.tasks.names:
            slots[spec.tasks.slot(name)] = info.spec.tasks.slot(name)
        self._slots = torch.tensor(slots, device=device)

    @torch.no_grad()
    def advantage(self, inputs: Inputs, actions_BA: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """``min over E of Q(s, a)  -  mean over K of (min over E of Q(s, a_k))``, ``[B]``, units of the reward.

        Args:
            inputs: of the asking learner.
            actions_BA: recorded actions, scaled.
            eps: standard normal ``[B, *noise_shape]``, which makes the a_k of the critic's own policy.
        """
        inputs = inputs._replace(task_id=self._slots[inputs.task_id])
        law = self._acts.distribution(self._networks, inputs, averaged=True)
        assert law is not None
        actions_BKA = torch.cat([actions_BA[:, None], law.sample(eps)], dim=1)
        q_BK = self._values.q(self._networks, inputs, actions_BKA, averaged=True).amin(dim=0)
        return q_BK[:, 0] - q_BK[:, 1:].mean(dim=1)


def _check_same(theirs: PolicySpec, mine: PolicySpec, where: str) -> None:
    cameras = [[(c.name, c.height, c.width) for c in spec.cameras] for spec in (mine, theirs)]
    pairs: list[tuple[str, Any, Any]] = [
        ("cameras", cameras[0], cameras[1]),
        ("state", (mine.state.names, mine.state.units), (theirs.state.names, theirs.state.units)),
        ("action names", mine.action.names, theirs.action.names),
        ("action units", mine.action.units, theirs.action.units),
        ("action low bounds", mine.action.low, theirs.action.low),
        ("action high bounds", mine.action.high, theirs.action.high),
    ]
    for what, expected, got in pairs:
        if expected != got:
            raise ValueError(f"{where}: {what} differ: expected {expected}, got {got}")
    if unknown := [name for name in mine.tasks.names if name not in theirs.tasks.names]:
        known = list(theirs.tasks.names)
        raise ValueError(
            f"{where}: the critic does not know the task {unknown[0]!r}, it knows {known}; give the critic of a run "
            "that was fine-tuned on it (finetune --references critic=RUN)"
        )
