"""Writes RLDS data sets as TensorFlow Datasets does: features.json, dataset_info.json and TFRecord files."""

import json
import struct

import numpy as np
import simplejpeg

from ptr_robot.datasets.tfrecord import masked_crc32c

CLASSES = "tensorflow_datasets.core.features."


def tensor(*shape, dtype="float32", encoding="none"):
    """A Tensor feature."""
    dimensions = {"dimensions": [str(n) for n in shape]} if shape else {}
    about = {"dtype": dtype, "encoding": encoding, "shape": dimensions}
    return {"pythonClassName": CLASSES + "tensor_feature.Tensor", "tensor": about}


def picture(height=16, width=24, channels=3, dtype="uint8"):
    """An Image feature."""
    shape = {"dimensions": [str(height), str(width), str(channels)]}
    return {"pythonClassName": CLASSES + "image_feature.Image", "image": {"dtype": dtype, "shape": shape}}


def text():
    """A Text feature."""
    return {"pythonClassName": CLASSES + "text_feature.Text", "text": {}}


def node(tree):
    """A FeaturesDict of nested dicts."""
    features = {name: value if "pythonClassName" in value else node(value) for name, value in tree.items()}
    return {"pythonClassName": CLASSES + "features_dict.FeaturesDict", "featuresDict": {"features": features}}


def jpegs(count, seed=0, height=16, width=24):
    colours = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3), np.uint8)
    return [simplejpeg.encode_jpeg(np.ascontiguousarray(np.broadcast_to(c, (height, width, 3)))) for c in colours]


def usual(num_steps=4, seed=0, task=b"open the drawer", action_dim=7, state_dim=7):
    """Values of an episode with one camera, as its tf.Example holds them."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (num_steps, action_dim))
    actions[:, -1] = rng.integers(0, 2, num_steps)
    return {
        "steps/observation/image": jpegs(num_steps, seed),
        "steps/observation/state": rng.normal(size=num_steps * state_dim),
        "steps/action": actions.reshape(-1),
        "steps/language_instruction": [task] * num_steps,
    }


def usual_steps(action_dim=7, state_dim=7):
    """Features of :func:`usual`."""
    observation = {"image": picture(), "state": tensor(state_dim)}
    return {"observation": observation, "action": tensor(action_dim), "language_instruction": text()}


def write(folder, steps, episodes, name="own", metadata=None, split="train", num_shards=1, info=True):
    """A data set; ``steps`` and ``metadata`` are nested dicts of features, ``episodes`` dicts of values."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"pythonClassName": CLASSES + "dataset_feature.Dataset", "sequence": {"feature": node(steps)}}
    tree = {"steps": whole, **({"episode_metadata": metadata} if metadata else {})}
    (folder / "features.json").write_text(json.dumps(node(tree)))
    shards = [episodes[i::num_shards] for i in range(num_shards)]
    for i, shard in enumerate(shards):
        file = folder / f"{name}-{split}.tfrecord-{i:05d}-of-{num_shards:05d}"
        file.write_bytes(b"".join(record(example(values)) for values in shard))
    if info:
        lengths = [str(len(shard)) for shard in shards]
        about = {"name": name, "fileFormat": "tfrecord", "splits": [{"name": split, "shardLengths": lengths}]}
        (folder / "dataset_info.json").write_text(json.dumps(about))
    return folder


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(field, payload):
    return varint(field << 3 | 2) + varint(len(payload)) + payload


def feature(values):
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return message(2, message(1, values.astype("<f4").tobytes()))
    if isinstance(values, np.ndarray):
        return message(3, message(1, b"".join(varint(int(v) & (2**64 - 1)) for v in values)))
    return message(1, b"".join(message(1, value) for value in values))


def example(features):
    entries = (message(1, message(1, name.encode()) + message(2, feature(v))) for name, v in features.items())
    return message(1, b"".join(entries))


def record(payload):
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked_crc32c(length)) + payload + struct.pack("<I", masked_crc32c(payload))
