"""The vision transformer: its definition in float64, timm's, both learners, bfloat16, export, and 8 bits."""

import math

import numpy as np
import pytest
import torch
import trained_cases

from ptr_fast.config import EncoderConfig, from_dict
from ptr_fast.nets import make_encoder
from ptr_fast.nets.encoders.vit.trunk import VisionTransformer, sine_cosine_positions
from ptr_fast.nets.init import draw_weights
from ptr_fast.runtime.int8 import to_int8
from ptr_fast.runtime.policy import Policy
from ptr_fast.types import CameraSpec

SMALL = EncoderConfig(
    name="vit", pooling="mean", embedding_dim=8, options={"patch": 4, "width": 16, "depth": 2, "heads": 2}
)


def make_trunk(height: int = 12, width: int = 20) -> VisionTransformer:
    """Two blocks of four heads; scales and biases are not the constants that they begin as."""
    trunk = draw_weights(VisionTransformer(height, width, 4, 24, 2, 4), 0, "vit")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trunk.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return trunk


def make_images(height: int = 12, width: int = 20) -> torch.Tensor:
    images = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    return images.contiguous(memory_format=torch.channels_last)


def written_out(weights: dict[str, np.ndarray], image: np.ndarray, num_heads: int, patch: int) -> np.ndarray:
    """One image ``[3, H, W]`` through the definition, token by token and head by head, in float64."""

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    rows, columns = image.shape[1] // patch, image.shape[2] // patch
    tokens = []
    for row in range(rows):
        for column in range(columns):
            pixels = image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch].reshape(-1)
            token = dense(pixels, "patch_embed")
            quarter = len(token) // 4
            frequencies = [10000 ** (-i / quarter) for i in range(quarter)]
            place = [f(at * w) for at in (column, row) for f in (math.sin, math.cos) for w in frequencies]
            tokens.append(token + np.array(place))
    x = np.stack(tokens)
    for i in range(2):
        query, key, value = np.split(dense(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv"), 3, axis=1)
        heads = []
        for part in np.split(np.arange(x.shape[1]), num_heads):
            scores = query[:, part] @ key[:, part].T / math.sqrt(len(part))
            share = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(share / share.sum(axis=1, keepdims=True) @ value[:, part])
        x = x + dense(np.concatenate(heads, axis=1), f"blocks.{i}.attn.proj")
        inside = dense(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")
        inside = inside * 0.5 * (1 + np.vectorize(math.erf)(inside / math.sqrt(2)))
        x = x + dense(inside, f"blocks.{i}.mlp.fc2")
    return norm(x, "norm").reshape(rows, columns, -1)


def test_a_forward_pass_is_the_definition_written_out():
    trunk, images = make_trunk(), make_images()
    weights = {name: value.double().numpy() for name, value in trunk.state_dict().items()}
    expected = torch.from_numpy(
        np.stack([written_out(weights, image, 4, 4) for image in images.double().numpy()])
    ).permute(0, 3, 1, 2)
    with torch.no_grad():
        maps = trunk(images)
        torch.testing.assert_close(maps.double(), expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(trunk.double()(images.double()), expected, rtol=0, atol=1e-6)  # float32 positions
    assert maps.shape == (3, 24, 3, 5)
    assert maps.is_contiguous(memory_format=torch.channels_last)


def test_the_same_weights_give_what_timms_give():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    trunk, images = make_trunk(), make_images()
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=(12, 20), patch_size=4, embed_dim=24, depth=2, num_heads=4, num_classes=0, class_token=False,
        global_pool="avg", fc_norm=False,
    )  # fmt: skip
    state = {name.replace("patch_embed.", "patch_embed.proj."): value for name, value in trunk.state_dict().items()}
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].view(24, 3, 4, 4)
    theirs.load_state_dict({**state, "pos_embed": trunk.positions[None]})
    with torch.no_grad():
        expected = theirs.eval().forward_features(images)
    torch.testing.assert_close(trunk(images).detach().flatten(2).transpose(1, 2), expected, rtol=0, atol=2e-5)


def test_positions_tell_every_patch_from_every_other_one():
    positions = sine_cosine_positions(8, 8, 16)
    distances = torch.cdist(positions, positions) + torch.eye(64)
    assert float(distances.min()) > 0.1
    assert torch.equal(positions[0], torch.tensor([0.0, 1.0]).repeat_interleave(4).repeat(2))


@pytest.mark.parametrize("kind", ["cql", "bc"])
def test_it_trains_is_captured_acts_and_is_exported(kind, tmp_path, monkeypatch):
    learner = trained_cases.check_trains_and_is_captured(kind, SMALL, monkeypatch)
    trained_cases.check_acts_from_a_checkpoint_and_exported(learner, tmp_path / "run")
    model = Policy.load(tmp_path / "run").to_onnx()
    with pytest.raises(ValueError, match="int8: only convolutions become 8-bit, and this encoder has none"):
        to_int8(model, [{}])


@pytest.mark.parametrize("kind", ["cql", "bc"])
def test_its_trunk_computes_in_bfloat16_and_nothing_else_does(kind, monkeypatch):
    seen = {}
    learner = trained_cases.make(kind, SMALL, encoder_dtype=torch.bfloat16)
    for name, module in learner.actor.named_modules():
        module.register_forward_hook(
            lambda _module, _inputs, out, name=name: seen.__setitem__(name, getattr(out, "dtype", None))
        )
    learner.update(trained_cases.make_batch(learner.spec), 0)
    trunk = {name for name in seen if name.startswith("encoder.trunk")}
    assert {seen[name] for name in trunk} == {torch.bfloat16}
    assert {seen[name] for name in seen.keys() - trunk} - {None} == {torch.float32}
    assert {p.dtype for p in learner.actor.parameters()} == {torch.float32}
    trained_cases.check_trains_and_is_captured(kind, SMALL, monkeypatch, encoder_dtype=torch.bfloat16)


def test_bfloat16_stays_near_float32():
    encoder = draw_weights(make_encoder(SMALL, [CameraSpec(name="front", height=16, width=16)]), 0, "vit")
    images = make_images(16, 16)
    with torch.no_grad():
        difference = encoder.embed(images.bfloat16()) - encoder.embed(images)
    assert 0 < float(difference.abs().max()) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 18}, r"encoder.options: width \(18\) must be a multiple of 4 and of heads \(4\)"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"layers": 3}, "unknown key 'layers'"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        from_dict(EncoderConfig, {"name": "vit", "options": options})


def test_images_that_are_not_whole_patches_are_refused():
    with pytest.raises(ValueError, match="images of 60x64 px are not whole patches of 8 px"):
        make_encoder(EncoderConfig(name="vit"), [CameraSpec(name="front", height=60, width=64)])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_the_same_in_two_runs_on_a_gpu(dtype):
    images = make_images(64, 64).to("cuda", dtype).repeat(32, 1, 1, 1)
    gradients = []
    for _ in range(2):
        trunk = draw_weights(VisionTransformer(64, 64, 8, 64, 2, 4), 0, "vit").cuda()
        trunk(images).float().square().sum().backward()
        gradients.append([p.grad for p in trunk.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
