"""A policy that answers from another process or machine, over openpi's protocol.

The socket belongs to one thread of its own, which answers pings between two requests. It is an event loop, and not
websockets' client for threads, because that one reads and writes a TLS connection from two threads at once, which
OpenSSL does not allow: a handshake among thousands then never ended.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.uri import parse_uri

from ptr_robot.serving.protocol import MAX_MESSAGE_BYTES, ProtocolError, check_token, pack, unpack

__all__ = ["RemotePolicy"]

Result = TypeVar("Result")


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
        max_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self.url, self._token, self._max_bytes = url, token, max_bytes
        _check_url(url)
        check_token(token)
        self._tls = _tls(url, ca_file)
        self._connect_timeout_s, self._timeout_s = connect_timeout_s, timeout_s
        self._socket: ClientConnection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retry_at = 0.0
        self.metadata = self._connect()

    def infer(self, request: dict[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        """The server's answer to one request.

        Args:
            timeout_s: for this answer, s; None takes the policy's own.

        Raises:
            RuntimeError: the server failed, is gone, or did not answer in time; the next call connects again. Or a
                server of ours came back with another policy, which is not asked.
        """
        if self._socket is None:
            self._reconnect()
        try:
            wait_s = self._timeout_s if timeout_s is None else timeout_s
            answer = self._wait(self._ask(pack(request), wait_s))
        except (OSError, WebSocketException, TimeoutError) as error:
            self.close()
            why = f"no answer within {wait_s:.3g} s" if isinstance(error, TimeoutError) else str(error)
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

    def act(
        self,
        images: Mapping[str, np.ndarray],
        state: np.ndarray,
        task: str,
        seed: int | None = None,
        timeout_s: float | None = None,
    ) -> np.ndarray:
        """The server's chunk of actions, float32 ``[H, A]`` in the robot's units.

        Args:
            images: key of the request, e.g. ``observation/wrist_image`` -> uint8 ``[H, W, 3]`` RGB, or the last T of
                them ``[T, H, W, 3]``, the oldest first, where the server looks at the past.
            state: float32 ``[S]``, or ``[T, S]``.
            task: what the server is told as ``prompt``.
            seed: of the policy's noise, where it draws any; without one the server takes another for each request.
            timeout_s: as in :meth:`infer`.

        Raises:
            RuntimeError: as :meth:`infer`, or an answer without actions.
        """
        request = {**images, "observation/state": state, "prompt": task}
        answer = self.infer(request if seed is None else {**request, "seed": seed}, timeout_s)
        try:
            with np.errstate(over="ignore"):  # a number too large is told as one that is not finite
                actions = np.asarray(answer.get("actions", ()), np.float32)
        except (TypeError, ValueError) as error:
            raise RuntimeError(f"{self.url}: expected actions [H, A], got no array of numbers") from error
        if actions.ndim != 2 or len(actions) == 0:
            raise RuntimeError(f"{self.url}: expected actions [H, A], got shape {list(actions.shape)}")
        return actions

    def decide(self, image: np.ndarray, state: np.ndarray, task: str, seed: int | None = None) -> np.ndarray:
        """The first action float32 ``[A]`` of a server that looks through one camera; see :meth:`act`."""
        return self.act({"observation/image": image}, state, task, seed)[0]

    def close(self) -> None:
        """Ends the connection."""
        socket, self._socket = self._socket, None
        if self._loop is None:
            return
        if socket is not None:
            self._wait(socket.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` comes to in the socket's thread, which begins here where there is none."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="ptr-fast-remote", daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _ask(self, request: bytes, timeout_s: float) -> str | bytes:
        assert self._socket is not None
        async with asyncio.timeout(timeout_s):
            await self._socket.send(request)
            return await self._socket.recv()

    def _connect(self) -> dict[str, Any]:
        # At most one try per second: a control loop asks every few milliseconds.
        if time.monotonic() < self._retry_at:
            raise RuntimeError(f"{self.url}: not connected")
        self._retry_at = time.monotonic() + 1.0
        try:
            first = self._wait(self._open())
            metadata = unpack(first)
        except (OSError, WebSocketException, TimeoutError, ProtocolError) as error:
            self.close()
            raise RuntimeError(
                f"{self.url}: no policy server answers there ({error or type(error).__name__})"
            ) from error
        if not isinstance(metadata, dict):
            self.close()
            raise RuntimeError(f"{self.url}: expected metadata, got {type(metadata).__name__}")
        self._retry_at = 0.0
        return metadata

    def _reconnect(self) -> None:
        """Connects again, to the policy of before: another one may have other units, and its trials are not the same.

        Servers of other makes do not say which policy they have.
        """
        known, now = self.metadata, self._connect()
        if "ptr-fast" not in (known.get("policy"), now.get("policy")) or pack(now) == pack(known):
            return
        self.close()
        names = ", ".join(str(key) for key in {**known, **now} if pack(known.get(key)) != pack(now.get(key)))
        raise RuntimeError(f"{self.url}: another policy answers there now (other {names}); start anew for it")

    async def _open(self) -> str | bytes:
        """Connects; the server's first message."""
        async with asyncio.timeout(self._connect_timeout_s):
            self._socket = await connect(
                self.url,
                ssl=self._tls,
                compression=None,
                max_size=self._max_bytes,
                additional_headers={"Authorization": f"Api-Key {self._token}"} if self._token else None,
                open_timeout=self._connect_timeout_s,
                close_timeout=0.1,
            )
            return await self._socket.recv()


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
