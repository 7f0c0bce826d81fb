"""Requests to an edgeml ActionServer, which serves a robot over ZeroMQ: one pickled dictionary each way, LZ4 around it.

What the server sends is read without running it (``datasets/restricted_pickle``), up to a size. What is sent to it is
pickled so that servers on old versions of Python and numpy can read it.

Source: ``youliangtan/agentlace`` (once ``edgeml``), ``action.py`` and ``zmq_wrapper/req_rep.py``.
"""

from __future__ import annotations

import io
import pickle
import threading
import time
from typing import Any

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.restricted_pickle import loads

__all__ = ["MAX_MESSAGE_BYTES", "ActionChannel", "decode", "encode"]

MAX_MESSAGE_BYTES = 64 << 20  # before and after decompression; an observation of two cameras has about 12 MB
OLD_PICKLE = 4  # servers run Python 3.8
POLL_MS = 50


class _OldPickler(pickle.Pickler):
    """numpy 2 pickles an array by a name that numpy 1 lacks; ``numpy.array`` is there in both."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return np.array, (value.tolist(), value.dtype.str)
        return NotImplemented


def encode(message: dict[str, Any]) -> bytes:
    """A message as it is sent."""
    import lz4.frame

    out = io.BytesIO()
    _OldPickler(out, protocol=OLD_PICKLE).dump(message)
    return lz4.frame.compress(out.getvalue())


def decode(data: bytes, where: str) -> Any:
    """What a server sent: numbers, text, lists, dicts, arrays.

    Raises:
        DataError: it is too large, damaged, or names anything else; nothing of it was run.
    """
    import lz4.frame

    if len(data) > MAX_MESSAGE_BYTES:
        raise DataError(f"{where}: a message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are read")
    reader = lz4.frame.LZ4FrameDecompressor()
    try:
        plain = reader.decompress(data, max_length=MAX_MESSAGE_BYTES)
    except (RuntimeError, EOFError) as error:
        raise DataError(f"{where}: not LZ4 data ({error})") from error
    if not reader.eof:
        raise DataError(f"{where}: an LZ4 message that has no end within {MAX_MESSAGE_BYTES} bytes")
    return loads(plain, where)


class ActionChannel:
    """One request at a time to one server; a request that got no answer is forgotten, and its late answer too.

    Args:
        host, port: of the server.
        where: what to call it in errors.

    Raises:
        RuntimeError: pyzmq or lz4 is not installed.
    """

    def __init__(self, host: str, port: int, where: str) -> None:
        try:
            import lz4.frame  # noqa: F401
            import zmq
        except ImportError as error:
            raise RuntimeError(f"{where}: needs pyzmq and lz4 ({error}); pip install 'ptr-fast[robot]'") from error
        self._zmq, self._where = zmq, where
        self._address = f"tcp://{host}:{port}"
        self._context = zmq.Context()
        self._socket: Any = None
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def request(self, message: dict[str, Any], timeout_s: float) -> Any:
        """Sends a message; returns the answer.

        Raises:
            RuntimeError: no answer within ``timeout_s``, or one that is no plain data, or the channel is closed.
        """
        data = encode(message)
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError(f"{self._where}: not connected")
            answered = False
            try:
                answer = self._exchange(data, timeout_s)
                answered = True
            except self._zmq.ZMQError as error:
                raise RuntimeError(f"{self._where}: {error}") from error
            finally:
                if not answered:
                    self._drop_socket()
        try:
            return decode(answer, self._where)
        except DataError as error:
            raise RuntimeError(str(error)) from error

    def close(self) -> None:
        """Ends a request that is under way, and the connection. Safe to call twice."""
        self._closed.set()
        with self._lock:
            self._drop_socket()
            self._context.term()

    def _exchange(self, data: bytes, timeout_s: float) -> bytes:
        zmq, deadline = self._zmq, time.monotonic() + timeout_s
        if self._socket is None:
            self._socket = self._context.socket(zmq.REQ)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
            self._socket.connect(self._address)
        self._socket.send(data)
        while not self._socket.poll(min(POLL_MS, max(1, int((deadline - time.monotonic()) * 1e3)))):
            if self._closed.is_set():
                raise RuntimeError(f"{self._where}: disconnected while it waited for an answer")
            if time.monotonic() >= deadline:
                raise RuntimeError(f"{self._where}: no answer within {timeout_s:g} s")
        return self._socket.recv(zmq.NOBLOCK)

    def _drop_socket(self) -> None:
        # A REQ socket that waits for an answer can send nothing else; a new one never sees the old one's late answer.
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None
