"""Image encoders: shapes, padding, initial weights, layout."""

import pytest
import torch
from torch.nn import functional as F

from ptr_fast.config import EncoderConfig
from ptr_fast.kernels.dispatch import use_backend
from ptr_fast.kernels.group_norm_act_pool.reference import same_max_pool
from ptr_fast.kernels.spatial_embedding import reference, spatial_embedding
from ptr_fast.nets import ImageEncoder, make_encoder
from ptr_fast.nets.encoders.pooling import SpatialSoftmax
from ptr_fast.nets.init import draw_weights, keyed_generator
from ptr_fast.nets.layers import Conv2d, same_padding
from ptr_fast.types import CameraSpec

POOLINGS = ("spatial_embedding", "spatial_softmax", "mean")


def make(height: int = 24, width: int = 24, seed: int = 0, **config) -> ImageEncoder:
    config = EncoderConfig(**{"num_filters": 8, "embedding_dim": 10, **config})
    return draw_weights(make_encoder(config, [CameraSpec(name="front", height=height, width=width)]), seed, "encoder")


def make_images(height: int = 24, width: int = 24) -> torch.Tensor:
    images = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    return images.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", ["conv3", "resnet_small", "resnet18", "resnet50"])
def test_every_encoder_embeds_images_of_even_and_odd_size(name, pooling):
    for height, width in ((24, 24), (25, 31)):
        encoder = make(height, width, name=name, pooling=pooling)
        embedding = encoder({"front": make_images(height, width)}, 3)
        assert embedding.shape == (3, 10)
        assert float(embedding.detach().abs().max()) <= 1.0
        assert float((embedding[0] - embedding[1]).detach().abs().max()) > 1e-4
        embedding.square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in encoder.parameters())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_embeddings_have_the_dtype_of_the_weights(pooling, dtype):
    encoder = make(24, 24, name="conv3", num_filters=16, pooling=pooling)
    images = make_images(24, 24).to(dtype)
    assert encoder.embed(images).dtype == torch.float32
    assert encoder.double().embed(images).dtype == torch.float64


@pytest.mark.parametrize("name", ["conv3", "resnet_small", "resnet50"])
def test_without_groups_a_scale_and_a_bias_are_left_of_every_norm(name, monkeypatch):
    """The encoder with its norms, where these are told to normalise nothing: the same weights, the same embedding."""
    bare = make(name=name, num_groups=0).double()
    for parameter in bare.trunk.parameters():  # else the norms would be the identity
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    normed = make(name=name).double()
    normed.load_state_dict(bare.state_dict())
    images = make_images().double()
    assert not torch.allclose(normed.embed(images), bare.embed(images))
    monkeypatch.setattr(
        F, "group_norm", lambda x, _groups, scale, bias, _eps: x * scale[:, None, None] + bias[:, None, None]
    )
    with use_backend("group_norm_act=reference,group_norm_act_pool=reference"):
        torch.testing.assert_close(normed.embed(images), bare.embed(images))


@pytest.mark.parametrize("num_groups", [4, 0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["conv3", "resnet_small"])
def test_feature_maps_stay_channels_last_and_in_the_dtype_of_the_images(name, dtype, num_groups):
    encoder = make(name=name, num_filters=16, num_groups=num_groups)
    maps = encoder.trunk(make_images().to(dtype))
    assert maps.dtype == dtype
    assert maps.is_contiguous(memory_format=torch.channels_last)
    assert not maps.is_contiguous()


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(16, 3, 1, (1, 1)), (16, 3, 2, (0, 1)), (15, 3, 2, (1, 1)), (16, 1, 2, (0, 0)), (16, 7, 2, (2, 3))],
)
def test_same_padding_puts_the_odd_pixel_after(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("size", [16, 15])
def test_stride_two_layers_pad_as_same_does(size):
    x = torch.randn(2, 4, size, size, generator=torch.Generator().manual_seed(0))
    pad = same_padding(size, 3, 2) * 2
    expected = F.max_pool2d(F.pad(x, pad, value=-torch.inf), 3, 2)
    assert torch.equal(same_max_pool(x), expected)
    conv = Conv2d(4, 6, 3, 2)
    conv.initialise(keyed_generator(0))
    torch.testing.assert_close(conv(x), F.conv2d(F.pad(x, pad), conv.weight, stride=2))


def test_initial_weights_follow_the_reference():
    encoder = make(64, 64, name="resnet_small", num_filters=32, embedding_dim=64)
    for module in encoder.modules():
        if isinstance(module, Conv2d) and module.weight.numel() > 5000:
            std = (2.0 / module.weight[0].numel()) ** 0.5
            assert float(module.weight.detach().std()) == pytest.approx(std, rel=0.05)
            assert float(module.weight.detach().abs().max()) <= 2.0 * std / 0.8796 + 1e-6
    kernel = encoder.pooling.kernel.detach()
    assert float(kernel.std()) == pytest.approx((kernel.shape[0] * kernel.shape[1]) ** -0.5, rel=0.05)
    fans = sum(encoder.dense.weight.shape)
    assert float(encoder.dense.weight.detach().std()) == pytest.approx((2.0 / fans) ** 0.5, rel=0.05)
    assert float(encoder.dense.bias.detach().abs().max()) == 0.0
    last_scales = [block.norm2.weight for stage in make(name="resnet50").trunk.stages for block in stage]
    assert all(float(scale.detach().abs().max()) == 0.0 for scale in last_scales)


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.trunk.stem_conv.weight, other.trunk.stem_conv.weight)


def test_images_of_another_size_are_named():
    with pytest.raises(ValueError, match=r"expected images \[N, 3, 24, 24\], got \(3, 3, 32, 24\)"):
        make().embed(make_images(32, 24))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels_last", "BCHW"])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (1, 2, 3, 3), (7, 1, 1, 2)], ids=str)
def test_spatial_embedding_matches_its_definition_with_gradients(shape, layout):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    kernel = torch.randn(shape[1], shape[2] * shape[3], 4, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(shape[0], shape[1] * 4, generator=generator, dtype=torch.float64)
    ours, expected = spatial_embedding(x, kernel), reference.spatial_embedding(x, kernel)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad((ours * weights).sum(), (x, kernel))
    for a, b in zip(gradients, torch.autograd.grad((expected * weights).sum(), (x, kernel)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="expected a kernel"):
        spatial_embedding(x, kernel[:, 1:])


def test_spatial_softmax_finds_a_bright_pixel():
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 0, 8] = maps[0, 1, 4, 4] = 100.0
    torch.testing.assert_close(SpatialSoftmax(2, 5, 9)(maps), torch.tensor([[1.0, 0.0, -1.0, 1.0]]))


def test_groups_that_do_not_divide_the_filters_are_refused():
    with pytest.raises(ValueError, match=r"num_groups must be at least 0, got -1"):
        EncoderConfig(num_filters=8, num_groups=-1)
    with pytest.raises(ValueError, match=r"num_filters \(6\) must be a multiple of num_groups \(4\)"):
        EncoderConfig(num_filters=6, num_groups=4)
