"""Messages survive the way there and back, and nothing but messages gets in."""

import contextlib
import time

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptr_robot.serving.protocol import ProtocolError, pack, unpack


@pytest.mark.parametrize("dtype", ["u1", "<i8", "<f4", "<f8", "?", "<f2", ">f4"])
def test_arrays_and_numbers(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    back = unpack(pack({"a": array, "n": array[0, 0, 1], "text": "x", "list": [1, 2.5, None, True]}))
    np.testing.assert_array_equal(back["a"], array)
    assert back["a"].dtype == array.dtype
    assert back["n"] == array[0, 0, 1]
    assert (back["text"], back["list"]) == ("x", [1, 2.5, None, True])


def test_the_bytes_are_openpis():
    # As packages/openpi-client packs it.
    raw = msgpack.unpackb(pack(np.float32([[1.5]])), strict_map_key=False)
    assert raw == {b"__ndarray__": True, b"data": np.float32([1.5]).tobytes(), b"dtype": "<f4", b"shape": [1, 1]}
    raw = msgpack.unpackb(pack(np.float32(2)), strict_map_key=False)
    assert raw == {b"__npgeneric__": True, b"data": 2.0, b"dtype": "<f4"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("text", "expected a binary message"),
        (b"", "not a message"),
        (b"\xc1", "not a message"),
        (pack([1]) + b"\x00", "not a message"),
        (b"\x91" * 5000, "not a message"),
        (b"\xdd\xff\xff\xff\xff", "not a message"),
        (msgpack.packb(msgpack.ExtType(1, b"x")), "not a message"),
        (msgpack.packb({b"__ndarray__": True}), "dtype"),
        (msgpack.packb({b"__ndarray__": True, b"data": b"", b"dtype": "O", b"shape": [0]}), "expected numbers"),
        (msgpack.packb({b"__ndarray__": True, b"data": b"", b"dtype": "i4,f4", b"shape": [0]}), "expected numbers"),
        (msgpack.packb({b"__ndarray__": True, b"data": b"", b"dtype": "<m8[s]", b"shape": [0]}), "expected numbers"),
        (msgpack.packb({b"__ndarray__": True, b"data": b"ab", b"dtype": "u1", b"shape": [3]}), "expected 3 bytes"),
        (msgpack.packb({b"__ndarray__": True, b"data": b"", b"dtype": "u1", b"shape": [-1]}), "expected sizes"),
        (msgpack.packb({b"__ndarray__": True, b"data": b"", b"dtype": "u1", b"shape": [2**40, 0]}), "expected sizes"),
        (msgpack.packb({b"__ndarray__": True, b"data": b"", b"dtype": "u1", b"shape": [1] * 9}), "at most 8"),
        (msgpack.packb({b"__npgeneric__": True, b"data": b"x", b"dtype": "<f4"}), "expected one"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "u1"}), "number"),
    ],
)
def test_what_is_not_a_message_is_refused(message, expected):
    with pytest.raises(ProtocolError, match=expected):
        unpack(message)


@pytest.mark.parametrize(
    "small", [{}, {"a": 1}, [], [1], {b"__ndarray__": True, b"data": b"", b"dtype": "u1", b"shape": [0]}]
)
def test_a_message_of_millions_of_small_things_is_refused_quickly(small):
    data = msgpack.packb([[small] * 1000 for _ in range(1000)])
    begin = time.thread_time()
    with pytest.raises(ProtocolError, match="a message of more than 256 maps, lists and arrays"):
        unpack(data)
    assert time.thread_time() - begin < 0.05


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data):
    with contextlib.suppress(ProtocolError):
        unpack(data)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_message_is_a_message_or_a_protocol_error(data):
    message = bytearray(pack({"observation/image": np.zeros((2, 2, 3), np.uint8), "prompt": "task"}))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        unpack(bytes(message[: data.draw(st.integers(0, len(message)))]))


@pytest.mark.parametrize("value", [object(), np.array([None]), np.array(["a"]), np.zeros(2, "c8"), {1, 2}])
def test_what_cannot_be_sent_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        pack({"x": value})
