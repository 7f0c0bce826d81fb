"""A few seconds on a CPU: shows that every part runs, teaches nothing."""

from ptr_fast.config import BcConfig, CqlConfig, EncoderConfig
from ptr_robot.training.config import LoopConfig, PretrainConfig

ENCODER = EncoderConfig(name="conv3", num_filters=8, pooling="spatial_softmax", embedding_dim=32)
LOOP = LoopConfig(num_steps=40, batch_size=8, log_every=10, checkpoint_every=20, num_threads=1)

RECIPES = {
    "smoke": (
        "seconds: CQL with a tiny encoder",
        PretrainConfig(learner=CqlConfig(encoder=ENCODER, hidden_dims=(32, 32)), loop=LOOP),
    ),
    "smoke-bc": (
        "seconds: behaviour cloning with a tiny encoder",
        PretrainConfig(learner=BcConfig(encoder=ENCODER, hidden_dims=(32, 32)), loop=LOOP),
    ),
}
