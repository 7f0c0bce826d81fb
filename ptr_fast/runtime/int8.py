"""Post-training static quantisation of an exported policy: convolutions in 8-bit integers, all else in float32.

Weights are quantised per channel, activations per tensor with the ranges seen on calibration frames (the largest and
the smallest value). Convolutions are nearly all of the work; the norms between them stay exact.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

__all__ = ["to_int8"]


def to_int8(model: bytes, samples: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """An ONNX file of :func:`ptr_fast.runtime.export.to_onnx` with 8-bit convolutions, in ONNX's QDQ form.

    Args:
        model: the file's bytes.
        samples: the graph's inputs by name, e.g. 64 observations that look like those it will act on.

    Returns:
        The new file's bytes; metadata, inputs and output are the same.

    Raises:
        ValueError: no samples, or a model without convolutions (a ``vit``).
        RuntimeError: the packages of the extra ``export`` are missing.
    """
    left = iter(samples)
    first = next(left, None)
    if first is None:
        raise ValueError("samples: expected at least one observation to calibrate on, got none")
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise RuntimeError(f"int8: {error}: pip install 'ptr-fast[export]'") from error

    if not any(node.op_type == "Conv" for node in onnx.load_from_string(model).graph.node):
        raise ValueError("int8: only convolutions become 8-bit, and this encoder has none: export it in float32")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = itertools.chain([first], left)

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self._left, None)
            return None if sample is None else dict(sample)

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model)
        told, level = logging.getLogger(), logging.getLogger().level
        told.setLevel(logging.ERROR)  # it advises on an optional preparation of the file
        try:
            quantization.quantize_static(
                source,
                target,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        finally:
            told.setLevel(level)
        return target.read_bytes()
