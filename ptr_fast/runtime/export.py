"""A policy as one ONNX file: from cameras' uint8 frames to actions in the robot's units.

Inputs: ``frame`` uint8 ``[H, W, 3]`` RGB of a policy of one camera, ``frame_CAMERA`` of each of several; ``state``
float32 ``[S]``; ``task_id`` int64 ``[1]`` (absent where the task is fixed); ``noise`` float32, standard normal (where
the mode draws any, e.g. ``[K, A]`` in ``search``). Policies that look at T past observations take frames
``[T, H, W, 3]`` and states ``[T, S]``, the oldest first. Output: ``action`` float32 ``[A]``, raw units, or ``[H, A]``
of a policy that answers with chunks of H actions. What else a user has to know stands in the file's metadata.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ptr_fast.config import ActConfig, PolicySpec, to_dict
from ptr_fast.kernels import dispatch
from ptr_fast.runtime.graph import ActingGraph
from ptr_fast.runtime.kept_models import fingerprint, keep, kept
from ptr_fast.types import Window

__all__ = ["CHECKED", "OUTPUT", "add_metadata", "describe", "part_to_onnx", "read_exported", "to_onnx", "why_not_onnx"]

OUTPUT = "action"
CHECKED = "ptr_fast.checked"
DIGEST = "ptr_fast.sha256"
OPSET = 20


def why_not_onnx() -> str | None:
    """Why nothing can be exported on this machine, or None."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    return f"{' and '.join(missing)} missing: pip install 'ptr-fast[export]'" if missing else None


def to_onnx(graph: ActingGraph, spec: PolicySpec, act: ActConfig, metadata: dict[str, str]) -> bytes:
    """The graph as an ONNX model.

    Args:
        graph: on the CPU.
        spec, act: of the checkpoint; they go into the metadata.
        metadata: further entries, e.g. ``checkpoint``.

    Returns:
        The file's bytes, weights inside.

    Raises:
        RuntimeError: the packages of the extra ``export`` are missing.
        ValueError: a policy larger than an ONNX file can be (2 GiB).
    """
    if why := why_not_onnx():
        raise RuntimeError(f"export: {why}")
    import onnx

    model = _trace(graph, graph.example(), graph.input_names, OUTPUT)
    onnx.helper.set_model_props(model, {**describe(graph, spec, act), **metadata})
    model.producer_name = "ptr-fast"
    model.doc_string = __doc__ or ""
    buffer = io.BytesIO()
    try:
        onnx.save_model(model, buffer)
    except ValueError as error:
        raise ValueError(f"export: the model does not fit into one ONNX file: {error}") from error
    return buffer.getvalue()


def part_to_onnx(part: nn.Module, example: tuple[torch.Tensor, ...], input_names: tuple[str, ...]) -> bytes:
    """A part of a graph as an ONNX model with one output."""
    return _trace(part, example, input_names, "part").SerializeToString()


def _trace(module: nn.Module, example: tuple[torch.Tensor, ...], input_names: tuple[str, ...], output: str) -> Any:
    import onnx

    key = fingerprint(module, example, input_names, output, OPSET)
    if (model := kept(key)) is not None:
        return onnx.load_from_string(model)
    with torch.inference_mode(False), torch.no_grad(), dispatch.use_backend("reference"), _quiet():
        program = torch.onnx.export(
            module.eval(),
            example,
            input_names=list(input_names),
            output_names=[output],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=True,
        )
    assert program is not None
    proto = program.model_proto
    if proto.ByteSize() < 2**31:  # a larger one is no file
        keep(key, proto.SerializeToString())
    return proto


def add_metadata(model: bytes, entries: dict[str, str]) -> bytes:
    """The file with further entries in its metadata, and a digest of all else that :func:`read_exported` checks."""
    import onnx

    proto = onnx.load_from_string(model)
    told = {prop.key: prop.value for prop in proto.metadata_props}
    onnx.helper.set_model_props(proto, {**told, **entries, DIGEST: _digest(proto)})
    return proto.SerializeToString()


def _digest(proto: Any) -> str:
    bare = type(proto)()
    bare.CopyFrom(proto)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def read_exported(path: Path, expected: dict[str, str]) -> tuple[bytes, str]:
    """An exported file, and how near to its checkpoint it was found to act.

    Args:
        expected: entries that its metadata must have.

    Raises:
        ValueError: it is no such file, it is damaged, or an entry differs; the entry is named.
    """
    import onnx
    from google.protobuf.message import DecodeError

    model = path.read_bytes()
    try:
        proto = onnx.load_from_string(model)
    except DecodeError as error:
        raise ValueError(f"{path}: not an ONNX file: {error}") from error
    told = {prop.key: prop.value for prop in proto.metadata_props}
    if DIGEST not in told:
        raise ValueError(f"{path}: not a file of ptr-fast export: its metadata has no {DIGEST}")
    if (found := _digest(proto)) != told[DIGEST]:
        raise ValueError(f"{path}: damaged: expected {DIGEST} {told[DIGEST]}, got {found}")
    for key, value in expected.items():
        if told.get(key) != value:
            raise ValueError(
                f"{path}: expected {key} {value!r} of the checkpoint as it acts here, got {told.get(key)!r}"
            )
    return model, told.get(CHECKED, "not checked")


def describe(graph: ActingGraph, spec: PolicySpec, act: ActConfig) -> dict[str, str]:
    """What a user of the file has to know: names, units and bounds, tasks, mode, rate.

    Of a single camera ``ptr_fast.camera`` and ``ptr_fast.frame`` are objects, of several they are lists of them.
    """
    cameras = [to_dict(camera) for camera in spec.cameras]
    frames = [{"height": height, "width": width, "order": "RGB"} for height, width in graph.frame_sizes.values()]
    entries = {
        "ptr_fast.action.names": json.dumps(spec.action.names),
        "ptr_fast.action.units": json.dumps(spec.action.units),
        "ptr_fast.action.low": json.dumps(spec.action.low),
        "ptr_fast.action.high": json.dumps(spec.action.high),
        "ptr_fast.state.names": json.dumps(spec.state.names),
        "ptr_fast.state.units": json.dumps(spec.state.units),
        "ptr_fast.camera": json.dumps(cameras[0] if len(cameras) == 1 else cameras),
        "ptr_fast.frame": json.dumps(frames[0] if len(frames) == 1 else frames),
        "ptr_fast.tasks": json.dumps(spec.tasks.names),
        "ptr_fast.task": "" if graph.slot is None else spec.tasks.names[int(graph.slot)],
        "ptr_fast.act": json.dumps(to_dict(act)),
        "ptr_fast.control_hz": json.dumps(spec.control_hz),
    }
    if graph.window != Window():  # files that were written before there were windows have no such entry
        entries["ptr_fast.window"] = json.dumps(to_dict(graph.window))
    return entries


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its own deprecations and progress on standard output and as warnings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
