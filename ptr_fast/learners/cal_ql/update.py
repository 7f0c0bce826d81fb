"""Calibrated Q-learning: CQL whose log-sum-exp sees Q of a policy action as no lower than the observed return.

Source: Nakamoto et al. 2023 (arXiv 2303.05479), equation 5.1, and its authors' program, which bounds the policy's
actions and not the uniform ones. Deviations: as in PTR's CQL the policy's actions are drawn at s alone, not at s' as
well; a failed episode gives no bound, since its recording was cut off and nobody knows what would have followed.
"""

from __future__ import annotations

import torch

from ptr_fast.learners.cal_ql.config import CalQlConfig
from ptr_fast.learners.cql.terms import cql_info
from ptr_fast.learners.cql.update import CqlLearner
from ptr_fast.learners.draws import Draws
from ptr_fast.types import Batch

__all__ = ["CalQlLearner"]


class CalQlLearner(CqlLearner):
    """The learner of CQL with another lower bound; made as :class:`ptr_fast.learners.base.BaseLearner`."""

    config: CalQlConfig

    def lower_bounds(self, batch: Batch) -> tuple[None, torch.Tensor]:
        """No bound of the target; the observed return for Q of policy actions."""
        return None, batch.returns

    def update(self, batch: Batch, step: int, draws: Draws | None = None) -> dict[str, torch.Tensor]:
        """See :meth:`ptr_fast.learners.CqlLearner.update`; the batch has the column ``returns``."""
        terms = self.update_with_terms(batch, step, draws)
        is_bounded_EBK = terms.q_policy_EBK < batch.returns[:, None]
        return {**cql_info(batch, terms), "q/policy_bounded": is_bounded_EBK.float().mean()}
