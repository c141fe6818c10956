"""Pictures of every page of the console, taken by a real Chromium: docs/images/console-*.png.

    python -m benchmarks.console_pictures --config pipeline.toml --out docs/images [--advertiser ID] [--date DAY]

Starts the console of $M2M_HOME on a free port, opens each page as a person's browser does, waits until Streamlit has
run and drawn, and takes the page at its full height. Says what the browser complained of, and which addresses other
than the console's own it asked for: there must be none.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from PIL import Image
from websockets.sync.client import ClientConnection, connect

PAGES = ("front", "advertiser", "movers", "leaving", "totals", "accuracy", "operations")
WIDTH, SHORTEST, TALLEST = 1400, 900, 2600
LARGEST = 190_000  # bytes of a picture with all its colors
START_LIMIT_S, PAGE_LIMIT_S = 60.0, 60.0
# Streamlit has run, nothing is stale, and how tall what it drew is.
STATE = """(() => {
  const app = document.querySelector('[data-testid="stApp"]');
  const main = document.querySelector('[data-testid="stMainBlockContainer"]');
  if (!app || !main) return null;
  const waits = app.getAttribute('data-test-script-state') !== 'notRunning'
    || document.querySelector('[data-stale="true"], [data-testid="stSkeleton"], [data-testid="stSpinner"]');
  return JSON.stringify({ready: !waits, height: Math.ceil(main.getBoundingClientRect().height),
                         errors: document.querySelectorAll('[data-testid="stException"], .error-message').length});
})()"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def console(config: Path) -> Iterator[str]:
    """The console on a free port; its address."""
    port = free_port()
    command = [sys.executable, "-m", "pipelines", "console", "--config", str(config), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        address, limit = f"http://127.0.0.1:{port}", time.monotonic() + START_LIMIT_S
        while not _answers(f"{address}/_stcore/health"):
            if server.poll() is not None or time.monotonic() > limit:
                sys.exit("the console did not start")
            time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Browser:
    """A headless Chromium, told what to do over its own protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.number = socket, 0
        self.asked: list[str] = []
        self.complaints: list[str] = []

    def say(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            heard = json.loads(self.socket.recv(timeout=PAGE_LIMIT_S))
            if heard.get("id") == self.number:
                if "error" in heard:
                    sys.exit(f"{method}: {heard['error']}")
                return dict(heard["result"])
            what = heard.get("params", {})
            if heard.get("method") == "Network.requestWillBeSent":
                self.asked.append(what["request"]["url"])
            if heard.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(str(what["exceptionDetails"].get("text")))

    def value(self, script: str) -> Any:
        return self.say("Runtime.evaluate", expression=script)["result"].get("value")

    def size(self, height: int) -> None:
        self.say("Emulation.setDeviceMetricsOverride", width=WIDTH, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str) -> int:
        """A page, drawn; its height.

        Raises:
            SystemExit: it never stood still.
        """
        self.size(SHORTEST)
        self.say("Page.navigate", url=address)
        limit, still, before = time.monotonic() + PAGE_LIMIT_S, 0, -1
        while still < 4:
            time.sleep(0.4)
            state = json.loads(self.value(STATE) or '{"ready": false, "height": 0, "errors": 0}')
            still = still + 1 if state["ready"] and state["height"] == before else 0
            before = state["height"]
            if state["errors"]:
                self.complaints.append(f"{address}: an error is on the page")
            if time.monotonic() > limit:
                sys.exit(f"{address} was not drawn within {PAGE_LIMIT_S} s")
        return int(before)

    def picture(self, height: int) -> Image.Image:
        self.size(height)
        time.sleep(1.2)  # tables draw themselves once more where there is more room
        taken = self.say("Page.captureScreenshot", format="png")["data"]
        return Image.open(BytesIO(base64.b64decode(taken)))


@contextmanager
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        sys.exit("no chromium here")
    with tempfile.TemporaryDirectory(prefix="m2m-chromium-") as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
        options += ["--disable-background-networking", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            told, limit = Path(profile) / "DevToolsActivePort", time.monotonic() + START_LIMIT_S
            while not told.exists() or not told.read_text():
                if time.monotonic() > limit:
                    sys.exit("Chromium did not start")
                time.sleep(0.2)
            port = told.read_text().splitlines()[0]
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{port}/json/list") as answer:
                page = next(target for target in json.load(answer) if target["type"] == "page")
            with connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
                found = Browser(socket)
                for domain in ("Page", "Runtime", "Network"):
                    found.say(f"{domain}.enable")
                yield found
        finally:
            process.terminate()
            process.wait(timeout=20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=os.environ.get("M2M_CONFIG"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--advertiser", default="")
    parser.add_argument("--date", default="")
    parser.add_argument("--pages", nargs="*", default=PAGES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with console(arguments.config) as address, browser() as chromium:
        for page in arguments.pages:
            where = {"page": page, "date": arguments.date}
            if page == "advertiser":
                where["advertiser"] = arguments.advertiser
            height = chromium.open(f"{address}/?{urlencode({k: v for k, v in where.items() if v})}")
            picture = chromium.picture(min(max(height + 40, SHORTEST), TALLEST)).convert("RGB")
            file = arguments.out / f"console-{page}.png"
            picture.save(file, optimize=True)
            if file.stat().st_size > LARGEST:
                picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
            print(f"{file}: {picture.width} x {picture.height}, {file.stat().st_size / 1000:.0f} kB", flush=True)
        own = (address, address.replace("http", "ws"), "data:", "blob:", "about:")
        strangers = sorted({url for url in chromium.asked if not url.startswith(own)})
        print("asked for elsewhere:", ", ".join(strangers) or "nothing")
        print("complaints:", "; ".join(chromium.complaints) or "none")
    return 1 if strangers or chromium.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
