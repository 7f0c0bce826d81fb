"""Image encoders against the published code, stage by stage."""

import pytest
import torch
from golden import Golden

from ptr_fast.kernels.augment import augment
from ptr_fast.nets import make_encoder
from ptr_fast.types import CameraSpec
from ptr_robot.published.parameter_names import encoder_state, infer_encoder

BOUND = 2e-5


@pytest.mark.parametrize("name", ["resnet_small", "resnet34", "resnet50"])
def test_encoder_matches_the_published_one_stage_by_stage(golden_dir, name):
    golden = Golden(golden_dir, f"encoder_{name}.npz")
    parameters = golden.group("params")
    config = infer_encoder(parameters)
    assert config.name == name
    raw = golden.tensor("images")
    camera = CameraSpec(name="camera", height=raw.shape[1], width=raw.shape[2])
    encoder = make_encoder(config, [camera]).to(memory_format=torch.channels_last)
    encoder.load_state_dict(encoder_state(parameters, config), strict=True)
    images = augment(raw, None)

    with torch.no_grad():
        for stage, value in encoder.trunk.stage_outputs(images):
            if f"out/{stage}" in golden.arrays:
                golden.compare("stages", f"out/{stage}", value.permute(0, 2, 3, 1), BOUND)
        spatial = encoder.pooling(encoder.trunk(images))
        dense = encoder.dense(spatial)
        golden.compare("bottleneck", "out/spatial", spatial, BOUND)
        golden.compare("bottleneck", "out/dense", dense, BOUND)
        golden.compare("bottleneck", "out/layernorm", encoder.norm(dense), BOUND)
        golden.compare("bottleneck", "out/bottleneck", encoder({"camera": images}, len(images)), BOUND)
    golden.assert_all_used()
