"""The methods that can be compared: which recipe, which way to the new task, how they act.

A method's recipe is ``SCALE-RECIPE``, e.g. ``states-bc`` or ``sim-cql``; see ``ptr_robot.recipes``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["METHODS", "Method", "find_method"]

Route = Literal["finetune", "joint", "target", "encoder"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One column of the table.

    Attributes:
        name: as a grid names it.
        title: as tables show it.
        recipe: of the policy, without the scale.
        route: how the demonstrations of the target are used. ``finetune``: after pre-training on the prior data;
            ``joint``: mixed with them from the first update; ``target``: alone; ``encoder``: an image encoder is
            pre-trained on the prior data, and a policy of ``recipe`` learns from the demonstrations with it.
        modes: acting modes that are tried; the first is the method's own.
        encoder: recipe of the encoder's pre-training, of route ``encoder``.
        freeze: the encoder stays as it was pre-trained.
        critic: method whose pre-training, with the same seed, gives the critic that this one learns from.
        options: more options of every training of the policy. acting: more options of ``rollout``.
        num_demos: demonstrations in the new task; 0 takes the grid's number.
        mix: share of the prior data in batches of fine-tuning and of joint training; None takes the grid's.
        critic_mix: the critic's own share in fine-tuning; None: as in the batches.
    """

    name: str
    title: str
    recipe: str
    route: Route = "finetune"
    modes: tuple[str, ...] = ("mean",)
    encoder: str = ""
    freeze: bool = False
    critic: str = ""
    options: tuple[str, ...] = ()
    acting: tuple[str, ...] = ()
    num_demos: int = 0
    mix: float | None = None
    critic_mix: float | None = None

    @property
    def needs_target(self) -> bool:
        """Whether, without demonstrations of a new task, there is nothing to train or nothing that is its own."""
        own = self.num_demos or self.mix is not None or self.critic_mix is not None
        return self.route != "finetune" or bool(own)

    def mix_in(self, mix_of_grid: float) -> float | None:
        """Share of the prior data in its batches of both; None for a route that does not mix."""
        if self.route not in ("finetune", "joint"):
            return None
        return mix_of_grid if self.mix is None else self.mix


BY_SEARCH = ("mean", "search")

_ALL = (
    Method(name="cql", title="PTR (CQL as published)", recipe="cql", modes=BY_SEARCH),
    Method(name="bc", title="BC", recipe="bc"),
    Method(name="ar-bc", title="Autoregressive BC", recipe="ar-bc", modes=("sample",)),
    Method(name="bet", title="BeT", recipe="bet", modes=("sample",)),
    Method(name="cog", title="COG (CQL, joint)", recipe="cql", route="joint", modes=BY_SEARCH),
    Method(name="bc-joint", title="BC, joint", recipe="bc", route="joint"),
    Method(name="cql-target", title="CQL, target alone", recipe="cql", route="target", modes=BY_SEARCH),
    Method(name="bc-target", title="BC, target alone", recipe="bc", route="target"),
    Method(
        name="contrast", title="Time contrast, then BC", recipe="bc", route="encoder", encoder="contrast", freeze=True
    ),
    Method(name="mae", title="MAE, then BC", recipe="bc-vit", route="encoder", encoder="mae", freeze=True),
    Method(name="mae-tuned", title="MAE, then BC, encoder trained on", recipe="bc-vit", route="encoder", encoder="mae"),
    Method(name="proposals", title="CQL with cloned proposals (ours)", recipe="proposals", modes=("search", "sample")),
    Method(
        name="proposals-joint",
        title="CQL with cloned proposals, joint",
        recipe="proposals",
        route="joint",
        modes=("search", "sample"),
    ),
    Method(
        name="proposals-target",
        title="CQL with cloned proposals, target alone",
        recipe="proposals",
        route="target",
        modes=("search", "sample"),
    ),
    Method(name="cql-n", title="CQL, 5-step, alpha 1", recipe="cql-n", modes=BY_SEARCH),
    Method(name="cql-clone", title="CQL with a cloning term", recipe="cql-clone", modes=("search", "mean")),
    Method(name="bc-success", title="BC on successes", recipe="bc-success"),
    Method(name="mixture", title="Mixture clone", recipe="mixture", modes=("sample",)),
    Method(name="flow", title="Flow BC, chunks", recipe="flow", modes=("sample",)),
    Method(
        name="flow-half",
        title="Flow BC, half of each chunk played",
        recipe="flow",
        modes=("sample",),
        acting=("--execute", "4"),
    ),
    Method(name="chunks", title="L1 chunks, ensemble", recipe="chunks", acting=("--play", "ensemble")),
    Method(name="chunks-whole", title="L1 chunks, played whole", recipe="chunks", acting=("--play", "receding")),
    Method(name="awbc", title="Advantage-weighted BC", recipe="awbc", critic="cql-n"),
    Method(
        name="awbc-shuffled",
        title="Advantage-weighted BC, weights shuffled",
        recipe="awbc",
        critic="cql-n",
        options=("--learner.weights", "shuffled"),
    ),
    Method(name="iql", title="IQL", recipe="iql", modes=BY_SEARCH),
    Method(name="cal-ql", title="Cal-QL", recipe="cal-ql", modes=BY_SEARCH),
)
METHODS = {method.name: method for method in _ALL}


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        ValueError: there is none; with the nearest.
    """
    if name in METHODS:
        return METHODS[name]
    close: Sequence[str] = difflib.get_close_matches(name, METHODS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"unknown method {name!r}{hint}; methods: {', '.join(METHODS)}")
