"""Small synthetic episodes with known content."""

import numpy as np
import pytest
import simplejpeg

from ptr_fast.data.store import Episode, StoreMeta, StoreWriter
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
UNITS = ("m", "m", "m", "rad", "rad", "rad", "1 = open")


@pytest.fixture(scope="session")
def make_meta():
    def make(encoding="jpeg", size=(16, 24), cameras=("image_0",), **changes):
        specs = tuple(CameraSpec(name=name, height=size[0], width=size[1], encoding=encoding) for name in cameras)
        action = ActionSpec(
            names=NAMES, units=UNITS, low=(-0.05,) * 3 + (-0.25,) * 3 + (0.0,), high=(0.05,) * 3 + (0.25,) * 3 + (1.0,)
        )
        state = StateSpec(names=NAMES, units=UNITS)
        return StoreMeta(**{"cameras": specs, "action": action, "state": state, "control_hz": 5.0, **changes})

    return make


@pytest.fixture(scope="session")
def make_episode():
    """An episode whose content is a function of ``seed``; ``extra_frame`` adds the frame after the last action."""

    def make(episode_id, meta, num_steps=5, extra_frame=True, seed=0, **changes):
        rng = np.random.default_rng([seed, len(episode_id)])
        num_frames = num_steps + extra_frame
        frames = {}
        for camera in meta.cameras:
            images = rng.integers(0, 256, (num_frames, camera.height, camera.width, 3), dtype=np.uint8)
            raw = camera.encoding == "raw"
            frames[camera.name] = images if raw else [simplejpeg.encode_jpeg(image, quality=90) for image in images]
        values = {
            "task": "put carrot on plate",
            "states": rng.normal(size=(num_frames, meta.state.dim)).astype(np.float32),
            "actions": rng.uniform(-0.05, 0.05, (num_steps, meta.action.dim)).astype(np.float32),
            "frames": frames,
        }
        return Episode(episode_id=episode_id, **{**values, **changes})

    return make


@pytest.fixture
def make_store(tmp_path, make_meta, make_episode):
    """A store of episodes with the given lengths; one part per entry of ``parts``."""

    def make(parts=((5, 3), (4,)), encoding="jpeg", name="store", extra_frame=True, cameras=("image_0",), **changes):
        meta = make_meta(encoding, cameras=cameras)
        number = 0
        with StoreWriter.create(tmp_path / name, meta) as writer:
            for part in parts:
                for num_steps in part:
                    episode = make_episode(f"episode {number}", meta, num_steps, extra_frame, seed=number, **changes)
                    writer.add(episode)
                    number += 1
                writer.commit()
        return tmp_path / name

    return make
