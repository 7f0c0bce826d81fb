"""Networks: image encoders, the actor, the critic. Images are BCHW in shape and channels_last in memory."""

from ptr_fast.nets.build import Temperature, make_actor, make_critic
from ptr_fast.nets.critic import Critic, EnsembleHead, Hoisted
from ptr_fast.nets.encoders import Encoder, ImageEncoder, make_encoder
from ptr_fast.nets.mixture import Mixture, MixturePolicy
from ptr_fast.nets.policy import Actor, TanhGaussian, UnitGaussian

__all__ = [
    "Actor",
    "Critic",
    "Encoder",
    "EnsembleHead",
    "Hoisted",
    "ImageEncoder",
    "Mixture",
    "MixturePolicy",
    "TanhGaussian",
    "Temperature",
    "UnitGaussian",
    "make_actor",
    "make_critic",
    "make_encoder",
]
