"""A policy that answers from another process or machine, over openpi's protocol."""

from __future__ import annotations

import contextlib
import ssl
import time
from pathlib import Path
from typing import Any

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.uri import parse_uri

from ptr_robot.serving.protocol import ProtocolError, check_token, pack, unpack

__all__ = ["RemotePolicy"]


class RemotePolicy:
    """Asks a server for actions; reconnects by itself after a lost connection.

    Args:
        url: ``ws://HOST:PORT`` or ``wss://HOST:PORT``.
        token: sent as ``Authorization: Api-Key TOKEN``.
        ca_file: certificates (PEM) that the server's must be signed by, or its own; None takes the system's.
        connect_timeout_s: for the handshake and the server's first message, s.
        timeout_s: for one answer, s; an answer that comes later is never used.

    Raises:
        RuntimeError: the server is not there or does not speak the protocol; the message names the URL.
        ValueError: not a URL of a websocket, a token that cannot be sent, or no certificates in the file.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        ca_file: Path | None = None,
        connect_timeout_s: float = 5.0,
        timeout_s: float = 1.0,
        max_bytes: int = 8 << 20,
    ) -> None:
        self.url, self._token, self._max_bytes = url, token, max_bytes
        _check_url(url)
        check_token(token)
        self._tls = _tls(url, ca_file)
        self._connect_timeout_s, self._timeout_s = connect_timeout_s, timeout_s
        self._socket: ClientConnection | None = None
        self._open = contextlib.ExitStack()
        self._retry_at = 0.0
        self.metadata = self._connect()

    def infer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to one request.

        Raises:
            RuntimeError: the server failed, is gone, or did not answer in time; the next call connects again.
        """
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        try:
            self._socket.send(pack(request))
            answer = self._socket.recv(timeout=self._timeout_s)
        except (OSError, WebSocketException, TimeoutError) as error:
            self.close()
            why = f"no answer within {self._timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)
            raise RuntimeError(f"{self.url}: {why}") from error
        if isinstance(answer, str):
            self.close()
            raise RuntimeError(f"{self.url}: {answer}")
        try:
            message = unpack(answer)
        except ProtocolError as error:
            self.close()
            raise RuntimeError(f"{self.url}: {error}") from error
        if not isinstance(message, dict):
            raise RuntimeError(f"{self.url}: expected a map, got {type(message).__name__}")
        return message

    def act(self, image: np.ndarray, state: np.ndarray, task: str, seed: int | None = None) -> np.ndarray:
        """The first action of the server's answer, float32 ``[A]`` in the robot's units.

        Args:
            image, state, task, seed: as :meth:`ptr_fast.runtime.policy.Policy.act` takes them; without a seed the
                server takes another one for each request.

        Raises:
            RuntimeError: as :meth:`infer`, or an answer without actions.
        """
        request = {"observation/image": image, "observation/state": state, "prompt": task}
        answer = self.infer(request if seed is None else {**request, "seed": seed})
        try:
            actions = np.asarray(answer.get("actions", ()), np.float32)
        except (TypeError, ValueError) as error:
            raise RuntimeError(f"{self.url}: expected actions [T, A], got no array of numbers") from error
        if actions.ndim != 2 or len(actions) == 0:
            raise RuntimeError(f"{self.url}: expected actions [T, A], got shape {list(actions.shape)}")
        return actions[0]

    def close(self) -> None:
        """Ends the connection."""
        self._open.close()
        self._socket = None

    def _connect(self) -> dict[str, Any]:
        # At most one try per second: a control loop asks every few milliseconds.
        if time.monotonic() < self._retry_at:
            raise RuntimeError(f"{self.url}: not connected")
        self._retry_at = time.monotonic() + 1.0
        headers = {"Authorization": f"Api-Key {self._token}"} if self._token else None
        try:
            self._socket = self._open.enter_context(
                connect(
                    self.url,
                    ssl=self._tls,
                    compression=None,
                    max_size=self._max_bytes,
                    additional_headers=headers,
                    open_timeout=self._connect_timeout_s,
                    close_timeout=0.1,
                )
            )
            metadata = unpack(self._socket.recv(timeout=self._connect_timeout_s))
        except (OSError, WebSocketException, TimeoutError, ProtocolError) as error:
            self.close()
            raise RuntimeError(
                f"{self.url}: no policy server answers there ({error or type(error).__name__})"
            ) from error
        if not isinstance(metadata, dict):
            self.close()
            raise RuntimeError(f"{self.url}: expected metadata, got {type(metadata).__name__}")
        self.metadata = metadata
        self._retry_at = 0.0
        return metadata


def _check_url(url: str) -> None:
    try:
        parse_uri(url).host.encode("idna")
    except (WebSocketException, ValueError) as error:  # ValueError: a port or an address that is none
        raise ValueError(f"{url}: expected ws://HOST:PORT or wss://HOST:PORT ({error})") from error


def _tls(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    if url.startswith("ws://"):
        if ca_file is not None:
            raise ValueError(f"{url}: certificates belong to wss://, this is not encrypted")
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{ca_file}: no certificates in PEM ({error})") from error
