"""Autoregressive behaviour cloning: maximum likelihood of the bins of the recorded actions, axis by axis.

Source: PTR, ``jaxrl2/networks/autoregressive_policy.py``. Deviation: the loss counts densities, not masses, so that it
can be compared with that of a Gaussian; they differ by a constant.
"""

from __future__ import annotations

from ptr_fast.learners.imitation.likelihood import LikelihoodLearner

__all__ = ["AutoregressiveBcLearner"]


class AutoregressiveBcLearner(LikelihoodLearner):
    """See :class:`ptr_fast.learners.imitation.update.ImitationLearner`."""

    def num_dropped(self) -> int:
        """See :meth:`ImitationLearner.num_dropped`."""
        return self.spec.action.dim * super().num_dropped()
