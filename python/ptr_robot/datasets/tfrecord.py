"""TFRecord framing and the wire format of ``tf.Example``, without TensorFlow.

A record is: length uint64, masked CRC-32C of the length, payload, masked CRC-32C of the payload, all little endian
(``tensorflow/core/lib/io/record_writer.h``). An Example is a map from names to lists of bytes, floats or integers
(``tensorflow/core/example/example.proto``).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import whats_there

__all__ = ["Feature", "RecordIndex", "index_records", "masked_crc32c", "parse_example", "read_record"]

Feature = list[memoryview] | np.ndarray  # bytes values, float32 [n] or int64 [n]
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
HEADER, FOOTER = 12, 4


@dataclass(frozen=True, kw_only=True)
class RecordIndex:
    """Where the records of a file are.

    Attributes:
        offsets: of every whole record with a good length checksum.
        damage: what stopped the scan, empty where the file ended as it should.
    """

    offsets: tuple[int, ...]
    damage: str = ""


def masked_crc32c(data: bytes) -> int:
    """CRC-32C, rotated and shifted as TFRecord does, so that a checksum of a checksum is no fixed point."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def index_records(file: Path) -> RecordIndex:
    """Finds the records of a file by reading only their headers; checks every length checksum."""
    if os.path.getsize(file) and (told := whats_there(file)):
        return RecordIndex(offsets=(), damage=f"{file}: {told}")
    offsets: list[int] = []
    size, offset = os.path.getsize(file), 0
    with open(file, "rb") as stream:
        while offset < size:
            where = f"{file}: record {len(offsets)} at byte {offset}"
            stream.seek(offset)
            header = stream.read(HEADER)
            if len(header) < HEADER:
                damage = f"{where}: expected a header of {HEADER} bytes, the file ends after {len(header)} (truncated?)"
                return RecordIndex(offsets=tuple(offsets), damage=damage)
            length, crc = struct.unpack("<QI", header)
            actual = masked_crc32c(header[:8])
            if actual != crc:
                damage = f"{where}: CRC-32C of the length: expected {crc:#010x}, got {actual:#010x}"
                return RecordIndex(offsets=tuple(offsets), damage=damage)
            end = offset + HEADER + length + FOOTER
            if end > size:
                damage = f"{where}: expected {end - offset} bytes, the file ends after {size - offset} (truncated?)"
                return RecordIndex(offsets=tuple(offsets), damage=damage)
            offsets.append(offset)
            offset = end
    return RecordIndex(offsets=tuple(offsets))


def read_record(file: Path, offset: int) -> bytes:
    """The payload of the record at ``offset``.

    Raises:
        DataError: its checksum does not fit, or the file ends too early.
    """
    with open(file, "rb") as stream:
        stream.seek(offset)
        header = stream.read(HEADER)
        if len(header) < HEADER:
            raise DataError(f"{file}: no record at byte {offset}")
        (length,) = struct.unpack("<Q", header[:8])
        if offset + HEADER + length + FOOTER > os.path.getsize(file):
            raise DataError(f"{file}: record at byte {offset} ends behind the end of the file (truncated?)")
        payload, footer = stream.read(length), stream.read(FOOTER)
    (crc,) = struct.unpack("<I", footer)
    actual = masked_crc32c(payload)
    if actual != crc:
        raise DataError(
            f"{file}: record at byte {offset}: CRC-32C of the data: expected {crc:#010x}, got {actual:#010x}"
        )
    return payload


def parse_example(payload: bytes) -> dict[str, Feature]:
    """A serialised ``tf.Example`` as a dict; byte values are views of ``payload``.

    Raises:
        DataError: not the wire format of an Example.
    """
    features: dict[str, Feature] = {}
    try:
        for field, features_message in _fields(memoryview(payload)):
            if field != 1 or not isinstance(features_message, memoryview):
                continue
            for entry_field, entry in _fields(features_message):
                if entry_field == 1 and isinstance(entry, memoryview):
                    name, feature = _map_entry(entry)
                    features[name] = feature
    except (IndexError, ValueError, struct.error) as error:
        raise DataError(f"not a tf.Example: {error}") from error
    return features


def _map_entry(entry: memoryview) -> tuple[str, Feature]:
    name, feature = "", memoryview(b"")
    for field, value in _fields(entry):
        if not isinstance(value, memoryview):
            raise ValueError(f"field {field} of a feature entry is a number")
        if field == 1:
            name = bytes(value).decode()
        elif field == 2:
            feature = value
    for kind, values in _fields(feature):
        if not isinstance(values, memoryview):
            raise ValueError(f"feature {name!r} holds a bare number")
        if kind == 1:
            return name, [value for _, value in _fields(values) if isinstance(value, memoryview)]
        if kind == 2:
            return name, _floats(values)
        if kind == 3:
            return name, _integers(values)
    return name, []


def _floats(message: memoryview) -> np.ndarray:
    pieces = []
    for _, value in _fields(message):
        raw = value if isinstance(value, memoryview) else struct.pack("<I", value)
        if len(raw) % 4:
            raise ValueError(f"a float list of {len(raw)} bytes")
        pieces.append(np.frombuffer(raw, "<f4"))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _integers(message: memoryview) -> np.ndarray:
    values: list[int] = []
    for _, value in _fields(message):
        if isinstance(value, int):
            values.append(value)
            continue
        packed = np.frombuffer(value, np.uint8)
        if (packed < 0x80).all():
            values.extend(packed.tolist())
            continue
        position = 0
        while position < len(value):
            number, position = _varint(value, position)
            values.append(number)
    return np.asarray(values, np.uint64).astype(np.int64)


def _fields(message: memoryview) -> list[tuple[int, memoryview | int]]:
    """Field numbers and values of a message: a view for length-delimited fields, an integer for the others."""
    out: list[tuple[int, memoryview | int]] = []
    position, size = 0, len(message)
    while position < size:
        tag, position = _varint(message, position)
        kind = tag & 7
        value: memoryview | int
        if kind == BYTES:
            length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        elif kind == VARINT:
            value, position = _varint(message, position)
        elif kind in (FIXED32, FIXED64):
            width = 4 if kind == FIXED32 else 8
            value, position = int.from_bytes(message[position : position + width], "little"), position + width
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if position > size:
            raise ValueError(f"a field ends {position - size} bytes behind its message")
        out.append((tag >> 3, value))
    return out


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    number = message[position]
    position += 1
    if number < 0x80:
        return number, position
    number &= 0x7F
    for shift in range(7, 64, 7):
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, position
    raise ValueError(f"a number longer than 64 bits at byte {position}")
