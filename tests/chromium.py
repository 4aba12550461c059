"""A headless Chromium that tests drive through the DevTools protocol, over a pipe: no library, no port."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOUND = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-pipe",
    "--no-first-run",
)
WAIT_S = 180.0


class Page:
    """One page. What it asks the network for is kept in `requests`, what its scripts complain of in `errors`."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to = to_browser
        self._from = from_browser
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._events: list[str] = []
        self.requests: list[str] = []
        self.errors: list[str] = []

        # the page that it opens with
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call(
            "Target.attachToTarget",
            targetId=target,
            flatten=True,
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command of the protocol; RuntimeError: the browser refuses it."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        """The next message of the browser; events are noted."""
        ends = time.monotonic() + WAIT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select(
                [self._from],
                [],
                [],
                max(0.0, ends - time.monotonic()),
            )
            if not ready:
                raise TimeoutError(f"Chromium has said nothing for {WAIT_S:g} s.")
            self._buffer += os.read(self._from, 1 << 20)
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, params: dict[str, Any]) -> None:
        self._events.append(event)
        if event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        if event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])

    def open(self, path: Path, width: int = 1200, height: int = 900) -> None:
        """Show a file in a window of so many pixels, and wait until it is loaded; widths below 600 are phones."""
        phone = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        self._events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._read()

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression, as JSON can hold it; RuntimeError: it throws."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key: ArrowLeft, ArrowDown, a …"""
        for kind in ("rawKeyDown", "keyUp"):
            code = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[key]
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def touch(self, *points: tuple[float, float]) -> None:
        """A finger that goes through some points of the window [pixels]."""
        for number, (x, y) in enumerate(points):
            kind = "touchMove" if number else "touchStart"
            self.call(
                "Input.dispatchTouchEvent",
                type=kind,
                touchPoints=[{"x": x, "y": y}],
            )
        self.call(
            "Input.dispatchTouchEvent",
            type="touchEnd",
            touchPoints=[],
        )


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page of a browser of its own, whose files lie in `profile`."""
    assert FOUND is not None
    read_here, write_there = os.pipe()
    read_there, write_here = os.pipe()
    pipes = f'exec "$0" "$@" 3<&{read_there} 4>&{write_there}'  # Chromium reads 3 and writes 4
    flags = (*FLAGS, f"--user-data-dir={profile}")
    process = subprocess.Popen(
        ["bash", "-c", pipes, FOUND, *flags],
        pass_fds=(read_there, write_there),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_there)
    os.close(write_there)
    page = Page(write_here, read_here)
    try:
        yield page
    finally:
        page._session = None
        with contextlib.suppress(OSError):
            page.call("Browser.close")
        process.wait(30)
        os.close(write_here)
        os.close(read_here)
