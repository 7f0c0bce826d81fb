"""The server of a run's page: this machine alone, read only, nothing kept between requests but the page itself."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

from ptr_fast.errors import DataError
from ptr_robot.report.page import page_html
from ptr_robot.training.store_places import StorePlaces
from ptr_robot.watching.page import run_html

__all__ = ["PageServer"]

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""What a browser here calls this machine. A page from elsewhere that made its name point here is not answered."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"
SILENCE_S = 20.0


class PageServer(ThreadingHTTPServer):
    """Answers ``/`` (the page), ``/main`` (its inside, with an ETag) and ``/watch.js``; a context manager.

    Args:
        run: run folder. places: where stores that its evaluations name have moved to.
        port: TCP port; 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, run: Path, port: int, places: StorePlaces = StorePlaces()) -> None:
        super().__init__((HOST, port), _Handler)
        self.run_name = run.resolve().name
        self._run, self._places = run, places
        self._lock = threading.Lock()
        self._seen: tuple[object, ...] = ()
        self._html = ""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    def html(self) -> str:
        """The inside of the page; made anew only where a file of the run has changed.

        Raises:
            DataError: a file of the run is broken.
        """
        with self._lock:
            stamp = _stamp(self._run)
            if stamp != self._seen or not self._html:
                self._html, self._seen = run_html(self._run, self._places), stamp
            return self._html

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that went away before it had its answer is no error of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _stamp(run: Path) -> tuple[object, ...]:
    """Changes where a file that the page shows does, and every ten seconds while nothing is logged: time passes too."""
    paths = [run / "metrics.jsonl", run / "selection.json", run / "checkpoints", run / "evaluation"]
    marks = [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]
    return (*marks, int(time.time()) // 10)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = SILENCE_S
    server_version, sys_version = "ptr-fast", ""

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if host not in NAMES:
            self._answer("only this machine is answered", HTTPStatus.FORBIDDEN)
        elif self.path == "/":
            title = f"{self.server.run_name}: ptr-fast watch"
            self._answer(page_html(title, "<p>reading the run …</p>", POLICY, "/watch.js"), kind="text/html")
        elif self.path == "/main":
            try:
                page = self.server.html()
            except DataError as error:
                self._answer(str(error), HTTPStatus.INTERNAL_SERVER_ERROR)
            except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
                told = f"a file of {self.server.run_name} is gone, or not what ptr-fast writes ({error!r})"
                self._answer(told, HTTPStatus.INTERNAL_SERVER_ERROR)
            else:
                self._answer(page, kind="text/html", tagged=True)
        elif self.path == "/watch.js":
            script = files("ptr_robot.watching").joinpath("watch.js").read_text(encoding="utf-8")
            self._answer(script, kind="text/javascript")
        else:
            self._answer("there are /, /main and /watch.js", HTTPStatus.NOT_FOUND)

    def _answer(
        self, text: str, status: HTTPStatus = HTTPStatus.OK, kind: str = "text/plain", tagged: bool = False
    ) -> None:
        body = text.encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if tagged and self.headers.get("If-None-Match") == tag:
            status, body = HTTPStatus.NOT_MODIFIED, b""
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if tagged:
            self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
