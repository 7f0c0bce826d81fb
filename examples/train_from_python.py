"""Train from Python: a recipe with its values changed, the same run as ``ptr-fast pretrain`` makes.

    python examples/train_from_python.py [NUMBER OF UPDATES]

Reads the store of ``store_from_numpy.py``; writes ``outputs/examples/run``. The command line is:

    ptr-fast pretrain smoke-cql-n --data.stores outputs/examples/store --num-steps 1000 --out outputs/examples/run ...
"""

import sys
from dataclasses import replace
from pathlib import Path

from ptr_robot.recipes import recipe_named
from ptr_robot.training.config import DataConfig
from ptr_robot.verbs.pretrain import pretrain
from ptr_robot.verbs.select import Args, select

STORE, RUN = Path("outputs/examples/store"), Path("outputs/examples/run")


if __name__ == "__main__":
    num_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    recipe = recipe_named("smoke-cql-n")  # CQL whose targets look five steps ahead, with a small encoder
    config = replace(
        recipe,
        out=RUN,
        data=DataConfig(stores=(STORE,), validation_share=0.1),
        learner=replace(recipe.learner, hidden_dims=(64, 64), actor_lr=1e-3, critic_lr=1e-3, standardise_state=True),
        loop=replace(recipe.loop, num_steps=num_steps, batch_size=32, log_every=250, checkpoint_every=500),
    )
    code = pretrain(config)
    if code:  # stopped by a signal (128 + its number), or by the divergence alarm (3)
        sys.exit(code)
    chosen = select(Args(run=RUN))  # the checkpoint whose critic understands held-out episodes best
    print(f"{RUN}: step {chosen['selected']} is chosen; ptr-fast report --run {RUN} draws its curves")
