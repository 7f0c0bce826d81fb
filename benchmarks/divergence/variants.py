"""What is trained: the recipe that ran away, one change of it at a time, and recipes that should be safe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ptr_fast.config import CqlConfig, EncoderConfig

__all__ = ["BEFORE", "GRID", "Backup", "Variant"]

BEFORE = CqlConfig(
    encoder=EncoderConfig(name="conv3", num_filters=16, embedding_dim=64),
    actor_encoder="critic",
    hidden_dims=(128, 128, 128),
    num_action_samples=8,
    actor_lr=2e-3,
    critic_lr=5e-4,
    lr_schedule="cosine",
)
"""The recipe ``sim`` as it was when it left the range of returns at update 7300 of 12 000 (seed 1)."""

Backup = Literal["max", "mean", "clipped", "return"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One training run.

    Attributes:
        name: of the change; runs of one name differ in seed and length.
        seed: of weights, batches and noise.
        num_steps: updates; the cosine of the learning rates ends there.
        changes: of :data:`BEFORE`.
        backup: how the target values s': ``max`` over the actor's samples (the learner's own), ``mean`` over them,
            ``clipped`` (max, then into the range of returns) or ``return`` (max, but no less than the discounted
            return that was recorded).
        num_backup_steps: rewards summed before the target takes over from the critic.
        keeps_weights: what acts is written to the results.
    """

    name: str
    seed: int = 1
    num_steps: int = 12_000
    changes: tuple[tuple[str, Any], ...] = ()
    backup: Backup = "max"
    num_backup_steps: int = 1
    keeps_weights: bool = False

    @property
    def config(self) -> CqlConfig:
        return replace(BEFORE, lr_schedule_steps=self.num_steps, **dict(self.changes))

    def __str__(self) -> str:
        return f"{self.name}/seed{self.seed}/{self.num_steps}"


def _one(name: str, **changes: Any) -> Variant:
    return Variant(name=name, changes=tuple(changes.items()))


def _recipe(name: str, num_steps: int, **changes: Any) -> list[Variant]:
    fields = {"name": name, "num_steps": num_steps, "changes": tuple(changes.items()), "keeps_weights": True}
    return [Variant(seed=seed, **fields) for seed in (1, 2, 3)]


FROZEN = 1e-12  # a rate at which the temperature stays where it begins

_RECIPES: dict[str, dict[str, Any]] = {
    "alpha 1": {"cql_alpha": 1.0, "tau": 0.01},
    "alpha 1, discount .98": {"cql_alpha": 1.0, "tau": 0.01, "discount": 0.98},
    "alpha 1, entropy -8": {"cql_alpha": 1.0, "tau": 0.01, "target_entropy": -8.0},
    "alpha 2": {"cql_alpha": 2.0, "tau": 0.01},
}
_HYPOTHESES = [
    _one("before"),
    _one("cql_alpha 1", cql_alpha=1.0),
    _one("temperature .1", temperature_lr=FROZEN, init_temperature=0.1),
    _one("temperature 1", temperature_lr=FROZEN),
    replace(_one("backup clipped"), backup="clipped"),
    replace(_one("backup >= return"), backup="return"),
    _one("entropy -8", target_entropy=-8.0),
    _one("discount .98", discount=0.98),
    _one("discount .9", discount=0.9),
    _one("actor_lr 2e-4", actor_lr=2e-4),
    _one("critic_lr 1e-4", critic_lr=1e-4),
    _one("cql_alpha 5", cql_alpha=5.0),
    _one("cql_alpha 2", cql_alpha=2.0),
    _one("cql_alpha 0", cql_alpha=0.0),
    replace(_one("backup mean"), backup="mean"),
    _one("samples 4", num_action_samples=4),
    _one("samples 32", num_action_samples=32),
    _one("tau .02", tau=0.02),
    _one("tau .001", tau=0.001),
    _one("constant rates", lr_schedule="constant"),
    _one("own encoder", actor_encoder="own"),
    replace(_one("5-step returns"), num_backup_steps=5),
]


def _grid() -> list[Variant]:
    """In the order of worth, so that a limit of time takes the least."""
    long = {name: _recipe(name, 20_000, **changes) for name, changes in {"before": {}, **_RECIPES}.items()}
    short = {name: _recipe(name, 4_000, **changes) for name, changes in {"before": {}, **_RECIPES}.items()}
    first = [*long["before"], *long["alpha 1"], *_HYPOTHESES[:6], *short["before"], *short["alpha 1"]]
    then = [runs for name in list(_RECIPES)[1:] for runs in (*long[name], *short[name])]
    return [*first, *then, *_HYPOTHESES[6:]]


GRID = _grid()
