"""Toy kitchens at 64 px: a small encoder and higher learning rates, so that a CPU learns in minutes.

Starting points were measured (benchmarks/NOTES.md): the published rates of 1e-4 and 3e-4 need far more updates than a
CPU does in minutes, and the online networks oscillate, so the policy acts by search over the averaged networks.
"""

from ptr_fast.config import AugmentConfig, BcConfig, CqlConfig, EncoderConfig
from ptr_robot.train_config import LoopConfig, PretrainConfig

ENCODER = EncoderConfig(name="conv3", num_filters=16, pooling="spatial_softmax", embedding_dim=64)
AUGMENT = AugmentConfig(crop_padding=2)
LOOP = LoopConfig(num_steps=2_000, checkpoint_every=500, log_every=50, num_threads=1)

RECIPES = {
    "sim": (
        "PTR in toy kitchens: CQL, three convolutions, minutes on a CPU",
        PretrainConfig(
            learner=CqlConfig(
                encoder=ENCODER, hidden_dims=(128, 128, 128), actor_lr=5e-4, critic_lr=5e-4, augment=AUGMENT
            ),
            act_mode="search",
            loop=LOOP,
        ),
    ),
    "sim-bc": (
        "behaviour cloning with the same encoder",
        PretrainConfig(
            learner=BcConfig(encoder=ENCODER, hidden_dims=(128, 128, 128), lr=1e-3, augment=AUGMENT), loop=LOOP
        ),
    ),
}
