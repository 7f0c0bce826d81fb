"""Behaviour cloning by a mixture of Gaussians: maximum likelihood of the recorded actions.

Source: ``BC-GMM`` of robomimic (Mandlekar et al. 2021), without recurrence.
"""

from __future__ import annotations

import torch

from ptr_fast.learners.imitation.likelihood import LikelihoodLearner
from ptr_fast.nets.mixture import Mixture

__all__ = ["MixtureBcLearner"]


class MixtureBcLearner(LikelihoodLearner):
    """See :class:`ptr_fast.learners.imitation.update.ImitationLearner`."""

    def measured(self, law: Mixture) -> dict[str, torch.Tensor]:
        """Spread of the components, and the entropy of their weights."""
        entropy_B = -(law.log_weight_BC.exp() * law.log_weight_BC).sum(dim=1)
        return {
            "actor/std": law.std_BCA.mean(),
            "actor/std_min": law.std_BCA.min(),
            "actor/component_entropy": entropy_B.mean(),
        }
