"""A prefix that a proxy leaves in the path: everything is below it, and without it as well."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urljoin

import pytest
from pydantic import SecretStr

from service.app import create_app
from service.settings import Settings, SettingsError, load
from tests.service import wire
from tests.service.conftest import Client, running, wait_until_ready

BODY = b'{"logits": [[1, 2]]}'


@pytest.fixture(scope="module")
def prefixed() -> Iterator[Client]:
    """One with tokens, since paths decide who needs one."""
    settings = Settings(root_path="/a/loss", auth_tokens=SecretStr("sixteen-letters-0"))
    with running(create_app(settings, warm=lambda: None)) as client:
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize("prefix", ["", "/a/loss"])
def test_every_path_is_there_twice(prefixed: Client, prefix: str) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/docs", "/openapi.json"):
        assert prefixed.get(prefix + path).status_code == 200
    refused = prefixed.send(f"{prefix}/v1/softmax", BODY, wire.JSON)
    assert refused.status_code == 401
    token = {"authorization": "Bearer sixteen-letters-0"}
    assert prefixed.send(f"{prefix}/v1/softmax", BODY, wire.JSON, **token).status_code == 200
    assert prefixed.get(f"{prefix}/v2/models", headers=token).status_code == 200
    assert prefixed.get(f"{prefix}/", headers=token).json()["docs"] == "docs"


def test_links_of_the_page_stay_below_it(prefixed: Client) -> None:
    page = prefixed.get("/a/loss/docs").text
    assert '"docs/swagger-ui-bundle.js"' in page
    base = "http://lossd/a/loss/openapi.json"
    [server] = prefixed.get(base).json()["servers"]
    assert urljoin(base, server["url"]) == "http://lossd/a/loss/"


def test_the_prefix_alone_leads_to_its_slash(prefixed: Client) -> None:
    answer = prefixed.get("/a/loss")
    assert (answer.status_code, answer.headers["location"]) == (308, "/a/loss/")


@pytest.mark.parametrize("path", ["/a/losses/healthz", "/a/healthz", "/b/a/loss/healthz"])
def test_what_only_looks_like_it_is_unknown(prefixed: Client, path: str) -> None:
    token = {"authorization": "Bearer sixteen-letters-0"}
    assert prefixed.get(path, headers=token).status_code == 404
    assert prefixed.get(path).status_code == 401


@pytest.mark.parametrize("text", ["loss", "/loss/", "/", "/a//b", "/a?b"])
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="LOSSD_ROOT_PATH is"):
        load(root_path=text)
