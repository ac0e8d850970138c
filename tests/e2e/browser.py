"""A headless Chromium, driven over the WebDriver protocol.  Needs chromium and chromium-driver."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.process.harness import wait_for

AVAILABLE = shutil.which("chromedriver") is not None

FLAGS = (
    # The last ones keep it from asking for things on the network by itself.
    *("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)


class Browser:
    """One window.  Close it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "chromedriver.log"
        with self.log.open("w") as log:
            # A group of its own, so that what it starts can be ended with it.
            self.driver = subprocess.Popen(
                ["chromedriver", "--port=0"],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = re.compile(r"successfully on port (\d+)")
        found = wait_for(lambda: started.search(self.log.read_text()), 20)
        assert found is not None
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{found[1]}", timeout=40)
        arguments = [f"--{flag}" for flag in (*FLAGS, f"user-data-dir={folder / 'profile'}")]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = self._post("/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{session['sessionId']}"

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def tell(self, command: str, body: dict[str, Any]) -> Any:
        """What a command of the protocol returns."""
        return self._post(f"{self.session}/{command}", body)

    def open(self, url: str, *, width: int, dark: bool) -> None:
        """Load a page in a window of this width."""
        self.devtools(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=1200,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.tell("url", {"url": url})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """What a command of Chromium's own protocol returns."""
        return self.tell("goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script: str) -> Any:
        """What a script in the page returns."""
        return self.tell("execute/sync", {"script": script, "args": []})

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        taken = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def complaints(self) -> list[str]:
        """What the page has logged since the last call: errors, violations of its policy."""
        return [entry["message"] for entry in self.tell("se/log", {"type": "browser"})]

    def close(self) -> None:
        try:
            self.http.delete(self.session)
        finally:
            self.http.close()
            os.killpg(self.driver.pid, signal.SIGTERM)
            self.driver.wait(10)
