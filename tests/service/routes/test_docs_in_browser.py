"""The documentation in a real browser: examples are tried out, and answered with 200."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import httpx2 as httpx
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from service.routes.examples import EXAMPLES
from service.routes.v2 import description
from tests.service.routes.conftest import PATIENCE, TOKEN
from tests.zoo import EVERY

# Of each operation that has examples, its element's id and the names of the examples.
OPERATIONS = {f"operations-losses-{path[4:]}": [*examples] for path, examples in EXAMPLES.items()}
OPERATIONS["operations-V2-infer"] = [*description.examples()]


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
            if len(OPERATIONS[operation]) > 1:
                menu = f"#{operation} .opblock-section-request-body .examples-select-element"
                Select(self.part(menu)).select_by_value(name)
            self.click(f"#{operation} button.execute")
            shown = f"#{operation} .live-responses-table tbody .response-col_status"
            status = self._wait.until(lambda _: self.part(shown).text.split())[0]  # noqa: B023
            yield name, status, self.part(f"#{operation} .request-url pre").text
            self.click(f"#{operation} button.btn-clear")
        self.click(f"#{operation} .opblock-summary-control")

    def try_out(self, operations: dict[str, list[str]]) -> None:
        """Try the examples of ``operations`` out: each must show a 200, from below ``base``."""
        tried = [
            (name, status, url.startswith(self._base))
            for operation, examples in operations.items()
            for name, status, url in self.answers(operation, examples)
        ]
        assert tried == [(name, "200", True) for names in operations.values() for name in names]
        severe = [line for line in self._browser.get_log("browser") if line["level"] == "SEVERE"]
        assert severe == []


def test_examples_run(browser: Any, live_server: httpx.URL) -> None:
    """Two of each operation, or all: ``test_openapi`` sends every one of them without a browser."""
    page = Page(browser, f"{live_server}/")
    page.try_out({name: given if EVERY else given[:2] for name, given in OPERATIONS.items()})


def test_examples_run_below_a_prefix_and_with_a_token(browser: Any, guarded: str) -> None:
    """One of ``/v1`` and one of ``/v2``: an address and headers follow from these; or all."""
    page = Page(browser, guarded)
    page.authorize(TOKEN)
    some = (next(iter(OPERATIONS)), "operations-V2-infer")
    page.try_out(OPERATIONS if EVERY else {name: OPERATIONS[name][:1] for name in some})
