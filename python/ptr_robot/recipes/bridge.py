"""The published configuration, for Bridge data at 128 px on a GPU."""

from ptr_fast.config import BcConfig, CqlConfig
from ptr_robot.training.config import PretrainConfig

RECIPES = {
    "bridge": ("PTR as published: CQL, ResNet-34, 160 k updates", PretrainConfig(learner=CqlConfig())),
    "bridge-bc": (
        "behaviour cloning with the same encoder",
        PretrainConfig(learner=BcConfig(lr=1e-4)),
    ),
}
