"""A headless Chromium, driven by its DevTools protocol over a websocket: pages are opened as a reader opens them."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_S = 60.0


def find_browser() -> str | None:
    """The program; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One browser with one empty profile; a context manager."""

    def __enter__(self) -> Browser:
        self._profile = tempfile.TemporaryDirectory(prefix="ptr-fast-browser-", ignore_cleanup_errors=True)
        told = Path(self._profile.name) / "DevToolsActivePort"
        program = find_browser()
        assert program is not None
        quiet = ["--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-background-networking"]
        self._process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", *quiet, "--remote-debugging-port=0", "--hide-scrollbars",
             f"--user-data-dir={self._profile.name}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + WAIT_S
        while not (told.is_file() and len(told.read_text().split()) == 2):
            assert time.monotonic() < deadline, "the browser did not start"
            assert self._process.poll() is None, "the browser ended"
            time.sleep(0.05)
        port, path = told.read_text().split()
        self._open = contextlib.ExitStack()
        self._socket = self._open.enter_context(connect(f"ws://127.0.0.1:{port}{path}", max_size=None))
        self._number, self._session = 0, ""
        self._troubles: list[str] = []
        self._seen: set[str] = set()
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def open(self, url: str, width: int, *, dark: bool = False) -> list[str]:
        """Opens a page in a window of ``width`` pixels; what its console, its scripts and the network complained of."""
        self._load("about:blank")  # what the page before had not finished is aborted here, and not this page's trouble
        self._troubles = []
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self._load(url)
        self.value("1")  # what was told until here has been read
        return self._troubles

    def _load(self, url: str) -> None:
        self._seen = set()
        failed = self._ask("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"
        deadline = time.monotonic() + WAIT_S
        while "Page.loadEventFired" not in self._seen:
            assert time.monotonic() < deadline, f"{url} did not load"
            self._note(json.loads(self._socket.recv(timeout=WAIT_S)))

    def value(self, script: str) -> Any:
        """What an expression (or a promise) gives in the page."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Until an expression of the page is true."""
        deadline = time.monotonic() + WAIT_S
        while not self.value(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.1)

    def screenshot(self, path: Path) -> None:
        """The whole page, PNG."""
        picture = self._ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(request | ({"sessionId": self._session} if self._session else {})))
        while True:
            message = json.loads(self._socket.recv(timeout=WAIT_S))
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, told = message.get("method", ""), message.get("params", {})
        self._seen.add(method)
        if method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self._troubles.append(f"console: {[each.get('value') for each in told['args']]}")
        elif method == "Runtime.exceptionThrown":
            self._troubles.append(f"script: {told['exceptionDetails']['text']}")
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self._troubles.append(f"log: {told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.loadingFailed":
            self._troubles.append(f"network: {told.get('errorText')}")
