"""Files of ``flax.training.checkpoints`` read without JAX or Flax.

The format is MessagePack with three extension types: 1 an array as (shape, dtype name, bytes), 2 a complex number, 3 a
scalar stored like an array. Arrays above one GiB come in pieces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.errors import DataError

__all__ = ["flatten", "read_flax_checkpoint"]

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_DTYPES = ("float16", "float32", "float64", "bool", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))
_CHUNKED = "__msgpack_chunked_array__"
_MAX_KEYS, _MAX_NAME_BYTES, _MAX_DEPTH = 100_000, 1_000, 64


def read_flax_checkpoint(path: Path, max_bytes: int = 8 << 30) -> dict[str, Any]:
    """The nested dictionary of a checkpoint file; leaves are numpy arrays and plain values.

    Args:
        path: the file, as the reference's ``checkpoint<step>``.
        max_bytes: largest file to read.

    Raises:
        DataError: no such file, too large, not MessagePack, or a broken array; names the file.
        RuntimeError: the msgpack package is missing.
    """
    try:
        import msgpack
    except ImportError as error:
        raise RuntimeError("reading Flax checkpoints needs the msgpack package: pip install msgpack") from error
    if not path.is_file():
        hint = "; give the file inside the folder" if path.is_dir() else ""
        raise DataError(f"{path}: expected a checkpoint file{hint}")
    size = path.stat().st_size
    if size > max_bytes:
        raise DataError(f"{path}: {size} bytes, at most {max_bytes} are read")
    data = path.read_bytes()
    try:
        tree = msgpack.unpackb(
            data,
            ext_hook=_extension,
            raw=False,
            strict_map_key=False,
            max_map_len=_MAX_KEYS,
            max_array_len=_MAX_KEYS,
            max_str_len=_MAX_NAME_BYTES,
            max_bin_len=size,
            max_ext_len=size,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (msgpack.UnpackException, ValueError) as error:
        raise DataError(f"{path}: not a Flax checkpoint ({type(error).__name__}: {error})") from error
    if not isinstance(tree, dict):
        raise DataError(f"{path}: expected a dictionary, got {type(tree).__name__}")
    return _joined(tree)


def flatten(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of a nested dictionary by slash-separated name; anything else is passed over."""
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{rest}": array for rest, array in flatten(value).items()}
        elif isinstance(value, np.ndarray):
            flat[str(name)] = value
    return flat


def _extension(code: int, data: bytes) -> Any:
    import msgpack

    if code not in (_ARRAY, _SCALAR):
        raise DataError(f"unsupported extension type {code}")
    try:
        shape, dtype, buffer = msgpack.unpackb(data, raw=False, max_ext_len=0, max_map_len=0)
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise DataError(f"broken array ({error})") from error
    if dtype not in _DTYPES:
        raise DataError(f"array of dtype {dtype!r}, expected one of {list(_DTYPES)}")
    if not all(isinstance(n, int) and n >= 0 for n in shape) or not isinstance(buffer, bytes):
        raise DataError(f"broken array: shape {shape!r}")
    if math.prod(shape) * np.dtype(dtype).itemsize != len(buffer):
        raise DataError(f"broken array: {len(buffer)} bytes for shape {list(shape)} of {dtype}")
    array = np.frombuffer(buffer, dtype=dtype).reshape(shape)
    return array[()] if code == _SCALAR else array


def _joined(tree: dict, depth: int = 0) -> Any:
    """Put arrays that came in pieces together again."""
    if depth > _MAX_DEPTH:
        raise DataError(f"dictionaries nested more than {_MAX_DEPTH} deep")
    if _CHUNKED in tree:
        pieces, shape = tree["chunks"], tree["shape"]
        flat = np.concatenate([np.ravel(pieces[str(i)]) for i in range(len(pieces))])
        return flat.reshape([int(shape[str(i)]) for i in range(len(shape))])
    return {str(key): _joined(value, depth + 1) if isinstance(value, dict) else value for key, value in tree.items()}
