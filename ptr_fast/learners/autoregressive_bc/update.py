"""Autoregressive behaviour cloning: maximum likelihood of the bins of the recorded actions, axis by axis.

Source: PTR, ``jaxrl2/networks/autoregressive_policy.py``. Deviation: the loss counts densities, not masses, so that it
can be compared with that of a Gaussian; they differ by a constant.
"""

from __future__ import annotations

import torch

from ptr_fast.config import PolicySpec
from ptr_fast.learners.autoregressive_bc.config import AutoregressiveBcConfig
from ptr_fast.learners.autoregressive_bc.networks import AutoregressiveBcNetworks
from ptr_fast.learners.autoregressive_bc.traits import traits
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.imitation.likelihood import LikelihoodLearner

__all__ = ["AutoregressiveBcLearner"]


class AutoregressiveBcLearner(LikelihoodLearner):
    """See :class:`ptr_fast.learners.imitation.update.ImitationLearner`."""

    def __init__(
        self,
        config: AutoregressiveBcConfig,
        spec: PolicySpec,
        seed: int = 0,
        device: torch.device | str = "cpu",
        encoder_dtype: torch.dtype | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        networks, told = AutoregressiveBcNetworks(config), traits(config)
        super().__init__(config, spec, seed, device, encoder_dtype, ranks, networks=networks, traits=told)

    def num_dropped(self) -> int:
        """See :meth:`ImitationLearner.num_dropped`."""
        return self.spec.action.dim * super().num_dropped()
