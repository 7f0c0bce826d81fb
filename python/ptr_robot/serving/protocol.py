"""The messages of openpi's websocket protocol: msgpack, with numpy arrays as maps.

An array is the map ``{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [...]}``, a numpy scalar
``{b"__npgeneric__": True, b"data": value, b"dtype": ...}``. The server speaks first (its metadata), then answers one
message per message: a map of bytes, or text where it failed.

Source: openpi, ``packages/openpi-client`` (msgpack_numpy, websocket_client_policy). Nothing that came over the wire is
trusted: sizes are bounded, only numbers become arrays, and an array's bytes must be exactly its shape.
"""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import msgpack
import numpy as np

__all__ = ["MAX_DIMENSIONS", "MAX_MESSAGE_BYTES", "ProtocolError", "check_token", "pack", "unpack"]

MAX_DIMENSIONS = 8
MAX_MESSAGE_BYTES = 8 << 20
"""A larger message is refused, unless somebody asked for larger ones."""
_MAX_ITEMS = 1024  # of a map or list
_MAX_CONTAINERS = 256  # maps, lists and arrays: a message of many small ones would keep the reader busy for seconds
_KINDS = "buif"  # booleans and numbers


class ProtocolError(ValueError):
    """A message that is not one; the text says what was expected."""


def check_token(token: str) -> None:
    """Refuses a token that ``Authorization: Api-Key TOKEN`` does not carry to the other side; it is not printed.

    Raises:
        ValueError: other characters than printable ASCII, or blanks or line ends around it.
    """
    if not (token.isascii() and token.isprintable() and token == token.strip()):
        raise ValueError("token: expected printable ASCII without blanks around it")


def pack(message: Any) -> bytes:
    """A message as bytes.

    Raises:
        TypeError, ValueError: something in it is neither a number, text, bytes, list, map nor array of numbers.
    """
    return msgpack.packb(message, default=_encode)


def unpack(data: bytes | str) -> Any:
    """The message in some bytes.

    Raises:
        ProtocolError: not a message of this protocol.
    """
    if isinstance(data, str):
        raise ProtocolError("expected a binary message, got text")
    containers = count(1)

    def counted(value: Any) -> Any:
        if next(containers) > _MAX_CONTAINERS:
            raise ProtocolError(f"a message of more than {_MAX_CONTAINERS} maps, lists and arrays")
        return value

    try:
        return msgpack.unpackb(
            data,
            object_hook=lambda value: _decode(counted(value)),
            list_hook=counted,
            strict_map_key=False,
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_ITEMS,
            max_ext_len=0,
        )
    except ProtocolError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not a message: {str(error) or type(error).__name__}") from error


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in _KINDS:
        raise TypeError(f"cannot send an array of {value.dtype}")
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": list(value.shape),
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"cannot send a {type(value).__name__}")


def _decode(value: dict) -> Any:
    if b"__ndarray__" in value:
        dtype, shape, data = _dtype(value), value.get(b"shape"), value.get(b"data")
        if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
            raise ProtocolError(f"array: expected a shape of at most {MAX_DIMENSIONS} sizes, got {shape!r:.80}")
        if not all(type(size) is int and 0 <= size < 2**31 for size in shape):
            raise ProtocolError(f"array: expected sizes, got {shape!r:.80}")
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
            got = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
            raise ProtocolError(f"array: expected {math.prod(shape) * dtype.itemsize} bytes for {shape}, got {got}")
        return np.frombuffer(data, dtype).reshape(shape)
    if b"__npgeneric__" in value:
        number = value.get(b"data")
        if not isinstance(number, bool | int | float):
            raise ProtocolError(f"number: expected one, got {type(number).__name__}")
        try:
            return _dtype(value).type(number)
        except OverflowError as error:
            raise ProtocolError(f"number: {error}") from error
    return value


def _dtype(value: dict) -> np.dtype:
    name = value.get(b"dtype")
    if not isinstance(name, str) or len(name) > 8:
        raise ProtocolError(f"array: expected the name of a dtype, got {name!r:.80}")
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ProtocolError(f"array: no dtype {name!r}") from error
    if dtype.kind not in _KINDS or dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise ProtocolError(f"array: expected numbers, got {name!r}")
    return dtype
