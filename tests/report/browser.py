"""A headless Chromium that tests talk to through a pipe (Chrome's DevTools protocol), without any package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
START = "import os, sys; r, w = (os.dup(int(x)) for x in sys.argv[1:3]); os.dup2(r, 53); os.dup2(w, 54)\n"
START += "os.dup2(53, 3); os.dup2(54, 4); os.execv(sys.argv[3], sys.argv[3:])"
SECONDS = 60


class Page:
    """An open page.

    Attributes:
        complaints: exceptions of scripts, and what the browser logged: blocked or failed requests.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest, self._number, self._session = read, write, b"", 0, ""
        self.complaints: list[str] = []

    def open(self, path: Path, width: int, height: int, dark: bool = False) -> None:
        """Show a file on a screen of that size in pixels."""
        if not self._session:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + SECONDS
        while self.value("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def mouse(self, x: float, y: float, click: bool = False) -> None:
        """Move the mouse to a place of the window, and click there."""
        for kind in ["mouseMoved", *(["mousePressed", "mouseReleased"] if click else [])]:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left" if click else "none", clickCount=1)

    def picture(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        made = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(made["data"]))

    def call(self, method: str, **params: Any) -> Any:
        """One command of the protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(answer["params"]))
            asked = answer.get("params", {}).get("request", {}).get("url", "")
            if answer.get("method") == "Network.requestWillBeSent" and not asked.startswith(("file:", "data:")):
                self.complaints.append(f"asks for {asked}")

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], SECONDS)[0], "the browser does not answer"
            more = os.read(self._read, 1 << 20)
            assert more, "the browser ended"
            self._rest += more
        first, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(first))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with its profile in a folder, for as long as the block lasts."""
    assert CHROMIUM
    to_child, from_us = os.pipe()
    to_us, from_child = os.pipe()
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(to_child), str(from_child), *command],
        pass_fds=(to_child, from_child),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_child)
    os.close(from_child)
    try:
        yield Page(to_us, from_us)
    finally:
        os.close(from_us)
        os.close(to_us)
        process.terminate()
        process.wait(timeout=SECONDS)
