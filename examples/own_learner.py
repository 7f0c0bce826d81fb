"""A learner of one's own: behaviour cloning whose loss a few wild demonstrations move less.

    python examples/own_learner.py [NUMBER OF UPDATES]

Reads the store of ``store_from_numpy.py``; writes ``outputs/examples/huber``. It extends the cloning that is there and
changes its loss alone; ``docs/extend.md`` shows one from nothing, and how the command line finds it."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch.nn.functional as F
from train_from_python import STORE

from ptr_fast.config import BcConfig
from ptr_fast.learners.bc import BcLearner, BcNetworks
from ptr_fast.learners.bc.networks import chunk_law
from ptr_fast.learners.bc.traits import traits
from ptr_fast.learners.registry import LearnerKind, register
from ptr_robot.recipes import recipe_named
from ptr_robot.training.config import DataConfig
from ptr_robot.verbs.pretrain import pretrain

RUN = Path("outputs/examples/huber")


@dataclass(frozen=True, kw_only=True)
class HuberConfig(BcConfig):
    """Huber's loss: squared up to ``delta`` (scaled action units), absolute beyond it."""

    delta: float = 0.2


class HuberLearner(BcLearner):
    def loss(self, inputs, batch, draws, dropout):
        """What is minimised, 0-d, and the numbers of the progress line."""
        mean_BHA = chunk_law(self.actor, inputs, self.config, dropout).mean_BA
        loss = F.huber_loss(mean_BHA, batch.actions, delta=self.config.delta)
        error = (mean_BHA.detach() - batch.actions).square().mean()
        return loss, {"train/bc_loss": loss.detach(), "actor/mse": error}


register(
    LearnerKind(
        tag="HuberConfig",
        config_class=HuberConfig,
        traits=lambda config: replace(traits(config), name="Huber cloning"),  # else all as of cloning
        make_learner=HuberLearner,
        networks=BcNetworks,
    )
)

if __name__ == "__main__":
    num_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    recipe = recipe_named("smoke-bc")
    learner = HuberConfig(encoder=recipe.learner.encoder, hidden_dims=(64, 64), lr=1e-3)
    data = DataConfig(stores=(STORE,), outcomes=("success",))
    loop = replace(recipe.loop, num_steps=num_steps, batch_size=32, log_every=250, checkpoint_every=num_steps)
    sys.exit(pretrain(replace(recipe, out=RUN, data=data, learner=learner, loop=loop)))
