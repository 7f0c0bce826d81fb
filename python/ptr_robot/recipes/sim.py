"""Toy kitchens at 64 px: a small encoder and high learning rates, so that a CPU learns in minutes.

How these values were found stands in benchmarks/NOTES.md. What differs from the published configuration, and why: the
actor looks through the critic's encoder (the reference's ``share_encoders``), because its own learns too slowly from Q
alone; eight sampled actions instead of four; higher learning rates, going to zero; and the policy acts by search over
the averaged networks (the mean of the ten best of fifty samples), because the critic learns before the actor.
"""

from ptr_fast.config import ActConfig, BcConfig, CqlConfig, EncoderConfig
from ptr_robot.train_config import LoopConfig, PretrainConfig

ENCODER = EncoderConfig(name="conv3", num_filters=16, embedding_dim=64)
LOOP = LoopConfig(num_steps=4_000, checkpoint_every=1_000, log_every=50, num_threads=1)

RECIPES = {
    "sim": (
        "PTR in toy kitchens: CQL, three convolutions, minutes on a CPU",
        PretrainConfig(
            learner=CqlConfig(
                encoder=ENCODER,
                actor_encoder="critic",
                hidden_dims=(128, 128, 128),
                num_action_samples=8,
                actor_lr=2e-3,
                critic_lr=5e-4,
                lr_schedule="cosine",
            ),
            act=ActConfig(mode="search", num_elites=10),
            loop=LOOP,
        ),
    ),
    "sim-bc": (
        "behaviour cloning with the same encoder",
        PretrainConfig(
            learner=BcConfig(encoder=ENCODER, hidden_dims=(128, 128, 128), lr=1e-3, lr_schedule="cosine"),
            loop=LOOP,
        ),
    ),
}
