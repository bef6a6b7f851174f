"""One browser, and one server below a prefix that wants a token, for all pages."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from selenium import webdriver

from tests.service.conftest import serving

PATIENCE = 60  # seconds that a busy machine may take to show one answer
TOKEN = "correct-horse"
PREFIX = "/loss"
PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=800,600", "--hide-scrollbars"),
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, driven by its own driver: nothing is downloaded."""
    found = {name: shutil.which(name) for name in PACKAGES}
    missing = [PACKAGES[name] for name, path in found.items() if path is None]
    if missing:
        pytest.skip(f"needs Debian's packages {' and '.join(missing)}")
    options = webdriver.ChromeOptions()
    options.binary_location = str(found["chromium"])
    profile: Path = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=found["chromedriver"])
    driver = webdriver.Chrome(options, service)
    driver.set_script_timeout(PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def below_a_prefix(url: httpx.URL) -> Iterator[str]:
    """The URL of a proxy that serves ``url`` below ``PREFIX``, as nginx's ``proxy_pass`` does."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = HTTPConnection(url.host, url.port, timeout=PATIENCE)
            path = self.path.removeprefix(PREFIX)
            connection.request(self.command, path, body or None, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self.send_response(answer.status)
            for name in ("Content-Type", "Content-Security-Policy", "WWW-Authenticate"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{PREFIX}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def guarded() -> Iterator[str]:
    """The address, below a prefix, of a server that wants ``TOKEN``."""
    with serving(LOSSD_AUTH_TOKENS=TOKEN) as url, below_a_prefix(url) as base:
        yield base
