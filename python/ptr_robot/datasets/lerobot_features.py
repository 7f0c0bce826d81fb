"""What a LeRobot data set of version 3.0 declares: its features, the columns of its data files, its table of tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ptr_fast.data.store import StoreMeta
from ptr_robot.datasets.video_file import GROUP, PIXELS, PRESET, QUALITY

__all__ = ["data_schema", "declared_features", "tasks_table"]

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
BOOKKEEPING = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def declared_features(
    meta: StoreMeta, camera_keys: Mapping[str, str], *, fps: int, as_video: bool, has_success: bool, has_reward: bool
) -> dict[str, dict[str, Any]]:
    """``features`` of ``info.json``.

    Args:
        meta: of the store.
        camera_keys: camera -> feature.
        fps: steps per second.
        as_video: frames are in videos.
        has_success, has_reward: there are columns ``next.success`` and ``next.reward``.
    """
    features: dict[str, dict[str, Any]] = {}
    for key, spec in (("observation.state", meta.state), ("action", meta.action)):
        features[key] = {"dtype": "float32", "shape": [spec.dim], "names": list(spec.names)}
    for camera in meta.cameras:
        about: dict[str, Any] = {
            "dtype": "video" if as_video else "image",
            "shape": [camera.height, camera.width, 3],
            "names": ["height", "width", "channels"],
        }
        if as_video:
            about["info"] = {
                "video.height": camera.height,
                "video.width": camera.width,
                "video.codec": "av1",
                "video.pix_fmt": PIXELS,
                "video.fps": fps,
                "video.channels": 3,
                "has_audio": False,
                "video.g": GROUP,
                "video.crf": QUALITY,
                "video.preset": PRESET,
                "is_depth_map": False,
            }
        features[camera_keys[camera.name]] = about
    numbers = {"next.done": "bool"}
    if has_success:
        numbers["next.success"] = "bool"
    if has_reward:
        numbers["next.reward"] = "float32"
    for name, dtype in {**numbers, **BOOKKEEPING}.items():
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    return features


def data_schema(features: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """Arrow schema of the data files, with the description that the ``datasets`` package looks for."""
    fields: list[Any] = []
    described: dict[str, Any] = {}
    for key, about in features.items():
        if about["dtype"] == "video":
            continue
        if about["dtype"] == "image":
            fields.append((key, IMAGE))
            described[key] = {"_type": "Image"}
            continue
        dtype = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}[about["dtype"]]
        value: dict[str, Any] = {"dtype": about["dtype"], "_type": "Value"}
        size = about["shape"][0]
        is_list = size > 1
        fields.append((key, pa.list_(dtype, size) if is_list else dtype))
        described[key] = {"feature": value, "length": size, "_type": "List"} if is_list else value
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": described}})})


def tasks_table(tasks: Mapping[str, int]) -> pa.Table:
    """Task indices, with the instructions as what pandas takes for their index."""
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks, pa.string())})
    kinds = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
        for name, kind, dtype in kinds
    ]
    about = {"index_columns": ["task"], "columns": columns, "column_indexes": [], "pandas_version": "2.3.3"}
    return table.replace_schema_metadata({"pandas": json.dumps(about)})
