"""The page and its files over HTTP: who gets it, and what it may load."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest

from service import page
from service.app import create_app
from service.middleware import auth
from service.settings import load
from tests.service import wire
from tests.service.conftest import Client, running

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
HEAVIEST = 150_000  # bytes of the page and all its files
NOT_OF_THE_PAGE = {"docs.html", "docs.css", "docs.js", "saved.html", "saved.js"}


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("text/html;q=0.1", True),
        ("TEXT/HTML", True),
        ("*/*", False),
        ("text/*", False),
        ("text/html;q=0", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_the_page_is_for_those_who_accept_html(client: Client, accept: str, html: bool) -> None:
    answer = client.get("/", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("text/html") is html
    assert answer.headers["vary"] == "Accept"
    if not html:
        assert answer.json()["name"] == "lossd"


def test_the_index_says_where_to_read_on_and_what_is_allowed(client: Client) -> None:
    index = client.get("/").json()
    for link in ("docs", "openapi", "ready"):
        assert client.get(urljoin("/", index[link])).status_code == 200
    assert index["limits"] == {"body_bytes": 2**30, "decoded_bytes": 2**30}
    assert index["token"] is False
    assert {"v1/cross_entropy", "v2/models/softmax/infer"} <= {*index["post"]}


def test_everything_that_the_page_loads_is_its_own(client: Client) -> None:
    text = client.get("/", headers={"accept": BROWSER}).text
    links = set(re.findall(r'(?:href|src)="([^"#]+)"', text))
    # All modules at once: those that others import would come a round trip later each.
    asked = {link.partition("/")[2] for link in links if link.endswith(".js")}
    assert asked == {name for name in page.ASSETS if name.endswith(".js")} - NOT_OF_THE_PAGE
    seen: set[str] = set()
    while links:
        link = links.pop()
        assert not re.match(r"/|\w+:", link), link  # below a prefix, too
        answer = client.get(urljoin("/", link))
        assert answer.status_code == 200, link
        seen.add(link)
        imported = re.findall(r'from "\./([\w.]+)"', answer.text) if link.endswith(".js") else []
        links |= {f"page/{name}" for name in imported} - seen
    loaded = {link.partition("/")[2] for link in seen if link.startswith("page/")}
    assert loaded == page.ASSETS.keys() - NOT_OF_THE_PAGE - {"index.html"}


@pytest.mark.parametrize("name", ["/", *(f"/page/{name}" for name in page.ASSETS)])
def test_files_have_strict_headers_and_are_sent_once(client: Client, name: str) -> None:
    if name.endswith(".html"):
        assert client.get(name).status_code == 404
        return
    answer = client.get(name, headers={"accept": BROWSER})
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers
    etag = answer.headers["etag"]
    again = client.get(name, headers={"accept": BROWSER, "if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)


def test_nothing_on_the_page_needs_a_weaker_policy() -> None:
    for name in ("index.html", "docs.html"):
        text = page.ASSETS[name].content.decode()
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|javascript:", text), name
    for name, asset in page.ASSETS.items():
        if name.endswith(".js"):
            text = asset.content.decode()
            assert not re.search(r"\b(eval|Function|innerHTML|insertAdjacentHTML)\b", text), name


def test_the_page_is_light() -> None:
    sizes = [
        len(asset.content) for name, asset in page.ASSETS.items() if name not in NOT_OF_THE_PAGE
    ]
    assert sum(sizes) < HEAVIEST


def test_a_server_without_the_page_keeps_its_index_and_its_documentation() -> None:
    with running(create_app(load(page=False), warm=lambda: None)) as client:
        assert client.get("/", headers={"accept": BROWSER}).json()["name"] == "lossd"
        wire.problem_of(client.get("/page/main.js"), 404)
        assert client.get("/docs").status_code == 200
        for name in page.SHARED:
            assert client.get(f"/page/{name}").status_code == 200


def test_the_page_opens_without_a_token_and_says_that_one_is_needed() -> None:
    app = create_app(load(auth_tokens="a-token-of-some-length"), warm=lambda: None)
    with running(app) as client:
        for path in auth.PAGE:
            assert client.get(path).status_code == 200
        assert client.get("/").json()["token"] is True
