"""HEAD and OPTIONS on every path, and what a 405 allows."""

from __future__ import annotations

from typing import Any

import pytest

from service import routes
from service.routes import docs
from tests.service import wire
from tests.service.conftest import Client

GET = [
    "/",
    "/docs",
    *(f"/docs/{name}" for name in docs.ASSETS),
    "/openapi.json",
    "/healthz",
    "/livez",
    "/readyz",
    "/v2",
    "/v2/",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models",
    "/v2/models/softmax",
    "/v2/models/softmax/versions/1",
    "/v2/models/softmax/ready",
    "/v2/models/softmax/config",
    "/v2/systemsharedmemory/status",
]
POST = [
    *routes.ENDPOINTS,
    "/v2/models/nothing/infer",
    "/v2/repository/index",
    "/v2/repository/models/softmax/load",
    "/v2/systemsharedmemory/unregister",
    "/v2/systemsharedmemory/region/x/register",
]


def allowed(response: Any) -> set[str]:
    return set(response.headers["allow"].split(", "))


@pytest.mark.parametrize("path", GET)
def test_head_is_get_without_its_body(client: Client, path: str) -> None:
    get, head = client.get(path), client.request("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == get.headers
    assert int(head.headers["content-length"]) == len(get.content) > 0


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nothing", 404), ("/v2/models/nothing", 404), ("/v2/models/nothing/config", 404)],
)
def test_head_fails_as_get_does(client: Client, path: str, status: int) -> None:
    get, head = client.get(path), client.request("HEAD", path)
    assert (get.status_code, head.status_code, head.content) == (status, status, b"")
    assert head.headers == get.headers


@pytest.mark.parametrize("path", [*GET, *POST])
def test_options_says_what_a_path_allows(client: Client, path: str) -> None:
    response = client.request("OPTIONS", path)
    assert (response.status_code, response.content) == (204, b"")
    assert "content-length" not in response.headers
    assert allowed(response) == {*(("GET", "HEAD") if path in GET else ("POST",)), "OPTIONS"}


@pytest.mark.parametrize("path", [*GET, *POST])
def test_another_method_is_a_405_that_allows_the_same(client: Client, path: str) -> None:
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "POST" if path in GET else "GET"):
        response = client.request(method, path)
        assert method in wire.problem_of(response, 405)["detail"]
        assert allowed(response) == allowed(client.request("OPTIONS", path))
    if path in POST:
        assert client.request("HEAD", path).status_code == 405


def test_options_of_what_is_not_there_is_a_404(client: Client) -> None:
    wire.problem_of(client.request("OPTIONS", "/v1/nothing"), 404)
