"""Toy kitchens at 64 px: a small encoder and high learning rates, so that a CPU learns in minutes.

How these values were found stands in benchmarks/NOTES.md. What differs from the published configuration, and why:

- The actor looks through the critic's encoder (the reference's ``share_encoders``): its own learns too slowly from Q.
- Eight sampled actions instead of four, and higher learning rates that go to zero: a few thousand updates have to do.
- ``cql_alpha`` 1 instead of 10: at 10 Q sinks below every possible return within 7000 updates.
- ``target_entropy`` -8 nats instead of -4, a spread of 0.03 instead of 0.09 per axis: critics tell actions apart more
  sharply than 0.09, so the temperature rose without end to hold that, and Q sank, only later, at ``cql_alpha`` 1 too.
- ``tau`` 0.01 instead of 0.005: the averaged critic follows soon enough for Q to reach the returns within 3000 updates.
- The policy acts by search over the averaged networks (the mean of the ten best of fifty samples): the critic learns
  before the actor.
"""

from ptr_fast.config import ActConfig, CqlConfig, EncoderConfig
from ptr_robot.training.config import LoopConfig, PretrainConfig

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
                cql_alpha=1.0,
                target_entropy=-8.0,
                tau=0.01,
                actor_lr=2e-3,
                critic_lr=5e-4,
                lr_schedule="cosine",
            ),
            act=ActConfig(mode="search", num_elites=10),
            loop=LOOP,
        ),
    ),
}
