"""Methods with a conservative critic, each for state-only kitchens and kitchens of 64 px, and as a smoke test.

``cql`` is PTR with the published constants. ``cql-n``, ``cql-clone`` and ``proposals`` are the same critic as it was
found to learn in a few thousand updates: targets that look five steps ahead and are bounded by the observed return, a
discount that leaves something of success at the start of long episodes, and a tenth of the conservative term.
"""

from typing import Any

from ptr_fast.config import ActConfig, CqlConfig, RewardConfig
from ptr_fast.learners.cql_proposals import CqlProposalsConfig
from ptr_robot.recipes.kinds import of_every_kind
from ptr_robot.training.config import PretrainConfig

SEARCH = ActConfig(mode="search", num_candidates=32, num_elites=4)
AS_FOUND = RewardConfig(num_steps=5, lower_bound_returns=True)
CRITIC: dict[str, Any] = {"cql_alpha": 1.0, "discount": 0.98, "tau": 0.01}


PUBLISHED = "PTR with the published constants"
LONGER = "CQL, five-step targets bounded by the return"
CLONED = "CQL, its actor with a cloning term, by search"
PROPOSALS = "CQL that chooses among the proposals of a clone"


STATE_SEEN: dict[str, Any] = {"critic_head": "reinject_action"}  # the published form does not show the critic the state
RATES = {"states": {"actor_lr": 1e-3, "critic_lr": 1e-3}, "sim": {"actor_lr": 1e-3, "critic_lr": 5e-4}}
FOUND: dict[str, Any] = {"rewards": AS_FOUND, "rates": RATES}

RECIPES = {
    **of_every_kind("cql", PUBLISHED, CqlConfig, ActConfig(), **STATE_SEEN),
    **of_every_kind("cql-n", LONGER, CqlConfig, ActConfig(), **FOUND, **CRITIC, **STATE_SEEN),
    **of_every_kind("cql-clone", CLONED, CqlConfig, SEARCH, **FOUND, **CRITIC, **STATE_SEEN, cloning_weight=1.0),
    **of_every_kind("proposals", PROPOSALS, CqlProposalsConfig, SEARCH, **FOUND, **CRITIC),
    "bridge-proposals": (
        f"Bridge: {PROPOSALS}",
        PretrainConfig(learner=CqlProposalsConfig(hidden_dims=(256, 256, 256)), act=SEARCH, rewards=AS_FOUND),
    ),
}
