"""Serves ``infer`` over a websocket, as the published openpi client asks.

One thread runs the policy, one request at a time, in the order in which whole requests arrived. Everything else waits
in coroutines: a client that sends half a message, or does not read its answer, waits alone and is dropped in the end.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from ptr_robot.serving.protocol import ProtocolError, pack, unpack

__all__ = ["Limits", "PolicyServer"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may take.

    Attributes:
        message_bytes: largest message.
        connections: clients at once; a further one gets 503.
        idle_s: a client that sends no whole request for this long is dropped, s.
        send_s: a client that does not take its answer for this long is dropped, s.
        infer_s: a request that the policy has not answered after this long fails, s.
    """

    message_bytes: int = 8 << 20
    connections: int = 8
    idle_s: float = 600.0
    send_s: float = 10.0
    infer_s: float = 10.0


class PolicyServer:
    """Answers requests with a policy.

    Args:
        infer: ``request map -> answer map``; ValueError is the client's mistake, and its text is sent.
        metadata: the first message to every client.
        limits: see :class:`Limits`.
        token: clients must send ``Authorization: Api-Key TOKEN``; empty lets everybody in.
        log: takes one line per connection and failure.
    """

    def __init__(
        self,
        infer: Callable[[Mapping[str, Any]], dict[str, Any]],
        metadata: Mapping[str, Any],
        limits: Limits | None = None,
        token: str = "",
        log: Callable[[str], None] = print,
    ) -> None:
        self._infer, self._metadata, self._token, self._log = infer, pack(dict(metadata)), token, log
        self._limits = limits or Limits()
        self._worker = ThreadPoolExecutor(1, "ptr-fast-infer")
        self._num_connections = 0
        self.num_requests = 0

    async def start(self, host: str = "127.0.0.1", port: int = 8000, tls: ssl.SSLContext | None = None) -> Server:
        """Listens; the server closes with ``close()`` or at the end of ``async with``."""
        return await serve(
            self._handle,
            host,
            port,
            ssl=tls,
            compression=None,
            max_size=self._limits.message_bytes,
            max_queue=2,
            open_timeout=10,
            close_timeout=2,
            process_request=self._admit,
        )

    def close(self) -> None:
        """Lets go of the policy's thread."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._token:
            sent = request.headers.get_all("Authorization")
            wanted = f"Api-Key {self._token}".encode()
            if len(sent) != 1 or not hmac.compare_digest(sent[0].encode("utf-8", "surrogateescape"), wanted):
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "expected Authorization: Api-Key TOKEN\n")
        if self._num_connections >= self._limits.connections:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients\n")
        return None

    async def _handle(self, socket: ServerConnection) -> None:
        if self._num_connections >= self._limits.connections:  # admitted at the same moment as another one
            await socket.close(CloseCode.TRY_AGAIN_LATER, "too many clients")
            return
        self._num_connections += 1
        try:
            await self._serve(socket)
        except ConnectionClosed:
            pass
        except TimeoutError:
            self._log(f"{socket.remote_address}: dropped, it was silent or did not take its answer")
            await socket.close(CloseCode.POLICY_VIOLATION, "too slow")
        finally:
            self._num_connections -= 1

    async def _serve(self, socket: ServerConnection) -> None:
        await self._send(socket, self._metadata)
        last_total_s: float | None = None
        while True:
            async with asyncio.timeout(self._limits.idle_s):
                data = await socket.recv()
            begin = time.monotonic()
            try:
                request = unpack(data)
                if not isinstance(request, dict):
                    raise ProtocolError(f"expected a map, got {type(request).__name__}")
                answer = await self._ask(request)
            except ValueError as error:
                await self._fail(socket, CloseCode.INVALID_DATA, str(error))
                return
            except TimeoutError:
                await self._fail(socket, CloseCode.TRY_AGAIN_LATER, f"no answer within {self._limits.infer_s:g} s")
                return
            except Exception as error:  # noqa: BLE001  (a policy's bug must not end the server)
                self._log(f"{socket.remote_address}: the policy failed: {type(error).__name__}: {error}")
                await self._fail(socket, CloseCode.INTERNAL_ERROR, f"the policy failed: {type(error).__name__}")
                return
            answer["server_timing"] = {"infer_ms": (time.monotonic() - begin) * 1e3}
            if last_total_s is not None:
                answer["server_timing"]["prev_total_ms"] = last_total_s * 1e3
            await self._send(socket, pack(answer))
            last_total_s = time.monotonic() - begin

    async def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.num_requests += 1
        call = asyncio.get_running_loop().run_in_executor(self._worker, self._infer, request)
        return dict(await asyncio.wait_for(call, self._limits.infer_s))

    async def _send(self, socket: ServerConnection, message: bytes | str) -> None:
        async with asyncio.timeout(self._limits.send_s):
            await socket.send(message)

    async def _fail(self, socket: ServerConnection, code: CloseCode, text: str) -> None:
        """A text message is an error, as the published client expects; the connection ends."""
        await self._send(socket, text[:500])
        await socket.close(code, "the error is in the message before")
