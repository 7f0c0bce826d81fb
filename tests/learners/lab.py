"""A package as a stranger writes one: two learners, their recipes and entry points, in a folder of its own.

``install`` writes it into a folder; whoever has that folder on the path has the learners. It knows nothing of the
house but what ``ptr_fast.learners`` offers:

- ``LabConfig`` acts: one network with a name of its own and no law of its actions, which learns how far the recorded
  actions lie from their mean (fitted before the first update) and, if it has a teacher, from the teacher's actions.
- ``LabFeatures`` does not act: it learns an image encoder from the difference of brightness.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["install"]

LEARNER = '''
from dataclasses import dataclass
from typing import Any

from ptr_fast.config import EncoderConfig, LearnerConfig, RunReference
from ptr_fast.learners.registry import LearnerKind, register
from ptr_fast.learners.traits import Panel, Traits


@dataclass(frozen=True, kw_only=True)
class LabConfig(LearnerConfig):
    """A policy that acts by a linear map of what it sees and of the state.

    Attributes:
        lr: learning rate.
        encoder: image encoder.
        teacher: another run, whose actions count as much as the recorded ones.
    """

    lr: float = 1e-2
    encoder: EncoderConfig = EncoderConfig(name="conv3", num_filters=4, pooling="mean", embedding_dim=8)
    teacher: RunReference | None = None


@dataclass(frozen=True, kw_only=True)
class TaughtConfig(LabConfig):
    """The same, always with a teacher."""

    teacher: RunReference = RunReference()


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(LearnerConfig):
    """An image encoder alone.

    Attributes:
        lr: learning rate.
        encoder: image encoder.
    """

    lr: float = 1e-3
    encoder: EncoderConfig = EncoderConfig(name="conv3", num_filters=4, pooling="mean", embedding_dim=8)


def lab_traits(config: LabConfig) -> Traits:
    return Traits(
        name="lab policy",
        columns=frozenset({"images", "state", "actions"}),
        networks=("brain",),
        capabilities=frozenset({"acts"}),
        modes=("mean",),
        ranking=("action_error", "min"),
        progress={"train/lab_loss": "lab"},
        panels=(Panel(heading="Lab loss", unit="scaled\\u00b2", series={"train/lab_loss": "lab"}),),
        exports=True,
    )


def features_traits(config: FeaturesConfig) -> Traits:
    return Traits(
        name="lab features",
        columns=frozenset({"images"}),
        networks=("eye",),
        capabilities=frozenset({"encodes"}),
        progress={"train/features_loss": "features"},
    )


def _learner(name: str):
    def make(*arguments: Any):
        from lab_learner import update

        return getattr(update, name)(*arguments)

    return make


def _networks(name: str):
    def make(config: Any):
        from lab_learner import nets

        return getattr(nets, name)(config)

    return make


for tag, cls, traits, learner, networks in (
    ("LabConfig", LabConfig, lab_traits, "LabLearner", "LabNetworks"),
    ("TaughtConfig", TaughtConfig, lab_traits, "LabLearner", "LabNetworks"),
    ("FeaturesConfig", FeaturesConfig, features_traits, "FeaturesLearner", "FeaturesNetworks"),
):
    register(
        LearnerKind(
            tag=tag,
            config_class=cls,
            traits=traits,
            make_learner=_learner(learner),
            networks=_networks(networks),
            recipes="lab_learner.recipes" if tag == "LabConfig" else "",
        )
    )
'''

NETS = """
import torch
from torch import nn

from ptr_fast.nets.encoders import make_encoder
from ptr_fast.nets.init import draw_weights


class Brain(nn.Module):
    def __init__(self, encoder, num_state, num_axes):
        super().__init__()
        self.encoder = encoder
        self.weight = nn.Parameter(torch.empty(num_axes, encoder.num_outputs + num_state))
        self.register_buffer("usual", torch.zeros(num_axes))

    def initialise(self, generator):
        self.encoder.initialise(generator)
        nn.init.normal_(self.weight, std=0.1, generator=generator)

    def forward(self, images, state, task_id, noise=None):
        seen = torch.cat([self.encoder(images, len(state)), state[:, -1]], dim=1)
        return (self.usual + seen @ self.weight.t()).clamp(-1, 1)[:, None]


class LabNetworks:
    def __init__(self, config):
        self.config = config

    def make_networks(self, spec, names, seed=0):
        return {name: draw_weights(self.make(spec), seed, "brain") for name in names}

    def make(self, spec):
        return Brain(make_encoder(self.config.encoder, spec.cameras), spec.state.dim, spec.action.dim)

    def networks_for(self, mode):
        return ("brain",)

    def noise_shape(self, act, spec):
        return None

    def acting_module(self, networks, act, spec):
        return networks["brain"]

    def distribution(self, networks, inputs, averaged=False):
        return None


class Eye(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.num_outputs, 1)

    def initialise(self, generator):
        self.encoder.initialise(generator)
        nn.init.normal_(self.head.weight, std=0.1, generator=generator)
        nn.init.zeros_(self.head.bias)


class FeaturesNetworks:
    def __init__(self, config):
        self.config = config

    def make_networks(self, spec, names, seed=0):
        return {name: draw_weights(Eye(make_encoder(self.config.encoder, spec.cameras)), seed, "eye") for name in names}

    def encoder_network(self):
        return "eye"

    def encoder_of(self, networks):
        return networks["eye"].encoder

    def embed(self, networks, images):
        return self.encoder_of(networks)(images, len(next(iter(images.values()))))
"""

UPDATE = """
import torch

from ptr_fast.checkpoint import load_networks, open_reference
from ptr_fast.learners import Ranks, base
from ptr_fast.learners.optimizer import AdamPolyak
from ptr_fast.learners.registry import acts_of, make_networks
from lab_learner.nets import FeaturesNetworks, LabNetworks


class _Learner:
    def __init__(self, config, spec, seed=0, device="cpu", encoder_dtype=None, ranks=None):
        self.config, self.spec, self.seed, self.device = config, spec, seed, torch.device(device)
        self.ranks = ranks or Ranks()
        (self.name,) = self.names
        self.net = self.make(config).make_networks(spec, [self.name], seed)[self.name].to(self.device)
        parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self.adam = AdamPolyak(parameters, config.lr)
        self.backward = self.ranks.backward_of(parameters)

    def networks(self):
        return {self.name: self.net}

    def optimizers(self):
        return {self.name: self.adam}

    def learning_rates(self, step):
        config = self.config
        return {self.name: base.scheduled_lr(config.lr, config.lr_schedule, config.lr_schedule_steps, step)}

    def step(self, loss, step):
        base.set_lr(self.adam, self.learning_rates(step)[self.name])
        self.adam.zero_grad(set_to_none=True)
        self.backward(loss)
        self.adam.step()


class LabLearner(_Learner):
    names, make = ("brain",), LabNetworks

    def __init__(self, config, *others, **more):
        super().__init__(config, *others, **more)
        self.teacher = None
        if config.teacher is not None:
            info = open_reference(config.teacher)
            names = acts_of(info.config).networks_for("mean")
            networks = make_networks(info.config, info.spec, names)
            load_networks(info, networks)
            self.teacher = acts_of(info.config).acting_module(networks, info.act, info.spec)
            self.teacher.requires_grad_(False)

    def prepare(self, data):
        self.net.usual.copy_(torch.as_tensor(data.actions.mean(axis=0)))

    def update(self, batch, step):
        images = base.augmented(batch.images, None, torch.float32)
        acted = self.net(images, batch.state, None)
        loss = (acted - batch.actions).square().mean()
        if self.teacher is not None:
            loss = loss + (acted - self.teacher(images, batch.state, None)).square().mean()
        self.step(loss, step)
        return {"train/lab_loss": loss.detach()}


class FeaturesLearner(_Learner):
    names, make = ("eye",), FeaturesNetworks

    def update(self, batch, step):
        images = base.augmented(batch.images, None, torch.float32)
        brightness = torch.stack([frames.mean(dim=(1, 2, 3)) for frames in images.values()]).mean(dim=0)
        embedding = self.net.encoder(images, len(brightness))
        loss = (self.net.head(embedding)[:, 0] - brightness).square().mean()
        self.step(loss, step)
        return {"train/features_loss": loss.detach()}
"""

RECIPES = """
from lab_learner import FeaturesConfig, LabConfig, TaughtConfig
from ptr_robot.training.config import LoopConfig, PretrainConfig

LOOP = LoopConfig(num_steps=7, batch_size=4, log_every=1, checkpoint_every=1, num_threads=1)
RECIPES = {
    "lab": ("a linear map of image and state", PretrainConfig(learner=LabConfig(), loop=LOOP)),
    "lab-taught": ("the same with a teacher", PretrainConfig(learner=TaughtConfig(), loop=LOOP)),
    "lab-features": ("an image encoder alone", PretrainConfig(learner=FeaturesConfig(), loop=LOOP)),
}
"""


def install(folder: Path) -> Path:
    """Writes the package and what an installer writes beside it; returns the folder."""
    package, info = folder / "lab_learner", folder / "lab_learner-1.0.dist-info"
    for made in (package, info):
        made.mkdir(parents=True)
    for name, text in {"__init__": LEARNER, "nets": NETS, "update": UPDATE, "recipes": RECIPES}.items():
        (package / f"{name}.py").write_text(text.lstrip())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-learner\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ptr_fast.learners]\nlab = lab_learner\n")
    return folder
