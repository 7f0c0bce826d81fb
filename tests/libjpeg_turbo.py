"""Planes as libjpeg-turbo decodes them, before it upsamples colours: the library of Pillow, by its C interface.

Offsets are those of ``jpeg_decompress_struct`` in the ABI of libjpeg 6b on 64-bit systems, which Pillow's wheels have.
Only for files that libjpeg-turbo takes: its own reaction to an error is to end the process.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import PIL
import pytest

_VERSION, _STRUCT_BYTES, _ERROR_BYTES, _COMPONENT_BYTES = 62, 632, 168, 96
_IMAGE_WIDTH, _NUM_COMPONENTS, _RAW_DATA_OUT, _COMPONENTS, _MAX_VERTICAL = 48, 56, 92, 304, 412
_WARNINGS = 128  # of jpeg_error_mgr
_BLOCK_COLUMNS, _BLOCK_ROWS, _WIDTH, _HEIGHT = 28, 32, 40, 44  # of jpeg_component_info


def library() -> ctypes.CDLL:
    """The shared library; the test is skipped where Pillow was built with another one."""
    found = sorted(Path(PIL.__file__).parents[1].glob("pillow.libs/libjpeg-*.so.62*"))
    if not found:
        pytest.skip("this Pillow brings no libjpeg-turbo of its own")
    return ctypes.CDLL(str(found[0]))


def decode_planes(data: bytes) -> list[np.ndarray]:
    """One uint8 ``[h, w]`` per component: the default integer transform, colours as they are stored."""
    jpeg = library()
    info, error = ctypes.create_string_buffer(_STRUCT_BYTES), ctypes.create_string_buffer(_ERROR_BYTES)

    def integer(at: int, kind: type = ctypes.c_int, base: int | None = None):
        return kind.from_address((ctypes.addressof(info) if base is None else base) + at)

    jpeg.jpeg_std_error.restype = ctypes.c_void_p
    integer(0, ctypes.c_void_p).value = jpeg.jpeg_std_error(error)
    jpeg.jpeg_CreateDecompress(info, _VERSION, ctypes.c_size_t(_STRUCT_BYTES))
    jpeg.jpeg_mem_src(info, data, ctypes.c_ulong(len(data)))
    assert jpeg.jpeg_read_header(info, 1) == 1
    integer(_RAW_DATA_OUT).value = 1
    assert jpeg.jpeg_start_decompress(info) == 1
    first = integer(_COMPONENTS, ctypes.c_void_p).value
    assert first is not None
    height, vertical = integer(_IMAGE_WIDTH + 4).value, integer(_MAX_VERTICAL).value
    planes, rows_of = [], []
    for number in range(integer(_NUM_COMPONENTS).value):
        base = first + number * _COMPONENT_BYTES
        mine = integer(12, base=base).value  # vertical sampling factor
        blocks = -(-height // (8 * vertical)) * mine, integer(_BLOCK_COLUMNS, base=base).value + 2
        plane = np.zeros((8 * blocks[0], 8 * blocks[1]), np.uint8)
        planes.append((plane, integer(_HEIGHT, base=base).value, integer(_WIDTH, base=base).value))
        rows_of.append((plane, 8 * mine))
    for group in range(-(-height // (8 * vertical))):
        images = []
        for plane, num_rows in rows_of:
            pointers = (ctypes.c_void_p * num_rows)()
            for row in range(num_rows):
                pointers[row] = plane.ctypes.data + (group * num_rows + row) * plane.strides[0]
            images.append(pointers)
        image = (ctypes.c_void_p * len(images))(*(ctypes.addressof(pointers) for pointers in images))
        assert jpeg.jpeg_read_raw_data(info, image, 8 * vertical) == 8 * vertical
    jpeg.jpeg_finish_decompress(info)
    assert integer(_WARNINGS, ctypes.c_long, ctypes.addressof(error)).value == 0
    jpeg.jpeg_destroy_decompress(info)
    return [plane[:rows, :columns].copy() for plane, rows, columns in planes]
