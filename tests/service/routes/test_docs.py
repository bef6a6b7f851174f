"""The pages about the service need nothing that is not in it."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest

from service.middleware import auth
from service.routes.docs import ASSETS
from tests.service.conftest import Client


def test_the_documentation_works_without_the_internet(client: Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "//" not in re.sub(r"<!--.*?-->|//[^\n\"']*\n", "", page.text, flags=re.S)
    links = re.findall(r"(?:href|src)=\"([^\"]+)\"", page.text)
    assert len(links) == 11
    for link in [*links, "openapi.json"]:
        # Below a prefix, too: nothing starts at the root.
        assert not link.startswith("/")
        assert client.get(urljoin("/docs", link)).status_code == 200, link
    assert 'url: "openapi.json"' in client.get("/page/docs.js").text
    assert client.get("/openapi.json").json()["servers"] == [{"url": "."}]


@pytest.mark.parametrize("name", ["redoc.standalone.js", "../core.py", "%2e%2e/core.py", ""])
def test_no_other_file_is_served(client: Client, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


def test_the_documentation_is_what_opens_without_a_token() -> None:
    assert {"/docs", "/openapi.json", *(f"/docs/{name}" for name in ASSETS)} == auth.DOCUMENTATION
