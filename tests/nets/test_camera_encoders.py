"""Encoders of several cameras: one for all or one each, and what one camera costs."""

import pytest
import torch

from ptr_fast.config import EncoderConfig
from ptr_fast.nets import Encoder, make_encoder
from ptr_fast.nets.init import draw_weights
from ptr_fast.types import CameraSpec

FRONT, WRIST = (CameraSpec(name=name, height=16, width=16) for name in ("front", "wrist"))
SMALL = CameraSpec(name="small", height=12, width=8)


def make(seen: list[CameraSpec], **config) -> Encoder:
    encoder = make_encoder(EncoderConfig(name="conv3", num_filters=8, embedding_dim=10, **config), seen)
    return draw_weights(encoder, 0, "encoder")


def make_images(*cameras: CameraSpec, num_rows: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = {c.name: torch.rand(num_rows, 3, c.height, c.width, generator=generator) for c in cameras}
    return {name: frames.contiguous(memory_format=torch.channels_last) for name, frames in images.items()}


def test_one_camera_has_the_names_of_before_and_its_embedding_is_the_encoders():
    encoder, images = make([FRONT]), make_images(FRONT)
    assert {name.split(".")[0] for name in encoder.state_dict()} == {"trunk", "pooling", "dense", "norm"}
    assert torch.equal(encoder(images, 3), encoder.embed(images["front"]))
    own = make([FRONT], cameras="own")
    assert own.state_dict().keys() == encoder.state_dict().keys()
    assert torch.equal(own(images, 3), encoder(images, 3))


def test_a_shared_encoder_has_the_weights_of_one_and_embeds_in_the_order_of_the_cameras():
    one, both = make([FRONT]), make([WRIST, FRONT])
    both.load_state_dict(one.state_dict())
    images = make_images(FRONT, WRIST)
    assert both.num_outputs == 20
    expected = torch.cat([one.embed(images["wrist"]), one.embed(images["front"])], dim=1)
    torch.testing.assert_close(both(images, 3), expected, rtol=0, atol=1e-6)


def test_own_encoders_take_cameras_of_any_size_and_share_no_weight():
    encoder = make([FRONT, SMALL], cameras="own")
    images = make_images(FRONT, SMALL)
    embedding = encoder(images, 3)
    assert embedding.shape == (3, encoder.num_outputs) == (3, 20)
    front, small = encoder.encoders
    assert not torch.equal(front.trunk.convs[0].weight, small.trunk.convs[0].weight)
    torch.testing.assert_close(embedding[:, 10:], small.embed(images["small"]), rtol=0, atol=1e-6)
    embedding[:, :10].sum().backward()
    assert all(p.grad is not None for p in front.parameters())
    assert not any(float(p.grad.abs().sum()) for p in small.parameters() if p.grad is not None)


def test_cameras_of_several_sizes_share_no_encoder():
    with pytest.raises(ValueError, match=r"one size, got front 16x16, small 12x8; take cameras='own'"):
        make([FRONT, SMALL])


def test_missing_cameras_and_rows_are_named():
    with pytest.raises(ValueError, match=r"expected images of the cameras \['front', 'wrist'\], got \['front'\]"):
        make([FRONT, WRIST])(make_images(FRONT), 3)
    with pytest.raises(ValueError, match="camera 'front': expected 4 rows, got 3"):
        make([FRONT])(make_images(FRONT), 4)


def test_no_encoder_looks_at_no_image_and_says_how_many_rows():
    encoder = make_encoder(EncoderConfig(name="none"), [FRONT])
    assert encoder({}, 4).shape == (4, 0)
    assert encoder.num_outputs == 0
    assert encoder.double()({}, 4).dtype == torch.float64
    assert encoder.state_dict() == {}
