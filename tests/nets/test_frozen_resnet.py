"""Frozen ResNets: torchvision's outputs from its files, R3M's names, what is refused, that nothing of it is trained."""

import collections

import pytest
import safetensors.torch
import torch
import trained_cases
from torch.nn import functional as F

from ptr_fast.checkpoint import load_networks, read_checkpoint
from ptr_fast.config import EncoderConfig
from ptr_fast.errors import DataError
from ptr_fast.nets import make_encoder
from ptr_fast.nets.encoders.frozen_resnet.trunk import MEAN, STAGES, STD, FrozenResNet
from ptr_fast.nets.encoders.weights_file import with_digest
from ptr_fast.nets.init import draw_weights
from ptr_fast.types import CameraSpec

Tensors = dict[str, torch.Tensor]
CAMERA = CameraSpec(name="front", height=16, width=16)


def random_file(depth: int) -> Tensors:
    """Names and shapes of what torchvision saves of a ResNet of that depth, random numbers of sensible sizes."""
    generator, out = torch.Generator().manual_seed(depth), {}

    def conv_and_norm(conv: str, norm: str, num_out: int, num_in: int, kernel: int) -> None:
        weight = torch.randn(num_out, num_in, kernel, kernel, generator=generator)
        out[f"{conv}.weight"] = weight * (1.0 / (num_in * kernel * kernel)) ** 0.5
        for part, least in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            out[f"{norm}.{part}"] = torch.rand(num_out, generator=generator) + least
        out[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    conv_and_norm("conv1", "bn1", 64, 3, 7)
    num_in = 64
    for i, num_blocks in enumerate(STAGES[depth]):
        width, num_out = 64 * 2**i, (256 if depth == 50 else 64) * 2**i
        for j in range(num_blocks):
            sizes = [(width, num_in, 3), (width, width, 3)]
            if depth == 50:
                sizes = [(width, num_in, 1), (width, width, 3), (num_out, width, 1)]
            for k, size in enumerate(sizes, start=1):
                conv_and_norm(f"layer{i + 1}.{j}.conv{k}", f"layer{i + 1}.{j}.bn{k}", *size)
            if j == 0 and num_in != num_out:
                conv_and_norm(f"layer{i + 1}.0.downsample.0", f"layer{i + 1}.0.downsample.1", num_out, num_in, 1)
            num_in = num_out
    return {**out, "fc.weight": torch.zeros(1000, num_in), "fc.bias": torch.zeros(1000)}


def not_folded(file: Tensors, images: torch.Tensor) -> torch.Tensor:
    """The last feature map of images in [0, 1] with every BatchNorm where torchvision has it, in float64."""
    file = {name: value.double() for name, value in file.items()}

    def conv_and_norm(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = file[f"{conv}.weight"]
        y = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        parts = (file[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(y, *parts)

    x = (images.double() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    x = F.max_pool2d(conv_and_norm(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for at in dict.fromkeys(".".join(name.split(".")[:2]) for name in file if name.startswith("layer")):
        stride = 2 if at.endswith(".0") and not at.startswith("layer1") else 1
        num_convs, y = (3 if f"{at}.conv3.weight" in file else 2), x
        for k in range(1, num_convs + 1):
            strided = k == num_convs - 1  # the first of two, the second of three
            y = conv_and_norm(y, f"{at}.conv{k}", f"{at}.bn{k}", stride if strided else 1)
            y = y.relu() if k < num_convs else y
        if f"{at}.downsample.0.weight" in file:
            x = conv_and_norm(x, f"{at}.downsample.0", f"{at}.downsample.1", stride)
        x = (x + y).relu()
    return x


def make_images(size: int = 40, num: int = 2) -> torch.Tensor:
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file of a ResNet-18 as torchvision saves it."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(collections.OrderedDict(random_file(18)), path)
    return path


def config(path, **options) -> EncoderConfig:
    return EncoderConfig(
        name="frozen_resnet18", pooling="mean", embedding_dim=8, options={"weights": str(path), **options}
    )


@pytest.mark.parametrize("depth", [18, 50])
def test_folded_norms_give_what_the_norms_gave(depth, tmp_path):
    file, images = random_file(depth), make_images()
    torch.save(file, tmp_path / "weights.pth")
    trunk = draw_weights(FrozenResNet(depth, tmp_path / "weights.pth"), 0, "trunk")
    expected = not_folded(file, images)
    maps = trunk(images)
    assert maps.shape[1:] == (trunk.num_channels, trunk.map_size(40), trunk.map_size(40))
    assert float((maps - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    assert not maps.requires_grad


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_a_file_that_torchvision_wrote_gives_what_torchvision_gives(depth, tmp_path):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    torch.manual_seed(0)
    theirs = getattr(models, f"resnet{depth}")().train()
    for _ in range(3):  # statistics of their own
        theirs(make_images(64, 4))
    torch.save(theirs.eval().state_dict(), tmp_path / "weights.pth")
    trunk = draw_weights(FrozenResNet(depth, tmp_path / "weights.pth"), 0, "trunk")
    images = make_images(64)
    normal = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(trunk(images).mean((2, 3)), theirs(normal), rtol=1e-4, atol=1e-4)


def test_r3ms_file_and_safetensors_and_other_wrappings_hold_the_same(small, tmp_path):
    file = random_file(18)
    r3m = {f"module.convnet.{name}": value for name, value in file.items() if not name.startswith("fc.")}
    r3m |= {
        "module.lang_enc.model.embeddings.weight": torch.zeros(3, 3),
        "module.lang_rew.pred.0.weight": torch.ones(2),
    }
    torch.save({"r3m": r3m, "global_step": 7}, tmp_path / "model.pt")
    safetensors.torch.save_file(file, tmp_path / "model.safetensors")
    torch.save({"state_dict": {f"module.{name}": value for name, value in file.items()}}, tmp_path / "wrapped.pth")
    expected = draw_weights(FrozenResNet(18, small), 0, "trunk").state_dict()
    for name in ("model.pt", "model.safetensors", "wrapped.pth"):
        state = draw_weights(FrozenResNet(18, tmp_path / name), 0, "trunk").state_dict()
        assert all(torch.equal(value, state[key]) for key, value in expected.items()), name


class RunsCode:
    def __reduce__(self):
        return print, ("it ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RunsCode(), r"expected a file of tensors alone \(torch.save or safetensors\)"),
        ([1, 2], "expected a mapping of names to tensors, got list"),
        ({"a": torch.zeros(2)}, r"expected one ResNet of torchvision's names \(NAME.layer1.0.conv1.weight\), got 0"),
        ("lost", r"layer2.1.bn2.running_var is missing"),
        ("34", r"not a ResNet-18: it has a layer1.2.conv1"),
        ("more", r"attention.weight belongs to no ResNet"),
        ("number", r"layer1.note: expected a tensor of finite numbers, got int"),
        ("not finite", r"conv1.weight: expected a tensor of finite numbers, got numbers that are not finite"),
        ("short norm", r"the numbers of bn1: expected \[64\] as of conv1.weight, got \[5\]"),
        (b"hello world", r"expected a file of tensors alone .*KeyError: 101"),
        (b"\x80\x02}q\x00X\x02\x00\x00\x00\xff\xff.", r"expected a file of tensors alone"),
        (b"version https://git-lfs.github.com/spec/v1\noid", r"a Git LFS pointer, not the data"),
    ],
)
def test_other_files_are_refused_in_a_line(content, message, tmp_path, capfd):
    path = tmp_path / "weights.pth"
    file = random_file(34 if content == "34" else 18)
    if content == "lost":
        del file["layer2.1.bn2.running_var"]
    if content == "more":
        file["attention.weight"] = torch.zeros(3)
    if content == "number":
        file["layer1.note"] = 3
    if content == "not finite":
        file["conv1.weight"][0] = torch.nan
    if content == "short norm":
        file["bn1.weight"] = torch.ones(5)
    torch.save(file if isinstance(content, str) else content, path)
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        draw_weights(FrozenResNet(18, path), 0, "trunk")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert "it ran" not in capfd.readouterr().out


@pytest.mark.parametrize("kind", [pytest.param("cql", marks=pytest.mark.slow), "bc"])
def test_only_pooling_bottleneck_and_policy_are_trained(kind, small, tmp_path, monkeypatch):
    learner = trained_cases.check_trains_and_is_captured(kind, config(small), monkeypatch)
    frozen = {name for name, value in learner.actor.named_parameters() if not value.requires_grad}
    assert frozen == {f"encoder.trunk.{name}" for name, _ in learner.actor.encoder.trunk.named_parameters()}
    assert all(value.grad is None for value in learner.actor.encoder.trunk.parameters())
    trained = sum(value.requires_grad for value in learner.actor.parameters())
    assert len(learner.optimizers()["actor"].state) == trained
    trained_cases.check_acts_from_a_checkpoint_and_exported(learner, tmp_path / "run", engines=("openvino",))


@pytest.mark.parametrize("is_recorded", [True, False], ids=["digest", "no digest"])
def test_a_checkpoint_acts_and_is_trained_on_where_the_file_is_not(is_recorded, small, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(small.read_bytes())
    recorded = with_digest(config(path)) if is_recorded else config(path)
    assert len(recorded.options.get("sha256", "")) == (64 if is_recorded else 0)
    learner = trained_cases.make("bc", recorded)
    batch = trained_cases.make_batch(learner.spec)
    learner.update(batch, 0)
    trained_cases.check_acts_from_a_checkpoint_and_exported(learner, tmp_path / "run", engines=())
    path.unlink()
    with pytest.raises(RuntimeError, match=r"weights are missing: .*weights.pth: no such file, and no checkpoint"):
        trained_cases.make("bc", recorded).update(batch, 0)
    if is_recorded:
        path.write_bytes(b"another file")
        with pytest.raises(RuntimeError, match=r"weights are missing: .*expected SHA-256"):
            trained_cases.make("bc", recorded).update(batch, 0)
        path.unlink()
    other = trained_cases.make("bc", recorded)
    trained_cases.check_acts_from_a_checkpoint_and_exported(learner, tmp_path / "run", engines=())
    load_networks(read_checkpoint(tmp_path / "run"), other.networks())
    other.update(batch, 1)
    with pytest.raises(DataError, match=r"weights\.pth: cannot read the encoder's weights"):
        with_digest(recorded)


def test_a_recorded_digest_is_held_to(small):
    recorded = with_digest(config(small))
    assert with_digest(recorded) == recorded
    assert with_digest(EncoderConfig(name="conv3")) == EncoderConfig(name="conv3")
    with pytest.raises(DataError, match=r"resnet18\.pth: expected SHA-256 12, got"):
        with_digest(config(small, sha256="12"))


def test_frames_are_enlarged_where_that_is_asked_for(small):
    trunk = draw_weights(FrozenResNet(18, small, input_size=48), 0, "trunk")
    plain = draw_weights(FrozenResNet(18, small), 0, "trunk")
    images = make_images(24)
    larger = F.interpolate(images, (48, 48), mode="bilinear")
    assert torch.equal(trunk(images), plain(larger))
    assert trunk(images).shape[-1] == trunk.map_size(24) == 2
    encoder = draw_weights(make_encoder(config(small, input_size=48), [CAMERA]), 0, "encoder")
    assert encoder.embed(make_images(16).bfloat16()).dtype == torch.float32
