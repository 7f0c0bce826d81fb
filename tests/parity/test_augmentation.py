"""Crop and colour jitter against the published code."""

import pytest
import torch
from golden import Golden
from update_case import check_bytes

from ptr_fast.kernels.augment import AugmentParams, JitterParams, native, planar, reference

FLOAT_BOUND = 5e-6
FIELDS = ("apply", "order", "brightness", "contrast", "saturation", "hue")


def jitter_params(golden: Golden, prefix: str) -> JitterParams:
    return JitterParams(**{field: golden.tensor(f"{prefix}/{field}") for field in FIELDS})


@pytest.mark.parametrize("implementation", [reference, planar, native], ids=["reference", "planar", "native"])
def test_augmentation_matches_the_published_one(golden_dir, implementation):
    golden = Golden(golden_dir, "augment.npz")
    images, offsets, jitter = golden.tensor("images"), golden.tensor("crop/offsets"), jitter_params(golden, "jitter")
    padding = 4

    if implementation is native and native.supports(images, None, torch.float32) is not None:
        pytest.skip(str(native.supports(images, None, torch.float32)))
    crop = AugmentParams(crop_offsets=offsets, crop_padding=padding)
    cropped = (implementation.augment(images, crop, torch.float32) * 255.0).round().to(torch.uint8)
    assert torch.equal(cropped.permute(0, 2, 3, 1), golden.tensor("crop/out"))

    ours = (implementation.augment(images, AugmentParams(jitter=jitter), torch.float32) * 255.0).round().to(torch.uint8)
    check_bytes(golden, "jitter/out_uint8", ours.permute(0, 2, 3, 1), images, jitter)

    floats = reference.jitter(images / 255.0, jitter) if implementation is reference else planar_floats(images, jitter)
    golden.compare("jitter, float", "jitter/out_float", floats, FLOAT_BOUND)

    single, factors = golden.tensor("single/in"), golden.tensor("single/factors")
    for i, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        golden.compare(
            "single operations", f"single/{name}", reference.jitter_operation(single, i, factors[i]), FLOAT_BOUND
        )
    golden.compare("hsv", "single/hsv", reference.rgb_to_hsv(single), FLOAT_BOUND)
    back = reference.hsv_to_rgb(golden.tensor("single/hsv"))
    golden.compare("hsv", "single/hsv_to_rgb_roundtrip", back, FLOAT_BOUND)
    golden.assert_all_used()


def planar_floats(images: torch.Tensor, jitter: JitterParams) -> torch.Tensor:
    """The fast formulas, before the truncation."""
    planes = planar._jitter_by_selection(planar._to_planes(images, torch.float32), jitter)
    return planes.permute(1, 2, 0).reshape(images.shape)
