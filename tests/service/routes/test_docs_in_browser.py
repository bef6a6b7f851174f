"""The documentation in a real browser: every example of it is tried out, and answered with 200."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2 as httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from service.routes.examples import EXAMPLES
from service.routes.v2 import description
from tests.service.conftest import serving

PATIENCE = 60  # seconds that a busy machine may take to show one answer
TOKEN = "correct-horse"
PREFIX = "/loss"
PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=800,600"),
)
# Of each operation that has examples, its element's id and the names of the examples.
OPERATIONS = {f"operations-losses-{path[4:]}": [*examples] for path, examples in EXAMPLES.items()}
OPERATIONS["operations-V2-infer"] = [*description.examples()]


@pytest.fixture(scope="module")
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
            self.send_header("Content-Type", answer.headers["Content-Type"])
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


class Page:
    """Swagger UI at ``base``: its parts by CSS selectors, waited for."""

    def __init__(self, browser: Any, base: str) -> None:
        self._browser, self._base = browser, base
        self._wait = WebDriverWait(browser, PATIENCE, poll_frequency=0.02)
        browser.get(urljoin(base, "docs"))

    def part(self, selector: str) -> Any:
        """The first element of ``selector``, once it is there."""
        return self._wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, selector))[0]

    def click(self, selector: str) -> None:
        """Click the element of ``selector``, wherever on the page it is."""
        self._browser.execute_script("arguments[0].click()", self.part(selector))

    def authorize(self, token: str) -> None:
        """Give ``token`` to the Authorize dialogue."""
        self.click("button.authorize")
        self.part(".auth-container input").send_keys(token)
        self.click(".auth-btn-wrapper button[type=submit]")
        self.click(".auth-btn-wrapper button.btn-done")

    def answers(self, operation: str, examples: list[str]) -> Iterator[tuple[str, str, str]]:
        """Of each of the ``examples``: its name, the status that is shown, and the URL."""
        self.click(f"#{operation} .opblock-summary-control")
        self.click(f"#{operation} .try-out__btn")
        for name in examples:
            if len(examples) > 1:
                menu = f"#{operation} .opblock-section-request-body .examples-select-element"
                Select(self.part(menu)).select_by_value(name)
            self.click(f"#{operation} button.execute")
            shown = f"#{operation} .live-responses-table tbody .response-col_status"
            status = self._wait.until(lambda _: self.part(shown).text.split())[0]  # noqa: B023
            yield name, status, self.part(f"#{operation} .request-url pre").text
            self.click(f"#{operation} button.btn-clear")
        self.click(f"#{operation} .opblock-summary-control")

    def try_everything(self) -> None:
        """Try every example out: each must show a 200, from below ``base``."""
        tried = [
            (name, status, url.startswith(self._base))
            for operation, examples in OPERATIONS.items()
            for name, status, url in self.answers(operation, examples)
        ]
        assert tried == [(name, "200", True) for names in OPERATIONS.values() for name in names]
        severe = [line for line in self._browser.get_log("browser") if line["level"] == "SEVERE"]
        assert severe == []


def test_every_example_runs(browser: Any, live_server: httpx.URL) -> None:
    Page(browser, f"{live_server}/").try_everything()


def test_every_example_runs_below_a_prefix_and_with_a_token(browser: Any) -> None:
    with serving(LOSSD_AUTH_TOKENS=TOKEN) as url, below_a_prefix(url) as base:
        page = Page(browser, base)
        page.authorize(TOKEN)
        page.try_everything()
