"""Encoders by name: those of this project, one that another package brings, and what a mistake is told."""

import sys

import pytest
import torch
import trained_cases
from torch import nn

from ptr_fast import encoder_registry
from ptr_fast.config import CqlConfig, EncoderConfig, LearnerConfig, from_dict, to_dict
from ptr_fast.encoder_registry import BUILT_IN, EncoderKind
from ptr_fast.nets import Encoder
from ptr_fast.nets.init import draw_weights
from ptr_fast.nets.layers import Conv2d, Dense

# As another package would write it: a module, and the entry point of its distribution.
MODULE = '''
from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from ptr_fast.encoder_registry import EncoderKind, register
from ptr_fast.nets import Encoder
from ptr_fast.nets.init import xavier_normal_
from ptr_fast.nets.layers import Dense


@dataclass(frozen=True)
class GridOptions:
    cells: int = 4


class GridEncoder(Encoder):
    """Mean colours of a grid of cells, and a dense layer."""

    def __init__(self, config, options, height, width):
        super().__init__()
        self.embedding_dim, self.cells = config.embedding_dim, options.cells
        self.dense = Dense(3 * options.cells**2, config.embedding_dim)

    def initialise(self, generator):
        xavier_normal_(self.dense.weight, generator)
        nn.init.zeros_(self.dense.bias)

    def embed(self, images):
        return self.dense(F.avg_pool2d(images, images.shape[-1] // self.cells).flatten(1).float()).tanh()


register(EncoderKind("grid", GridEncoder, GridOptions))
'''


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """A folder on the path with the packages of others: of one encoder that works, and of two that do not."""
    entries = {"grid": "grid_encoder", "broken": "broken_encoder", "nothing": "nothing_encoder"}
    for name, text in (("grid", MODULE), ("broken", "import there_is_no_such_module"), ("nothing", "")):
        (tmp_path / f"{entries[name]}.py").write_text(text)
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    lines = [f"{name} = {module}\n" for name, module in entries.items()]
    (info / "entry_points.txt").write_text("[ptr_fast.encoders]\n" + "".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name, module in entries.items():
        encoder_registry._kinds.pop(name, None)
        sys.modules.pop(module, None)


@pytest.mark.parametrize("kind", ["cql", "bc"])
def test_a_strangers_encoder_trains_is_captured_acts_and_is_exported(strangers, kind, tmp_path, monkeypatch):
    encoder = EncoderConfig(name="grid", embedding_dim=8, options={"cells": 2})
    learner = trained_cases.check_trains_and_is_captured(kind, encoder, monkeypatch)
    assert learner.actor.encoder.dense.in_features == 12
    trained_cases.check_acts_from_a_checkpoint_and_exported(learner, tmp_path / "run")


def test_an_encoder_keeps_its_options_in_json(strangers):
    config = CqlConfig(encoder=EncoderConfig(name="grid", options={"cells": 2}))
    assert from_dict(LearnerConfig, to_dict(config)) == config
    assert config.encoder.typed_options().cells == 2
    assert EncoderConfig(name="grid").typed_options().cells == 4


def test_a_configuration_from_before_there_were_options_is_read(strangers):
    old = {"name": "conv3", "num_filters": 8, "num_groups": 4, "pooling": "mean", "num_spatial_blocks": 8}
    assert from_dict(EncoderConfig, {**old, "embedding_dim": 9}) == EncoderConfig(
        name="conv3", num_filters=8, pooling="mean", embedding_dim=9
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnt34"}, r"encoder.name: expected one of \['resnet_small', .*'grid'.* \(did you mean 'resnet34'"),
        (
            {"name": "broken"},
            "'broken': its package 'broken_encoder' cannot be loaded: ModuleNotFoundError: No module named",
        ),
        ({"name": "nothing"}, "'nothing': its package 'nothing_encoder' registers no encoder of this name"),
        ({"name": "conv3", "options": {"cells": 2}}, r"encoder.options: 'conv3' has none, got \{'cells': 2\}"),
        ({"name": "grid", "options": {"cell": 2}}, r"encoder.options: unknown key 'cell' \(did you mean 'cells'"),
        ({"name": "grid", "options": {"cells": "two"}}, "encoder.options.cells: expected int, got 'two'"),
        ({"name": "grid", "options": [2]}, r"options: expected an object, got \[2\]"),
    ],
)
def test_mistakes_are_named(strangers, options, message):
    with pytest.raises(ValueError, match=message):
        from_dict(EncoderConfig, options)


def test_every_encoder_of_this_project_registers_itself_under_its_name():
    assert [encoder_registry.find(name).name for name in BUILT_IN] == list(BUILT_IN)


def test_two_packages_cannot_bring_the_same_name(strangers):
    encoder_registry.find("conv3")
    with pytest.raises(ValueError, match=r"encoder 'conv3' is registered by ptr_fast\.nets\.encoders\.conv3 already"):
        encoder_registry.register(EncoderKind("conv3", make=Forgetful))


class Forgetful(Encoder):
    """Its constructor draws ``head``, its ``initialise`` forgets it."""

    embedding_dim = 3

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.conv, self.head = Conv2d(3, 4, 3), head

    def initialise(self, generator: torch.Generator) -> None:
        self.conv.initialise(generator)


@pytest.mark.parametrize("head", [Dense(4, 3), nn.Linear(4, 3), nn.LayerNorm(3)], ids=lambda head: type(head).__name__)
def test_a_layer_that_nothing_initialises_is_named_whatever_its_constructor_did(head):
    with pytest.raises(RuntimeError, match=r"Forgetful\.head\.weight: no initialise sets this parameter"):
        draw_weights(Forgetful(head), 0, "encoder")


def test_weights_of_the_global_generator_are_refused():
    class Global(Forgetful):
        def initialise(self, generator: torch.Generator) -> None:
            super().initialise(generator)
            self.head.reset_parameters()

    with pytest.raises(RuntimeError, match=r"Global.initialise draws from PyTorch's global generator"):
        draw_weights(Global(nn.Linear(4, 3)), 0, "encoder")


def test_dense_layers_compute_in_the_dtype_of_their_input():
    dense = Dense(4, 3)
    with torch.no_grad():
        dense.weight.copy_(torch.arange(12.0).view(3, 4))
        dense.bias.fill_(0.5)
    x = torch.ones(2, 4, dtype=torch.bfloat16, requires_grad=True)
    out = dense(x)
    assert out.dtype == torch.bfloat16
    assert out[0].tolist() == [6.5, 22.5, 38.5]
    out.sum().backward()
    assert dense.weight.grad.dtype == dense.bias.grad.dtype == torch.float32
