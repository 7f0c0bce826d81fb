"""Image encoders that are learned from frames alone, and the cloning that takes them over.

A masked autoencoder (``mae``) learns the trunk of a vision transformer: ``finetune sim-bc-vit --encoder-from RUN``
clones with it, and ``--freeze-encoder`` leaves the trunk as it is. Time contrast (``contrast``) learns the whole
encoder that the cloning recipe has (``sim-bc``, ``bridge-bc``, ``smoke-bc``).
"""

from ptr_fast.config import BcConfig, EncoderConfig
from ptr_fast.learners.masked_autoencoder import MaskedAutoencoderConfig
from ptr_fast.learners.time_contrast import TimeContrastConfig
from ptr_robot.recipes import sim, smoke
from ptr_robot.training.config import LoopConfig, PretrainConfig

SIM_VIT = EncoderConfig(name="vit", embedding_dim=64, options={"patch": 8, "width": 64, "depth": 3, "heads": 4})
SMOKE_VIT = EncoderConfig(
    name="vit", pooling="mean", embedding_dim=32, options={"patch": 8, "width": 32, "depth": 1, "heads": 2}
)
BRIDGE_VIT = EncoderConfig(name="vit", pooling="mean", options={"patch": 16, "width": 384, "depth": 12, "heads": 6})
SIM_LOOP = LoopConfig(num_steps=6_000, batch_size=128, checkpoint_every=1_000, log_every=50, num_threads=1)
BRIDGE_LOOP = LoopConfig(num_steps=100_000, batch_size=512)

RECIPES = {
    "sim-mae": (
        "masked autoencoder in toy kitchens: frames alone, a small vision transformer",
        PretrainConfig(
            learner=MaskedAutoencoderConfig(encoder=SIM_VIT, lr=3e-3, lr_schedule="cosine", normalise_patches=False),
            loop=SIM_LOOP,
        ),
    ),
    "sim-bc-vit": (
        "behaviour cloning with the encoder of sim-mae",
        PretrainConfig(
            learner=BcConfig(encoder=SIM_VIT, hidden_dims=(128, 128, 128), lr=1e-3, lr_schedule="cosine"),
            loop=sim.LOOP,
        ),
    ),
    "sim-contrast": (
        "time contrast in toy kitchens, the encoder of sim-bc",
        PretrainConfig(
            learner=TimeContrastConfig(encoder=sim.ENCODER, lr=1e-3, lr_schedule="cosine"),
            loop=sim.LOOP,
        ),
    ),
    "smoke-mae": (
        "seconds: masked autoencoder with a tiny vision transformer",
        PretrainConfig(
            learner=MaskedAutoencoderConfig(encoder=SMOKE_VIT, decoder_width=32, decoder_depth=1), loop=smoke.LOOP
        ),
    ),
    "smoke-bc-vit": (
        "seconds: behaviour cloning with the encoder of smoke-mae",
        PretrainConfig(learner=BcConfig(encoder=SMOKE_VIT, hidden_dims=(32, 32)), loop=smoke.LOOP),
    ),
    "smoke-contrast": (
        "seconds: time contrast with a tiny encoder",
        PretrainConfig(learner=TimeContrastConfig(encoder=smoke.ENCODER, num_observations=8), loop=smoke.LOOP),
    ),
    "bridge-mae": (
        "masked autoencoder on Bridge data: ViT-S, patches of 16 px, the published decoder",
        PretrainConfig(
            learner=MaskedAutoencoderConfig(
                encoder=BRIDGE_VIT,
                lr=3e-4,  # 1.5e-4 per 256 frames
                lr_schedule="cosine",
                decoder_width=512,
                decoder_depth=8,
                decoder_heads=16,
            ),
            loop=BRIDGE_LOOP,
        ),
    ),
    "bridge-bc-vit": (
        "behaviour cloning with the encoder of bridge-mae",
        PretrainConfig(learner=BcConfig(encoder=BRIDGE_VIT, lr=1e-4)),
    ),
    "bridge-contrast": (
        "time contrast on Bridge data: R3M's objective, the encoder of bridge-bc",
        PretrainConfig(learner=TimeContrastConfig(lr=1e-4)),
    ),
}
