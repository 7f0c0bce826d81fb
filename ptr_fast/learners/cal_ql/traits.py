"""What calibrated Q-learning says about itself: what CQL says, and its bound."""

from __future__ import annotations

from dataclasses import replace

from ptr_fast.learners.cal_ql.config import CalQlConfig
from ptr_fast.learners.cql.traits import traits as cql_traits
from ptr_fast.learners.traits import Panel, Traits

__all__ = ["traits"]

PANEL = Panel(
    heading="Policy actions held up by the observed return", unit="share", series={"q/policy_bounded": "bounded"}
)


def traits(config: CalQlConfig) -> Traits:
    """Of one configuration."""
    conservative = cql_traits(config)
    return replace(
        conservative,
        name="Cal-QL",
        columns=conservative.columns | {"returns"},
        optional_columns=frozenset(),
        panels=(*conservative.panels, PANEL),
    )
