"""Reading pickles of numbers without running them.

A pickle is a program: it may name any function and call it. This reader knows a dozen names, each mapped to a stand-in
of this module that only remembers what it is told; arrays are built afterwards from checked pieces. Every other name is
refused before anything is called. ``numpy.load(allow_pickle=True)`` and ``pickle.load`` never see a foreign file.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import needed_file

__all__ = ["load_object_array", "load_pickle", "loads"]

MAX_PICKLE_BYTES = 64 << 20
MAX_ARRAY_FILE_BYTES = 64 << 30
MAX_HEADER_BYTES = 10_000


class _Name:
    """A name that a pickle may use: it can be called, and nothing about it can be changed."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"it sets {name!r} of a function")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


def _refuse(*_: Any) -> Any:
    """Stands for the class ``numpy.ndarray``, which honest pickles only hand to ``_reconstruct``."""
    raise pickle.UnpicklingError("it calls numpy.ndarray")


class _DType:
    """``numpy.dtype(code, align, copy)`` and its later state: byte order only; no fields, no subarrays."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        dtype = np.dtype(code) if isinstance(code, str) and len(code) < 16 else None
        if dtype is None or dtype.kind not in "biufcSUO" or dtype.names or dtype.subdtype:
            raise pickle.UnpicklingError(f"dtype {code!r} is not a plain number, text or object")
        self.dtype: np.dtype = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) < 5 or state[2:5] != (None, None, None) or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a dtype with fields or a subarray")
        if state[1] != "|":
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array to be: shape, dtype and data as the pickle states them."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def pieces(self) -> tuple[tuple[int, ...], np.dtype, bool, Any]:
        if self.state is None or len(self.state) != 5:
            raise pickle.UnpicklingError("an array without its state")
        _, shape, dtype, is_fortran, data = self.state
        good = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
        if not good or not isinstance(dtype, _DType) or dtype.dtype is None:
            raise pickle.UnpicklingError("an array with a wrong shape or dtype")
        return shape, dtype.dtype, bool(is_fortran), data


class _BufferArray(_Array):
    """``numpy._core.numeric._frombuffer(buffer, dtype, shape, order)`` of protocol 5."""

    def __init__(self, data: Any, dtype: Any, shape: Any, order: str = "C") -> None:
        super().__init__()
        self.state = (1, shape, dtype, order == "F", data)


class _Scalar(_Array):
    """``numpy._core.multiarray.scalar(dtype, bytes)``."""

    def __init__(self, dtype: Any, data: Any = b"") -> None:
        super().__init__()
        self.state = (1, (), dtype, False, data)


def _empty() -> bytes:
    """``bytes()``: how protocol 2 spells no bytes."""
    return b""


def _latin1(text: str, encoding: str) -> bytes:
    """``_codecs.encode``: how protocol 2 spells bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin-1")


ALLOWED: dict[tuple[str, str], _Name] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Name(_Array) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Name(_Scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Name(_BufferArray) for core in ("core", "_core")},
    ("numpy", "ndarray"): _Name(_refuse),
    ("numpy", "dtype"): _Name(_DType),
    ("collections", "OrderedDict"): _Name(dict),
    ("_codecs", "encode"): _Name(_latin1),
    ("builtins", "bytes"): _Name(_empty),
    ("__builtin__", "bytes"): _Name(_empty),
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """The standard library's reader in Python: the one in C clears gigabytes of memory for a single hostile opcode
    (LONG_BINPUT with a large index), and its time is not what a conversion spends."""

    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def load_bytearray8(self) -> None:
        """As the parent's, which allocates the stated length before it looks whether so much is there."""
        (length,) = struct.unpack("<Q", self.read(8))
        data = self.read(length)
        if len(data) != length:
            raise pickle.UnpicklingError(f"{length} bytes stated, {len(data)} there")
        self.append(bytearray(data))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not a plain array, list or dict")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to outside objects")


def loads(data: bytes, where: str) -> Any:
    """Numbers, text, lists, tuples, dicts and numpy arrays of them from a pickle.

    Args:
        data: the pickle.
        where: what to call it in errors.

    Returns:
        Plain Python objects and read-only numpy arrays; an ordered dict comes back as a dict.

    Raises:
        DataError: the pickle names anything else, or is damaged; nothing of it was run.
    """
    try:
        return _resolved(_Unpickler(io.BytesIO(data), encoding="latin1").load(), {})
    except (pickle.UnpicklingError, EOFError, OverflowError, RecursionError, MemoryError, UnicodeDecodeError) as error:
        cut_short = " (truncated?)" if "exhausted" in str(error) or isinstance(error, EOFError) else ""
        raise DataError(f"{where}: refused pickle: {error or type(error).__name__}{cut_short}") from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise DataError(f"{where}: damaged pickle: {error!r}") from error


def load_pickle(file: Path, max_bytes: int = MAX_PICKLE_BYTES) -> Any:
    """:func:`loads` of a file of bounded size."""
    needed_file(file)
    size = file.stat().st_size
    if size > max_bytes:
        raise DataError(f"{file}: expected at most {max_bytes} bytes, got {size}")
    return loads(file.read_bytes(), str(file))


def load_object_array(file: Path, max_bytes: int = MAX_ARRAY_FILE_BYTES) -> list[Any]:
    """The elements of a one-dimensional object array in an ``.npy`` file.

    Raises:
        DataError: not an ``.npy`` file, another dtype or shape, or a refused pickle.
    """
    needed_file(file)
    if file.stat().st_size > max_bytes:
        raise DataError(f"{file}: expected at most {max_bytes} bytes, got {file.stat().st_size}")
    with open(file, "rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream, max_header_size=MAX_HEADER_BYTES)
        except ValueError as error:
            raise DataError(f"{file}: not an .npy file ({error})") from error
        if shape == (0,):
            return []  # what numpy makes of an empty list has no object in it
        if dtype != np.dtype(object):
            raise DataError(f"{file}: expected an object array of trajectories, got dtype {dtype} and shape {shape}")
        array = loads(stream.read(), str(file))
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.shape != shape:
        came = f"an array of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise DataError(f"{file}: expected a one-dimensional object array of trajectories, got {came}")
    return list(array)


def _resolved(value: Any, known: dict[int, Any]) -> Any:
    """The same objects with arrays built; shared parts are visited once."""
    if isinstance(value, str | bytes | bytearray | int | float | complex | bool | type(None)):
        return value
    if id(value) in known:
        return known[id(value)][1]
    out: Any
    if isinstance(value, _Array):
        out = _built(value, known)
    elif isinstance(value, dict):
        if not all(isinstance(key, str | bytes | int | float | None) for key in value):
            raise pickle.UnpicklingError("a dict with a key that is no text or number")
        out = {key: _resolved(item, known) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        out = type(value)(_resolved(item, known) for item in value)
    else:
        raise pickle.UnpicklingError(f"a bare {type(value).__name__.strip('_')}")
    known[id(value)] = (value, out)  # keeps value alive, so that its id stays its own
    return out


def _built(value: _Array, known: dict[int, Any]) -> Any:
    shape, dtype, is_fortran, data = value.pieces()
    count = math.prod(shape)
    if dtype.kind == "O":
        if not isinstance(data, list) or len(data) != count:
            raise pickle.UnpicklingError(f"an object array of shape {shape} without its {count} elements")
        flat = np.empty(count, object)
        for index, item in enumerate(data):
            flat[index] = _resolved(item, known)
    else:
        if isinstance(data, str):  # protocol 2 of Python 2
            data = data.encode("latin-1")
        if not isinstance(data, bytes | bytearray) or len(data) != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"an array of shape {shape} and dtype {dtype} without its bytes")
        flat = np.frombuffer(data, dtype, count=count) if count else np.zeros(0, dtype)
    array = flat.reshape(shape, order="F" if is_fortran else "C")
    return array[()] if isinstance(value, _Scalar) else array
